//! From a command to an awake actor, and from idleness to sleep: the part of a shard that opens and shuts gates.

use std::{sync::Arc, time::Instant};

use parking_lot::MutexGuard;
use ractor::{ActorId, ActorRef};
use tokio::sync::oneshot;
use umbel_core::{ids::ClientId, time::Tick};

use crate::{
    admission::Place,
    common::Idle,
    device::{Answer, Command, Device, Work},
    metrics::CommandKind,
    refused::Refused,
    remote::Call,
    shard::Shard,
    slot::{Awake, Gate, Mode, Slot},
};

/// A command's places and its count in the gate, given back when it was worked on or lost.
pub(crate) struct Permit {
    shard: Arc<Shard>,
    slot: Arc<Slot>,
    is_request: bool,
    is_counted: bool,
    _node: Place,
    _shard: Place,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_counted {
            let mut gate = self.slot.gate.lock();
            gate.leave(self.is_request);
            self.shard.queue_if_idle(&self.slot, gate);
        }
    }
}

impl Shard {
    /// Admits a command and hands it to the device's actor, which is woken if it sleeps.
    pub(crate) fn send(
        self: &Arc<Self>,
        id: &ClientId,
        kind: CommandKind,
        work: Work,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        self.send_call(id, kind, work, None)
    }

    /// Likewise, for a command of another node.
    pub(crate) fn send_call(
        self: &Arc<Self>,
        id: &ClientId,
        kind: CommandKind,
        work: Work,
        call: Option<Call>,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        let sent = self.admit(id, kind, work, call);
        if let Err(why) = sent {
            self.common.meters.refused(why);
        }
        sent
    }

    fn admit(
        self: &Arc<Self>,
        id: &ClientId,
        kind: CommandKind,
        work: Work,
        call: Option<Call>,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        self.term()?;
        if call.is_some() && self.applied.is_full() {
            return Err(Refused::Overloaded);
        }
        let node = self.common.in_flight.take().ok_or(Refused::Overloaded)?;
        let shard = self.in_flight.take().ok_or(Refused::Overloaded)?;
        let is_request = matches!(kind, CommandKind::Shadow | CommandKind::Registry);
        let mut place = None;
        loop {
            let slot = self.slot(id);
            let mut gate = slot.gate.lock();
            if !gate.check(is_request, self.common.config.device_in_flight_max)? {
                continue;
            }
            if gate.awake.is_none() && place.is_none() {
                drop(gate);
                // Making room locks other gates, so ours must be open meanwhile.
                place = self.common.place_awake();
                if place.is_none() {
                    self.forget_if_bare(&slot);
                    return Err(Refused::Overloaded);
                }
                continue;
            }
            // From here to the send the gate stays locked: nothing comes between the look at the actor and it.
            let actor = self.awake(&slot, &mut gate, place)?;
            gate.enter(is_request);
            let permit = Permit {
                shard: Arc::clone(self),
                slot: Arc::clone(&slot),
                is_request,
                is_counted: true,
                _node: node,
                _shard: shard,
            };
            let (reply, answer) = oneshot::channel();
            let asked = Instant::now();
            let sent = actor.send_message(Command {
                work,
                kind,
                call,
                permit,
                reply,
                asked,
            });
            // A command that could not be sent gives its permit back, which locks the gate.
            drop(gate);
            return sent.map(|()| answer).map_err(|_dead| Refused::Restarting);
        }
    }

    /// The device's actor, woken if it sleeps.
    fn awake(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        gate: &mut Gate,
        place: Option<Place>,
    ) -> Result<ActorRef<Command>, Refused> {
        if let Some(awake) = &gate.awake {
            return Ok(awake.actor.clone());
        }
        let place = place.ok_or(Refused::Overloaded)?;
        let supervisor = self.supervisor().ok_or(Refused::Restarting)?;
        let Ok(actor) = Device::wake(self, slot, supervisor) else {
            return Err(Refused::Restarting);
        };
        self.registry
            .lock()
            .insert(actor.get_id(), Arc::clone(slot));
        self.common.meters.wakes.increment(1);
        let last_used = self.common.clock.tick();
        let awake = Awake {
            actor: actor.clone(),
            last_used,
            is_queued: false,
            place,
        };
        gate.awake = Some(Box::new(awake));
        Ok(actor)
    }

    /// A command was worked on: gives its permit back and, if nothing waits and nothing is held hot, puts the
    /// actor to sleep.
    pub(crate) fn finish(self: &Arc<Self>, mut permit: Permit, actor: ActorId, is_hot: bool) {
        let slot = Arc::clone(&permit.slot);
        let mut gate = slot.gate.lock();
        permit.is_counted = false;
        gate.leave(permit.is_request);
        if !gate.is_idle(actor) {
            return;
        }
        if is_hot {
            self.queue_if_idle(&slot, gate);
        } else {
            self.lull(&slot, gate);
        }
    }

    /// Notes that an actor has nothing to do, so that it is put to sleep when it is time or room is needed.
    fn queue_if_idle(self: &Arc<Self>, slot: &Arc<Slot>, mut gate: MutexGuard<'_, Gate>) {
        if gate.in_flight > 0 {
            return;
        }
        let now = self.common.clock.tick();
        let Some(awake) = gate.awake.as_mut() else {
            return;
        };
        awake.last_used = now;
        if std::mem::replace(&mut awake.is_queued, true) {
            return;
        }
        let actor = awake.id();
        drop(gate);
        let sleep_after = self.common.config.sleep_after;
        let due = if sleep_after.is_zero() {
            Tick::from_millis(u64::MAX)
        } else {
            now + sleep_after
        };
        let (slot, shard) = (Arc::clone(slot), Arc::clone(self));
        self.common.queue_idle(Idle {
            due,
            actor,
            slot,
            shard,
        });
    }

    /// Puts an actor from the idle queue to sleep if it is still idle. With a time: only if it was idle for long
    /// enough; otherwise it goes back into the queue.
    pub(crate) fn lull_idle(self: &Arc<Self>, slot: &Arc<Slot>, actor: ActorId, now: Option<Tick>) {
        let sleep_after = self.common.config.sleep_after;
        let mut gate = slot.gate.lock();
        let is_idle = gate.is_idle(actor);
        let Some(awake) = gate.awake.as_mut().filter(|awake| awake.id() == actor) else {
            return;
        };
        let due = awake.last_used + sleep_after;
        if !is_idle {
            // It will queue itself when it becomes idle.
            awake.is_queued = false;
        } else if now.is_some_and(|now| now < due) {
            drop(gate);
            let (slot, shard) = (Arc::clone(slot), Arc::clone(self));
            self.common.queue_idle(Idle {
                due,
                actor,
                slot,
                shard,
            });
        } else {
            self.lull(slot, gate);
        }
    }

    fn lull(&self, slot: &Arc<Slot>, mut gate: MutexGuard<'_, Gate>) {
        let awake = gate.awake.take();
        drop(gate);
        if let Some(awake) = awake {
            self.registry.lock().remove(&awake.id());
            awake.actor.stop(None);
            drop(awake.place);
            self.common.meters.sleeps.increment(1);
        }
        self.forget_if_bare(slot);
    }

    /// Takes a record that says nothing out of the table.
    pub(crate) fn forget_if_bare(&self, slot: &Arc<Slot>) {
        if slot.is_stored() || slot.is_in_doubt() {
            return;
        }
        let mut table = self.table.write();
        let mut gate = slot.gate.lock();
        let is_bare = gate.awake.is_none()
            && gate.in_flight == 0
            && gate.mode == Mode::Open
            && !slot.is_stored()
            && !slot.is_in_doubt();
        if is_bare {
            gate.mode = Mode::Removed;
            table.remove(slot.id());
        }
    }

    /// Which device an actor belonged to; it does no longer.
    pub(crate) fn disown(&self, actor: ActorId) -> Option<Arc<Slot>> {
        self.registry.lock().remove(&actor)
    }

    /// All actors of this shard are gone with their supervisor. What they were writing is in doubt.
    pub(crate) fn disown_all(&self) {
        let orphans: Vec<_> = self.registry.lock().drain().collect();
        for (actor, slot) in orphans {
            slot.set_doubt(true);
            drop(slot.take_awake(actor));
        }
    }
}
