//! One shard on this node: its table of compact records, and the way from a command to an awake actor.
//!
//! Order of locks: table, then gate, then one of registry, troubles or alarms; never back.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard, RwLock};
use ractor::{ActorCell, ActorId, ActorRef};
use tokio::sync::oneshot;
use umbel_core::{
    device::DeviceRecord,
    ids::{ClientId, ShardId, Term},
    time::Tick,
};

use crate::{
    admission::{Place, Places},
    alarms::{Alarm, Alarms},
    common::{Common, Idle},
    device::{Answer, Command, Device, Work},
    metrics::CommandKind,
    refused::Refused,
    slot::{Awake, Gate, Mode, Slot},
    troubles::Troubles,
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

pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) common: Arc<Common>,
    /// Ordered, so that lists page by id without sorting. About 40 bytes per entry beside the slot.
    table: RwLock<BTreeMap<ClientId, Arc<Slot>>>,
    /// Which device an awake actor belongs to.
    registry: Mutex<HashMap<ActorId, Arc<Slot>>>,
    pub(crate) troubles: Mutex<Troubles>,
    alarms: Mutex<Alarms>,
    /// Records that differ from what is stored, because the machine holds the difference too small to store
    /// (a session is stale): a crash finds it out again, sleep must not forget it. One for each such session.
    volatile: Mutex<BTreeMap<ClientId, Arc<DeviceRecord>>>,
    in_flight: Arc<Places>,
    supervisor: RwLock<Option<ActorCell>>,
    /// The term whose state the table shows, plus one; zero before the first recovery.
    recovered: AtomicU64,
    /// When recovery is tried again after it failed.
    retry_at: AtomicU64,
    has_served: AtomicBool,
}

impl Shard {
    pub(crate) fn new(id: ShardId, common: &Arc<Common>) -> Arc<Self> {
        Arc::new(Self {
            id,
            common: Arc::clone(common),
            table: RwLock::default(),
            registry: Mutex::default(),
            troubles: Mutex::default(),
            alarms: Mutex::new(Alarms::new(common.clock.tick())),
            volatile: Mutex::default(),
            in_flight: Places::new(common.config.shard_in_flight_max),
            supervisor: RwLock::new(None),
            recovered: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            has_served: AtomicBool::new(false),
        })
    }

    /// The term in which commands may be worked on: owned, and its state known.
    pub(crate) fn term(&self) -> Result<Term, Refused> {
        if self.common.is_stopping() {
            return Err(Refused::Stopping);
        }
        let term = self.common.ledger.term(self.id).ok_or(Refused::NotOwner)?;
        self.is_recovered(term)
            .then_some(term)
            .ok_or(Refused::NotOwner)
    }

    pub(crate) fn is_recovered(&self, term: Term) -> bool {
        self.recovered.load(Ordering::Acquire) == term.0.saturating_add(1)
    }

    /// Whether recovery may be tried now.
    pub(crate) fn may_recover(&self, now: Tick) -> bool {
        self.retry_at.load(Ordering::Acquire) <= now.millis()
    }

    /// Recovery failed: not again before this.
    pub(crate) fn retry_recovery_at(&self, at: Tick) {
        self.retry_at.store(at.millis(), Ordering::Release);
    }

    /// Whether this process has served the shard before, so that its sessions may still be connected here.
    pub(crate) fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Acquire)
    }

    pub(crate) fn set_supervisor(&self, supervisor: Option<ActorCell>) {
        *self.supervisor.write() = supervisor;
    }

    pub(crate) fn supervisor(&self) -> Option<ActorCell> {
        self.supervisor.read().clone()
    }

    /// The record of a client, if it has one.
    pub(crate) fn find(&self, id: &ClientId) -> Option<Arc<Slot>> {
        self.table.read().get(id).map(Arc::clone)
    }

    /// The record of a client; a bare one if there is none. Bare ones leave when their actor sleeps.
    pub(crate) fn slot(&self, id: &ClientId) -> Arc<Slot> {
        if let Some(slot) = self.find(id) {
            return slot;
        }
        let mut table = self.table.write();
        Arc::clone(
            table
                .entry(id.clone())
                .or_insert_with(|| Slot::new(id.clone())),
        )
    }

    /// Up to `limit` records after an id, in id order.
    pub(crate) fn slots_after(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Slot>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let table = self.table.read();
        table
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, slot)| Arc::clone(slot))
            .collect()
    }

    /// Admits a command and hands it to the device's actor, which is woken if it sleeps.
    pub(crate) fn send(
        self: &Arc<Self>,
        id: &ClientId,
        kind: CommandKind,
        work: Work,
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        let sent = self.admit(id, kind, work);
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
    ) -> Result<oneshot::Receiver<Answer>, Refused> {
        self.term()?;
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
    fn forget_if_bare(&self, slot: &Arc<Slot>) {
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
            let mut gate = slot.gate.lock();
            if gate.awake.as_ref().is_some_and(|awake| awake.id() == actor) {
                gate.awake = None;
            }
        }
    }

    /// The record of a client that is newer than the stored one.
    pub(crate) fn volatile(&self, client: &ClientId) -> Option<Arc<DeviceRecord>> {
        self.volatile.lock().get(client).map(Arc::clone)
    }

    /// Keeps a record that is newer than the stored one, or forgets it because the stored one is newest.
    pub(crate) fn set_volatile(&self, client: &ClientId, record: Option<Arc<DeviceRecord>>) {
        let mut volatile = self.volatile.lock();
        match record {
            Some(record) => volatile.insert(client.clone(), record),
            None => volatile.remove(client),
        };
    }

    /// Sets an alarm.
    pub(crate) fn alarm(&self, device: &ClientId, after: Duration, alarm: Alarm) {
        let at = self.common.clock.tick() + after;
        self.alarms.lock().set(device.clone(), at, alarm);
    }

    /// The alarms that are due.
    pub(crate) fn due(&self, now: Tick) -> Vec<(ClientId, Alarm)> {
        self.alarms.lock().take_due(now)
    }

    /// Refuses commands until the table shows the state of the term that begins. What the table showed before is
    /// taken back, since it may have been another node's to change.
    pub(crate) fn begin_recovery(&self) -> Vec<Arc<Slot>> {
        self.recovered.store(0, Ordering::Release);
        *self.alarms.lock() = Alarms::new(self.common.clock.tick());
        let slots = self.slots_after(None, usize::MAX);
        for slot in &slots {
            self.common.census.moved(slot.clear(), None);
        }
        slots
    }

    /// The table shows the state of this term: commands are taken.
    pub(crate) fn end_recovery(&self, term: Term, before: Vec<Arc<Slot>>) {
        for slot in before {
            self.forget_if_bare(&slot);
        }
        self.has_served.store(true, Ordering::Release);
        self.recovered
            .store(term.0.saturating_add(1), Ordering::Release);
    }
}
