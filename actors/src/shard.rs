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
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use ractor::{ActorCell, ActorId};
use umbel_core::{
    device::DeviceRecord,
    ids::{ClientId, ShardId, Term},
    time::Tick,
};

use crate::{
    admission::Places,
    alarms::{Alarm, Alarms},
    applied::Applied,
    common::Common,
    refused::Refused,
    roll::Rolls,
    slot::{Mode, Slot},
    troubles::Troubles,
};

pub(crate) struct Shard {
    pub(crate) id: ShardId,
    pub(crate) common: Arc<Common>,
    /// Ordered, so that lists page by id without sorting. About 40 bytes per entry beside the slot.
    pub(crate) table: RwLock<BTreeMap<ClientId, Arc<Slot>>>,
    /// Which device an awake actor belongs to.
    pub(crate) registry: Mutex<HashMap<ActorId, Arc<Slot>>>,
    pub(crate) troubles: Mutex<Troubles>,
    alarms: Mutex<Alarms>,
    /// Records that differ from what is stored, because the machine holds the difference too small to store
    /// (a session is stale): a crash finds it out again, sleep must not forget it. One for each such session.
    volatile: Mutex<BTreeMap<ClientId, Arc<DeviceRecord>>>,
    pub(crate) in_flight: Arc<Places>,
    /// Commands of other nodes that were applied lately.
    pub(crate) applied: Applied,
    /// Gateways whose clients are called.
    pub(crate) rolls: Rolls,
    supervisor: RwLock<Option<ActorCell>>,
    /// The term whose state the table shows, plus one; zero before the first recovery.
    recovered: AtomicU64,
    /// When recovery is tried again after it failed.
    retry_at: AtomicU64,
    has_served: AtomicBool,
    /// Since when this node may not speak for a shard it has served.
    lapsed: Mutex<Option<Tick>>,
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
            applied: Applied::default(),
            rolls: Rolls::default(),
            supervisor: RwLock::new(None),
            recovered: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            has_served: AtomicBool::new(false),
            lapsed: Mutex::default(),
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

    /// Whether commands may still be worked on in the term in which a read was made.
    pub(crate) fn still(&self, term: Term) -> Result<(), Refused> {
        if self.term()? == term {
            Ok(())
        } else {
            Err(Refused::NotOwner)
        }
    }

    /// Whether this node owns the shard, even if it does not know its state yet.
    pub(crate) fn is_owned(&self) -> bool {
        self.common.ledger.term(self.id).is_some()
    }

    /// The term whose state the table shows.
    pub(crate) fn shown(&self) -> Option<Term> {
        self.recovered
            .load(Ordering::Acquire)
            .checked_sub(1)
            .map(Term)
    }

    pub(crate) fn is_recovered(&self, term: Term) -> bool {
        self.recovered.load(Ordering::Acquire) == term.0.saturating_add(1)
    }

    /// Whether recovery may be tried now.
    pub(crate) fn may_recover(&self, now: Tick) -> bool {
        self.retry_at.load(Ordering::Acquire) <= now.millis()
    }

    pub(crate) fn lapsed(&self) -> Option<Tick> {
        *self.lapsed.lock()
    }

    pub(crate) fn set_lapsed(&self, since: Option<Tick>) {
        *self.lapsed.lock() = since;
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

    /// Sets an alarm again that could not be heard.
    pub(crate) fn alarm_again(&self, device: &ClientId, after: Duration, alarm: Alarm) {
        let at = self.common.clock.tick() + after;
        self.alarms.lock().set_again(device.clone(), at, alarm);
    }

    /// The alarms that are due.
    pub(crate) fn due(&self, now: Tick) -> Vec<(ClientId, Alarm)> {
        self.alarms.lock().take_due(now)
    }

    /// Refuses commands until the table shows the state of the term that begins. What the table showed before is
    /// taken back, since it may have been another node's to change.
    pub(crate) fn begin_recovery(&self, term: Term) -> Vec<Arc<Slot>> {
        let shown = self.recovered.swap(0, Ordering::AcqRel);
        // Only the next term surely had no other owner before it, who may have known better.
        if shown != term.0 {
            self.volatile.lock().clear();
        }
        self.rolls.clear();
        self.begin_alarms_anew();
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
        self.common.moves.send_modify(|moves| *moves += 1);
    }

    /// The shard is another node's: what this node knew of it goes. Actors that work finish, and are refused; the rest
    /// of them goes in the next turn.
    pub(crate) fn drop_all(self: &Arc<Self>) {
        self.recovered.store(0, Ordering::Release);
        self.has_served.store(false, Ordering::Release);
        self.volatile.lock().clear();
        self.rolls.clear();
        self.applied.clear();
        self.begin_alarms_anew();
        *self.troubles.lock() = Troubles::default();
        for slot in self.slots_after(None, usize::MAX) {
            self.common.census.moved(slot.clear(), None);
            let mode = {
                let mut gate = slot.gate.lock();
                if matches!(gate.mode, Mode::Resting | Mode::Quarantined) {
                    gate.mode = Mode::Open;
                }
                gate.awake.as_ref().map(|awake| awake.id())
            };
            match mode {
                Some(actor) => self.lull_idle(&slot, actor, None),
                None => self.forget_if_bare(&slot),
            }
        }
        self.common.moves.send_modify(|moves| *moves += 1);
    }

    /// Whether anything is known here that only an owner knows.
    pub(crate) fn is_blank(&self) -> bool {
        self.recovered.load(Ordering::Acquire) == 0 && self.table.read().is_empty()
    }

    fn begin_alarms_anew(&self) {
        let now = self.common.clock.tick();
        let mut alarms = self.alarms.lock();
        if self.common.nodes.is_some() {
            // Ends of sessions are kept by their gateway, which asks whoever owns them.
            *alarms = Alarms::new(now);
        } else {
            alarms.begin_anew(now);
        }
    }
}
