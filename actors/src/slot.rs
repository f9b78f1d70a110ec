//! The compact record of one device or client: what is known of the sleeping.
//!
//! At a million devices these records are the memory floor, so they hold numbers and nothing else. Heartbeats
//! and reads of presence touch them without waking anybody. The gate decides whether an actor is awake, under
//! one small lock, so that a command can never be sent to an actor that is about to sleep: an actor may only
//! stop while the gate counts no command in flight, and the count rises under the same lock as the send.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use ractor::{ActorId, ActorRef};
use umbel_core::{
    device::{DeviceRecord, Kind, Presence},
    ids::ClientId,
    time::Tick,
};

use crate::{admission::Place, device::Command, lives::NO_LIFE, refused::Refused};

/// What stands behind a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Commands are taken; the actor is awake or will be woken.
    Open,
    /// The actor failed and rests.
    Resting,
    /// The actor failed too often.
    Quarantined,
    /// The slot left the table; whoever holds it has to look again.
    Removed,
}

/// An awake actor.
pub(crate) struct Awake {
    pub(crate) actor: ActorRef<Command>,
    pub(crate) last_used: Tick,
    /// Whether it waits in the queue of those that may be put to sleep.
    pub(crate) is_queued: bool,
    /// Its place under the bound on awake actors.
    pub(crate) place: Place,
}

impl Awake {
    pub(crate) fn id(&self) -> ActorId {
        self.actor.get_id()
    }
}

/// Decides who may send to the actor, and when it may sleep.
pub(crate) struct Gate {
    pub(crate) awake: Option<Box<Awake>>,
    /// Commands sent and not yet worked on.
    pub(crate) in_flight: u32,
    /// How many of them are requests, which are bounded per device.
    pub(crate) requests: u8,
    pub(crate) mode: Mode,
}

impl Gate {
    /// Whether a command may pass. `Ok(false)`: look for the slot again, it left the table.
    pub(crate) fn check(&self, is_request: bool, requests_max: u8) -> Result<bool, Refused> {
        match self.mode {
            Mode::Open if is_request && self.requests >= requests_max => {
                Err(Refused::TooManyInFlight)
            },
            Mode::Open => Ok(true),
            Mode::Resting => Err(Refused::Restarting),
            Mode::Quarantined => Err(Refused::Quarantined),
            Mode::Removed => Ok(false),
        }
    }

    pub(crate) fn enter(&mut self, is_request: bool) {
        self.in_flight += 1;
        self.requests += u8::from(is_request);
    }

    pub(crate) fn leave(&mut self, is_request: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.requests = self.requests.saturating_sub(u8::from(is_request));
    }

    /// Whether this very actor is awake and has nothing to do.
    pub(crate) fn is_idle(&self, actor: ActorId) -> bool {
        self.in_flight == 0 && self.awake.as_ref().is_some_and(|awake| awake.id() == actor)
    }
}

/// The compact record.
pub(crate) struct Slot {
    id: ClientId,
    pub(crate) gate: Mutex<Gate>,
    last_seen: AtomicU64,
    /// Number of the gateway's life that holds its connection.
    life: AtomicU32,
    presence: AtomicU8,
    flags: AtomicU8,
}

/// There is a stored record of this client.
const STORED: u8 = 1;
/// The client is a device, not an application.
const DEVICE: u8 = 2;
/// It comes and goes too often.
const FLAPPING: u8 = 4;
/// The outcome of its last write is unknown.
const IN_DOUBT: u8 = 8;

/// Where a client is counted: is it a device, and its presence.
pub(crate) type Standing = (bool, Presence);

impl Slot {
    pub(crate) fn new(id: ClientId) -> Arc<Self> {
        let gate = Gate {
            awake: None,
            in_flight: 0,
            requests: 0,
            mode: Mode::Open,
        };
        Arc::new(Self {
            id,
            gate: Mutex::new(gate),
            last_seen: AtomicU64::new(0),
            life: AtomicU32::new(NO_LIFE),
            presence: AtomicU8::new(0),
            flags: AtomicU8::new(0),
        })
    }

    pub(crate) fn id(&self) -> &ClientId {
        &self.id
    }

    /// Notes a sign of life. One store: this is the path of every heartbeat.
    pub(crate) fn touch(&self, now: Tick) {
        self.last_seen.store(now.millis().max(1), Ordering::Relaxed);
    }

    /// Notes a sign of life that another node reports, unless a later one is known.
    pub(crate) fn touched(&self, at: Tick) {
        self.last_seen
            .fetch_max(at.millis().max(1), Ordering::Relaxed);
    }

    /// The last sign of life in this process.
    pub(crate) fn last_seen(&self) -> Option<Tick> {
        let millis = self.last_seen.load(Ordering::Relaxed);
        (millis > 0).then(|| Tick::from_millis(millis))
    }

    pub(crate) fn presence(&self) -> Presence {
        presence_of(self.presence.load(Ordering::Acquire))
    }

    pub(crate) fn is_stored(&self) -> bool {
        self.has(STORED)
    }

    pub(crate) fn is_device(&self) -> bool {
        self.has(DEVICE)
    }

    /// The number of the gateway's life that holds its connection, or may.
    pub(crate) fn life(&self) -> u32 {
        self.life.load(Ordering::Acquire)
    }

    pub(crate) fn is_flapping(&self) -> bool {
        self.has(FLAPPING)
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.has(IN_DOUBT)
    }

    /// A write's outcome is unknown, or known again.
    pub(crate) fn set_doubt(&self, doubt: bool) {
        if doubt {
            self.flags.fetch_or(IN_DOUBT, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!IN_DOUBT, Ordering::AcqRel);
        }
    }

    /// Takes over what a committed record says, and gives back where the client was counted before.
    pub(crate) fn adopt(
        &self,
        record: &DeviceRecord,
        is_flapping: bool,
        life: u32,
    ) -> Option<Standing> {
        let before = self.standing();
        self.life.store(life, Ordering::Release);
        let mut flags = STORED;
        if record.kind == Kind::Device {
            flags |= DEVICE;
        }
        if is_flapping {
            flags |= FLAPPING;
        }
        self.presence
            .store(number_of(record.presence), Ordering::Release);
        self.flags.store(flags, Ordering::Release);
        before
    }

    /// The record is gone. Gives back where the client was counted before.
    pub(crate) fn clear(&self) -> Option<Standing> {
        let before = self.standing();
        self.life.store(NO_LIFE, Ordering::Release);
        self.presence.store(0, Ordering::Release);
        self.flags.store(0, Ordering::Release);
        before
    }

    /// The rest after a failure is over.
    pub(crate) fn end_rest(&self) {
        let mut gate = self.gate.lock();
        if gate.mode == Mode::Resting {
            gate.mode = Mode::Open;
        }
    }

    /// Takes out the actor if it is this one. The caller drops it: not under the gate's lock, for what is left in
    /// a mailbox gives its permits back through the gate.
    pub(crate) fn take_awake(&self, actor: ActorId) -> Option<Box<Awake>> {
        let mut gate = self.gate.lock();
        let is_this = gate.awake.as_ref().is_some_and(|awake| awake.id() == actor);
        if is_this { gate.awake.take() } else { None }
    }

    pub(crate) fn standing(&self) -> Option<Standing> {
        self.is_stored()
            .then(|| (self.is_device(), self.presence()))
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }
}

const fn number_of(presence: Presence) -> u8 {
    match presence {
        Presence::Never => 0,
        Presence::Online => 1,
        Presence::Stale => 2,
        Presence::Offline => 3,
    }
}

const fn presence_of(number: u8) -> Presence {
    match number {
        1 => Presence::Online,
        2 => Presence::Stale,
        3 => Presence::Offline,
        _ => Presence::Never,
    }
}
