//! The part of a session that outlives its connection and that others may touch: what waits for the client, what it
//! subscribed to, and which connection speaks for it now.
//!
//! # Locks
//! The session table's lock comes before a mailbox's, a mailbox's before the router's and the retained index's. Nobody
//! takes a mailbox lock while holding the router's: a publish collects its receivers first.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Waker,
};

use parking_lot::{Mutex, MutexGuard};
use umbel_actors::ports::EvictReason;
use umbel_core::{
    device::Kind,
    ids::{ClientId, SessionEpoch, ShardId},
    message::Qos,
    time::Timestamp,
    topic::Filter,
};

use crate::peer::ListenerId;

use super::{
    backfill::{Backfill, Cursor},
    delivery::{Bounds, Delivery, cost},
    outbound::{Offered, Outbound},
    ticket::Pending,
};

/// What one subscription asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) id: Option<NonZeroU32>,
}

/// Why a connection has to go, and what that means for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) reason: EvictReason,
    pub(crate) prevent_will: bool,
    pub(crate) end_session: bool,
}

/// A connection, as operators see it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) kind: Kind,
    pub(crate) protocol: u8,
    pub(crate) clean_start: bool,
    pub(crate) expiry_seconds: u32,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) address: SocketAddr,
    pub(crate) listener: ListenerId,
    pub(crate) principal: Arc<str>,
    pub(crate) since: Timestamp,
}

/// A QoS 2 message of the client whose identifier is not free yet.
#[derive(Clone, Debug)]
pub(crate) enum Inbound {
    /// Its effect, or the row that remembers the identifier, is being committed; PUBREC waits for this.
    Committing(Pending),
    /// PUBREC may be sent; PUBREL is awaited.
    Received,
}

/// What became of a message for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It waits in the client's queue; so many older ones went for it.
    Queued {
        /// QoS 0 messages that had to go.
        dropped: usize,
    },
    /// It waits for its row to be committed under this sequence number.
    ToStore {
        /// Names the row.
        sequence: u64,
        /// What it counts against the bound in bytes.
        cost: usize,
    },
    /// The queue is full.
    Full,
    /// The client is not connected and its session does not keep such messages, or the session is over.
    Absent,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Mailbox {
    client: ClientId,
    shard: ShardId,
    /// Which connection speaks for the session; older ones have to go.
    epoch: AtomicU64,
    connected: AtomicBool,
    home: AtomicBool,
    state: Mutex<State>,
}

/// What the lock of a mailbox guards. Rare parts are boxed: most sessions are idle.
#[derive(Debug)]
pub(crate) struct State {
    /// The session outlives its connection: QoS 1 and 2 go through storage.
    pub(crate) durable: bool,
    /// The session is over; nothing may be added to it.
    pub(crate) ended: bool,
    pub(crate) eviction: Option<Eviction>,
    pub(crate) waker: Option<Waker>,
    /// Sorted by filter.
    pub(crate) subscriptions: Vec<(Filter, Options)>,
    pub(crate) inbound: BTreeMap<NonZeroU16, Inbound>,
    pub(crate) connection: Option<Box<Connection>>,
    pub(crate) backfill: Option<Box<Backfill>>,
    outbound: Option<Box<Outbound>>,
    next_sequence: u64,
}

impl Mailbox {
    /// An empty session nobody is connected to.
    pub(crate) fn new(client: ClientId, shard: ShardId, epoch: SessionEpoch, first: u64) -> Self {
        Self {
            client,
            shard,
            epoch: AtomicU64::new(epoch.0),
            connected: AtomicBool::new(false),
            home: AtomicBool::new(false),
            state: Mutex::new(State {
                durable: false,
                ended: false,
                eviction: None,
                waker: None,
                subscriptions: Vec::new(),
                inbound: BTreeMap::new(),
                connection: None,
                backfill: None,
                outbound: None,
                next_sequence: first.max(1),
            }),
        }
    }

    /// Whose session.
    pub(crate) const fn client(&self) -> &ClientId {
        &self.client
    }

    /// Where its rows are.
    pub(crate) const fn shard(&self) -> ShardId {
        self.shard
    }

    /// The connection that speaks for the session.
    pub(crate) fn epoch(&self) -> SessionEpoch {
        SessionEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether somebody is connected. A hint: it may change before the caller acts on it.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Whether this is a durable session.
    pub(crate) fn is_home(&self) -> bool {
        self.home.load(Ordering::Acquire)
    }

    /// The guarded part.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The guarded part, if this connection still speaks for the session.
    pub(crate) fn lock_as(&self, epoch: SessionEpoch) -> Option<MutexGuard<'_, State>> {
        let state = self.state.lock();
        (self.epoch() == epoch && !state.ended).then_some(state)
    }

    /// A connection takes the session over. What was in flight is sent again.
    pub(crate) fn attach(
        &self,
        state: &mut State,
        epoch: SessionEpoch,
        durable: bool,
        connection: Box<Connection>,
    ) {
        self.epoch.store(epoch.0, Ordering::Release);
        self.connected.store(true, Ordering::Release);
        let was_durable = state.durable;
        state.leave(was_durable);
        state.durable = durable;
        self.home.store(durable, Ordering::Release);
        state.eviction = None;
        state.connection = Some(connection);
    }

    /// The connection of this epoch is gone; false if another speaks for the session by now. Says how many messages
    /// were lost with it.
    pub(crate) fn detach(&self, epoch: SessionEpoch) -> Option<usize> {
        let mut state = self.lock_as(epoch)?;
        self.connected.store(false, Ordering::Release);
        state.connection = None;
        state.waker = None;
        let durable = state.durable;
        Some(state.leave(durable))
    }

    /// The session is over. Gives back its subscriptions, for the router to forget; the connection that may still be
    /// there learns of it when it looks.
    pub(crate) fn end(&self, superseded_by: Option<SessionEpoch>) -> Vec<(Filter, Options)> {
        let mut state = self.state.lock();
        state.ended = true;
        self.connected.store(false, Ordering::Release);
        if let Some(epoch) = superseded_by {
            self.epoch.store(epoch.0, Ordering::Release);
        }
        state.outbound = None;
        state.inbound = BTreeMap::new();
        state.backfill = None;
        state.connection = None;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        std::mem::take(&mut state.subscriptions)
    }

    /// The connection of this epoch or an older one has to go.
    pub(crate) fn evict(&self, epoch: SessionEpoch, eviction: Eviction) -> bool {
        let mut state = self.state.lock();
        if self.epoch() > epoch || state.connection.is_none() {
            return false;
        }
        state.eviction = Some(eviction);
        state.wake();
        true
    }

    /// Whether there is a subscription to this filter.
    pub(crate) fn has_subscription(&self, filter: &Filter) -> bool {
        let state = self.state.lock();
        state
            .subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
            .is_ok()
    }

    /// Takes a message for the client.
    pub(crate) fn deliver(&self, delivery: Delivery, bounds: &Bounds) -> Delivered {
        let mut state = self.state.lock();
        if state.ended {
            return Delivered::Absent;
        }
        let connected = state.connection.is_some();
        let is_durable = state.durable && delivery.qos > Qos::AtMostOnce;
        if !connected && !is_durable {
            return Delivered::Absent;
        }
        let size = cost(&delivery.message);
        let offered = if is_durable {
            state.outbound().offer_durable(delivery, bounds, connected)
        } else {
            state.outbound().offer(delivery, bounds)
        };
        match offered {
            Offered::Queued => {
                state.wake();
                Delivered::Queued { dropped: 0 }
            },
            Offered::QueuedInsteadOf { dropped } => {
                state.wake();
                Delivered::Queued { dropped }
            },
            Offered::ToStore(sequence) => Delivered::ToStore {
                sequence,
                cost: size,
            },
            Offered::Full => Delivered::Full,
        }
    }

    /// Whether a message would find room now.
    pub(crate) fn has_room(&self, delivery: &Delivery, bounds: &Bounds) -> bool {
        let mut state = self.state.lock();
        let is_durable = state.durable && delivery.qos > Qos::AtMostOnce;
        state
            .outbound()
            .has_room(cost(&delivery.message), bounds, is_durable)
    }

    /// The row of a message is committed, or will never be. False: the session ended meanwhile and the row is a stray.
    pub(crate) fn settle(&self, sequence: u64, cost: usize, is_stored: bool) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        state.outbound().settle(sequence, cost, is_stored);
        state.tidy();
        state.wake();
        true
    }
}

impl State {
    /// What waits for the client.
    pub(crate) fn outbound(&mut self) -> &mut Outbound {
        let next = self.next_sequence;
        self.outbound
            .get_or_insert_with(|| Box::new(Outbound::starting_at(next)))
    }

    /// What waits for the client, if anything does.
    pub(crate) fn outbound_if_any(&mut self) -> Option<&mut Outbound> {
        self.outbound.as_deref_mut()
    }

    /// Puts back what a restart found.
    pub(crate) fn restore(&mut self, outbound: Outbound) {
        self.next_sequence = outbound.next_sequence();
        self.outbound = Some(Box::new(outbound));
    }

    /// The number the next QoS 1 or 2 message takes.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.outbound
            .as_ref()
            .map_or(self.next_sequence, |outbound| outbound.next_sequence())
    }

    /// Messages in flight and waiting.
    pub(crate) fn backlog(&self) -> (usize, u64) {
        self.outbound
            .as_ref()
            .map_or((0, 0), |outbound| (outbound.inflight(), outbound.queued()))
    }

    /// A page of retained messages was read.
    pub(crate) fn advance_backfill(&mut self, cursor: &Cursor, resume: Option<String>) {
        if let Some(backfill) = &mut self.backfill {
            backfill.advance(cursor, resume);
            if backfill.is_empty() {
                self.backfill = None;
            }
        }
    }

    /// Gives memory back when nothing waits.
    pub(crate) fn tidy(&mut self) {
        if let Some(outbound) = &self.outbound
            && outbound.is_idle()
        {
            self.next_sequence = outbound.next_sequence();
            self.outbound = None;
        }
    }

    /// Asks the connection to look.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The connection is gone: forgets what only it needed.
    fn leave(&mut self, durable: bool) -> usize {
        let lost = self
            .outbound
            .as_mut()
            .map_or(0, |outbound| outbound.detach(durable));
        if !durable {
            self.inbound = BTreeMap::new();
            self.backfill = None;
        }
        self.tidy();
        self.wake();
        lost
    }
}
