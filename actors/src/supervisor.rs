//! One supervisor per shard, and a root above them. They watch; policy is in [`crate::supervise`].
//!
//! ractor's own answer to a dying child is to die with it, so the hook is overridden at both levels. A
//! supervisor that ends would take its children with it; the root then gives the shard a new one.

use std::sync::Arc;

use ractor::{Actor, ActorCell, ActorId, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tracing::{error, warn};

use crate::{alarms::Alarm, feed::FleetEventKind, shard::Shard, slot::Mode, supervise::Directive};

/// The supervisor of one shard's device actors.
pub(crate) struct Supervisor(pub(crate) Arc<Shard>);

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(child, why) => {
                failed(&self.0, child.get_id(), &why.to_string());
            },
            SupervisionEvent::ActorTerminated(child, _, _) => ended(&self.0, child.get_id()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {},
        }
        Ok(())
    }
}

/// A device actor failed: it rests, or goes into quarantine.
fn failed(shard: &Arc<Shard>, actor: ActorId, message: &str) {
    let common = &shard.common;
    common.meters.panics.increment(1);
    let Some(slot) = shard.disown(actor) else {
        return;
    };
    let times = (common.clock.tick(), common.clock.wall());
    let policy = &common.config.restart;
    let directive = shard
        .troubles
        .lock()
        .strike(slot.id(), message, policy, times);
    let mode = match directive {
        Directive::RestartAfter(_) => Mode::Resting,
        Directive::Quarantine => Mode::Quarantined,
    };
    let dead = {
        let mut gate = slot.gate.lock();
        gate.mode = mode;
        gate.awake.take()
    };
    drop(dead);
    match directive {
        Directive::RestartAfter(rest) => {
            warn!(device = %slot.id(), shard = %shard.id, error = message, ?rest, "device actor failed");
            shard.alarm(slot.id(), rest, Alarm::Restart);
        },
        Directive::Quarantine => {
            error!(device = %slot.id(), shard = %shard.id, error = message, "device quarantined");
            common.meters.quarantines.increment(1);
            common
                .feed
                .tell(times.1, slot.id().clone(), FleetEventKind::Quarantined);
        },
    }
}

/// A device actor ended without being put to sleep: it was killed. The next command wakes another.
fn ended(shard: &Arc<Shard>, actor: ActorId) {
    let Some(slot) = shard.disown(actor) else {
        return;
    };
    slot.set_doubt(true);
    drop(slot.take_awake(actor));
}

/// The root of the tree. Its state is who supervises what.
pub(crate) struct Root;

impl Actor for Root {
    type Msg = ();
    type State = Vec<(ActorId, Arc<Shard>)>;
    type Arguments = Vec<Arc<Shard>>;

    async fn pre_start(
        &self,
        myself: ActorRef<()>,
        shards: Vec<Arc<Shard>>,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut supervisors = Vec::with_capacity(shards.len());
        for shard in shards {
            supervisors.push((start(&shard, myself.get_cell()).await?, shard));
        }
        Ok(supervisors)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        supervisors: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let (child, why) = match event {
            SupervisionEvent::ActorFailed(child, why) => (child, why.to_string()),
            SupervisionEvent::ActorTerminated(child, _, why) => (child, why.unwrap_or_default()),
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {
                return Ok(());
            },
        };
        for (supervisor, shard) in supervisors {
            if *supervisor == child.get_id() && !shard.common.is_stopping() {
                error!(shard = %shard.id, error = why, "supervisor ended, starting another");
                shard.set_supervisor(None);
                shard.disown_all();
                *supervisor = start(shard, myself.get_cell()).await?;
            }
        }
        Ok(())
    }
}

async fn start(shard: &Arc<Shard>, root: ActorCell) -> Result<ActorId, SpawnErr> {
    let (actor, _) = Actor::spawn_linked(None, Supervisor(Arc::clone(shard)), (), root).await?;
    let id = actor.get_id();
    shard.set_supervisor(Some(actor.get_cell()));
    Ok(id)
}
