//! The device actor: a thin shell around `core::device`. It decides nothing about the domain.
//!
//! It loads what the machine needs, lets it decide, makes the decision durable, adopts it, and only then tells
//! anybody: nothing is announced that a crash could un-say. One command is worked on at a time, so the order of
//! a device is the order of its mailbox; other devices of the shard go on meanwhile and share log entries.

use std::{sync::Arc, time::Instant};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr};
use tokio::sync::oneshot;
use tracing::debug;
use umbel_core::{
    device::{Input, Reply},
    ids::NodeId,
    shadow::Request,
};

use crate::{
    alarms::Alarm,
    decide::{Hot, decide},
    dispatch::Permit,
    metrics::CommandKind,
    refused::Refused,
    remote::Call,
    roll::RollCall,
    shard::Shard,
    slot::Slot,
    timer,
};

/// What a device's actor is asked to do.
pub(crate) enum Work {
    /// An input of the machine as it stands.
    Input(Box<Input>),
    /// A shadow request; the actor adds the shadow as it is now.
    Shadow(Request),
    /// Something came due. It is set again when it is refused, for nobody else remembers it.
    Alarm(Alarm),
    /// Its gateway is gone or does not name it: its connection is lost, if it is still the one that was meant.
    Doubt(Arc<RollCall>),
    /// A gateway gave a connect of the client up: if one is recorded as held there, it is looked whether it is.
    Review(NodeId),
}

/// What the asker is told.
pub(crate) type Answer = Result<Option<Reply>, Refused>;

/// A message to a device's actor.
pub(crate) struct Command {
    pub(crate) work: Work,
    pub(crate) kind: CommandKind,
    /// Of another node: to be applied once.
    pub(crate) call: Option<Call>,
    pub(crate) permit: Permit,
    pub(crate) reply: oneshot::Sender<Answer>,
    pub(crate) asked: Instant,
}

/// The actor.
pub(crate) struct Device {
    shard: Arc<Shard>,
    slot: Arc<Slot>,
}

impl Device {
    /// Starts the actor of a device. Does not wait: the caller holds the device's gate.
    pub(crate) fn wake(
        shard: &Arc<Shard>,
        slot: &Arc<Slot>,
        supervisor: ActorCell,
    ) -> Result<ActorRef<Command>, SpawnErr> {
        let device = Self {
            shard: Arc::clone(shard),
            slot: Arc::clone(slot),
        };
        // The supervisor watches the actor; the task's handle has nothing to add.
        let (actor, _task) = ActorRuntime::spawn_linked_instant(None, device, (), supervisor)?;
        Ok(actor)
    }
}

impl Actor for Device {
    type Msg = Command;
    type State = Hot;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Command>, (): ()) -> Result<Hot, ActorProcessingErr> {
        Ok(Hot::default())
    }

    async fn handle(
        &self,
        myself: ActorRef<Command>,
        command: Command,
        hot: &mut Hot,
    ) -> Result<(), ActorProcessingErr> {
        let Command {
            work,
            kind,
            call,
            permit,
            reply,
            asked,
        } = command;
        let (alarm, roll) = match &work {
            Work::Alarm(alarm) => (Some(*alarm), None),
            Work::Doubt(roll) => (None, Some(Arc::clone(roll))),
            Work::Input(_) | Work::Shadow(_) | Work::Review(_) => (None, None),
        };
        let answer = decide(&self.shard, &self.slot, work, call, hot).await;
        // First the permit, then the answer: who was answered may ask again at once.
        self.shard.finish(permit, myself.get_id(), hot.is_hot());
        let meters = &self.shard.common.meters;
        meters.answered(kind, asked.elapsed());
        if let Err(why) = &answer {
            meters.refused(*why);
            if let Some(alarm) = alarm {
                timer::retry(&self.shard, self.slot.id(), alarm, *why);
            }
            if let Some(roll) = roll.filter(|_| why.passes()) {
                roll.again(self.slot.id().clone());
            }
        }
        if reply.send(answer).is_err() {
            debug!(device = %self.slot.id(), "nobody waits for the answer");
        }
        Ok(())
    }
}
