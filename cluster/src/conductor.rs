//! One task per node that has peers: looks at every group, beats the hearts of those it leads, campaigns where a leader
//! is missing, and gives up where nobody answers.
//!
//! One look at all groups costs microseconds; timers for each group would cost more, and would spread what is sent to a
//! peer over many small frames.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use metrics::histogram;
use tokio::time::{Instant, MissedTickBehavior};
use umbel_core::ids::NodeId;
use umbel_storage::{Reach, log::GroupLog};

use crate::{
    clock::Moment,
    hosted::Hosted,
    metrics as names,
    raft::{
        group::{Act, Group},
        mux::Mux,
    },
};

/// How often the groups are looked at: part of every failover.
const EVERY: Duration = Duration::from_millis(25);
/// How often answers that never came are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// Looks after the groups until it is aborted.
pub(crate) async fn run(
    hosted: Arc<Hosted>,
    mux: Arc<Mux>,
    log: Arc<dyn GroupLog>,
    heartbeat: Duration,
) {
    let peers = mux.transport().peers();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let late = histogram!(names::LOOK_DELAY);
    let (mut beat_at, mut sweep_at) = (Instant::now(), Instant::now());
    loop {
        let tick = ticks.tick().await;
        late.record(tick.elapsed());
        let connected: BTreeSet<NodeId> = peers
            .borrow()
            .iter()
            .filter(|peer| peer.reach == Reach::Connected)
            .map(|peer| peer.node)
            .collect();
        let beats = tick >= beat_at;
        if beats {
            beat_at = tick + heartbeat;
            // Somebody has to look, or a sync that does not end is not noticed.
            let _looked = log.pace();
        }
        if tick >= sweep_at {
            sweep_at = tick + SWEEP_EVERY;
            mux.sweep();
        }
        let now = Moment::now();
        for shard in hosted.all().values() {
            let Some(group) = shard.group() else { continue };
            let act = group.look(now, |node| !connected.contains(&node));
            perform(act, group, beats).await;
        }
    }
}

async fn perform(act: Act, group: Arc<Group>, beats: bool) {
    match act {
        Act::Beat if beats => group.beat().await,
        Act::Beat | Act::Wait => {},
        Act::StepDown => {
            tokio::spawn(async move { group.step_down().await });
        },
        Act::Campaign => {
            tokio::spawn(group.campaign());
        },
    }
}
