//! One ticking task per node: turns time into alarms and sleep. There is no timer per device.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::error;
use umbel_core::{device::Input, ids::ClientId};

use crate::{
    alarms::Alarm, common::Common, device::Work, metrics::CommandKind, ownership, refused::Refused,
    shard::Shard,
};

/// When a command of the clockwork could not be worked on, it is tried again after this.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// The ticking task.
pub(crate) struct Clockwork {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Clockwork {
    pub(crate) fn start(common: Arc<Common>, shards: Arc<[Arc<Shard>]>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut ticks = interval(common.config.tick);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut moved = common.nodes.as_ref().map(|nodes| nodes.changes());
            while !*stopped.borrow() {
                tokio::select! {
                    _ = ticks.tick() => turn(&common, &shards).await,
                    // An owner is there for its devices at once, not at the next tick.
                    () = news(moved.as_mut()) => ownership::follow(&common, &shards).await,
                    changed = stopped.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        if let Err(why) = self.task.await {
            error!(error = %why, "the clockwork failed");
        }
    }
}

/// One turn of the clockwork.
async fn turn(common: &Arc<Common>, shards: &[Arc<Shard>]) {
    let now = common.clock.tick();
    ownership::follow(common, shards).await;
    ownership::attend(shards, now);
    for shard in shards {
        for (device, alarm) in shard.due(now) {
            ring(shard, &device, alarm);
        }
    }
    common.lull_due(now);
    show(common, shards);
}

/// Resolves when the world changed; never for a fleet that is alone.
async fn news(moved: Option<&mut watch::Receiver<u64>>) {
    if let Some(moved) = moved
        && moved.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Gives an alarm to the device it belongs to.
fn ring(shard: &Arc<Shard>, device: &ClientId, alarm: Alarm) {
    if alarm == Alarm::Restart {
        if let Some(slot) = shard.find(device) {
            slot.end_rest();
        }
        let message = shard.troubles.lock().message(device).map(str::to_owned);
        if let Some(message) = message {
            // Best effort: the operator has the log line, and the list of those in quarantine.
            let work = Work::Input(Box::new(Input::Failed { message }));
            drop(shard.send(device, CommandKind::Timer, work));
        }
    }
    send(shard, device, alarm);
}

/// Sends an alarm's input to the device. Nobody waits for the answer: the actor sets the alarm again when the
/// input is refused. What a shard that is not ours forgets, its recovery schedules anew.
pub(crate) fn send(shard: &Arc<Shard>, device: &ClientId, alarm: Alarm) {
    if let Err(why) = shard.send(device, CommandKind::Timer, Work::Alarm(alarm)) {
        retry(shard, device, alarm, why);
    }
}

/// Sets an alarm again whose input was refused, if it is worth it.
pub(crate) fn retry(shard: &Shard, device: &ClientId, alarm: Alarm, why: Refused) {
    // The end of a session is known to nobody but us, so it outlives a quarantine and a change of term.
    let is_end = matches!(alarm, Alarm::Ended(_))
        && why != Refused::Stopping
        && shard.common.nodes.is_none();
    if why.passes() || is_end {
        shard.alarm_again(device, RETRY, alarm);
    }
}

/// Numbers that are shown, not counted.
fn show(common: &Common, shards: &[Arc<Shard>]) {
    common.census.publish();
    common.meters.awake.set(shown(common.awake.taken()));
    common.meters.in_flight.set(shown(common.in_flight.taken()));
    let quarantined: usize = shards
        .iter()
        .map(|shard| shard.troubles.lock().quarantined_count())
        .sum();
    common.meters.quarantined.set(shown(quarantined));
    let served = shards.iter().filter(|shard| shard.term().is_ok());
    common.meters.shards_served.set(shown(served.count()));
    let remembered = shards.iter().map(|shard| shard.applied.len()).sum();
    common.meters.remembered.set(shown(remembered));
}

fn shown(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
