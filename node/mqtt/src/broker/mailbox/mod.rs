//! The part of a session that others than its connection may touch: what waits for the client, what it subscribed to,
//! and which connection speaks for it now.
//!
//! A session that ends with its connection has one mailbox, on the node of the connection. A session that outlives it
//! has a *home* on the node that owns the client's shard, with rows in storage, and, while the client is connected, a
//! *window* on the node of the connection, which holds what the home has pushed and the client has not acknowledged.
//!
//! # Locks
//! The session tables' locks come before a mailbox's, a home's before a window's, a mailbox's before the router's and
//! the retained index's. Nobody takes a mailbox lock while holding the router's: a publish collects its receivers first.

mod state;

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
    ids::{ClientId, SessionEpoch, ShardId, Term},
    message::Qos,
    time::Timestamp,
    topic::Filter,
};
use umbel_storage::Refusal;

use crate::peer::ListenerId;

use super::{
    backfill::Backfill,
    delivery::{Bounds, Delivery, cost},
    home::Gateway,
    outbound::{Offered, Outbound},
    ticket::Pending,
    window::Link,
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
pub(crate) enum Eviction {
    /// Somebody asked for its end.
    Asked {
        reason: EvictReason,
        prevent_will: bool,
        end_session: bool,
    },
    /// This node sends its clients to others.
    Moved,
}

/// Which part of a session a mailbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of a session that ends with its connection.
    Clean,
    /// The connected part of a session that outlives its connection.
    Window,
    /// The lasting part of a session that outlives its connection.
    Home,
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
    role: Role,
    /// Of a home: the term in which this node took it up. Rows of another term are not its to write.
    term: Term,
    /// Of a home: the connection with which its session began, if that is known.
    began: SessionEpoch,
    /// Which connection speaks for the session; older ones have to go.
    epoch: AtomicU64,
    connected: AtomicBool,
    state: Mutex<State>,
}

/// What the lock of a mailbox guards. Rare parts are boxed: most sessions are idle.
#[derive(Debug)]
pub(crate) struct State {
    /// The session is over, or not here any more; nothing may be added to it.
    pub(crate) ended: bool,
    /// Of a window: its home may have more that is not in memory.
    pub(crate) hungry: bool,
    /// Of a home: its storage is being read for a window on another node.
    pub(crate) reading: bool,
    /// Of a window: the way to its home.
    pub(crate) link: Option<Box<Link>>,
    /// Of a home: the window it pushes to, while the client is connected.
    pub(crate) gateway: Option<Box<Gateway>>,
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
    /// What a connection has of its session: all of it, or the window of one that has a home.
    pub(crate) fn connected(
        client: ClientId,
        shard: ShardId,
        role: Role,
        epoch: SessionEpoch,
    ) -> Self {
        Self {
            epoch: AtomicU64::new(epoch.0),
            ..Self::new(client, shard, role, 1)
        }
    }

    /// A home nobody is connected to; sequence numbers begin at `first`.
    pub(crate) fn home(
        client: ClientId,
        shard: ShardId,
        term: Term,
        began: SessionEpoch,
        first: u64,
    ) -> Self {
        Self {
            term,
            began,
            ..Self::new(client, shard, Role::Home, first)
        }
    }

    fn new(client: ClientId, shard: ShardId, role: Role, first: u64) -> Self {
        Self {
            client,
            shard,
            role,
            term: Term::default(),
            began: SessionEpoch::default(),
            epoch: AtomicU64::new(0),
            connected: AtomicBool::new(false),
            state: Mutex::new(State {
                ended: false,
                hungry: false,
                reading: false,
                link: None,
                gateway: None,
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

    /// The term in which this node took the home up.
    pub(crate) const fn term(&self) -> Term {
        self.term
    }

    /// The connection with which the home's session began; the lowest one if that is not known.
    pub(crate) const fn began(&self) -> SessionEpoch {
        self.began
    }

    /// Whether this is the lasting part of a session.
    pub(crate) const fn is_home(&self) -> bool {
        matches!(self.role, Role::Home)
    }

    /// Whether this is the connected part of a session whose home is elsewhere, or in the other table.
    pub(crate) const fn is_window(&self) -> bool {
        matches!(self.role, Role::Window)
    }

    /// The connection that speaks for the session.
    pub(crate) fn epoch(&self) -> SessionEpoch {
        SessionEpoch(self.epoch.load(Ordering::Acquire))
    }

    /// Whether somebody is connected. A hint: it may change before the caller acts on it.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
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

    /// A connection takes the session over, or begins it. What an older one had in flight is forgotten: a home pushes it
    /// again.
    pub(crate) fn attach(
        &self,
        state: &mut State,
        epoch: SessionEpoch,
        connection: Box<Connection>,
    ) {
        self.epoch.store(epoch.0, Ordering::Release);
        self.connected.store(true, Ordering::Release);
        state.outbound = None;
        state.next_sequence = 1;
        state.backfill = None;
        state.link = None;
        state.hungry = false;
        state.eviction = None;
        state.connection = Some(connection);
        state.wake();
    }

    /// The connection of this epoch is gone; `None` if another speaks for the session by now. Says how many messages were
    /// lost with it, and what its home has to know.
    pub(crate) fn detach(&self, epoch: SessionEpoch) -> Option<Left> {
        let mut state = self.lock_as(epoch)?;
        self.connected.store(false, Ordering::Release);
        state.ended = true;
        state.connection = None;
        state.waker = None;
        state.inbound = BTreeMap::new();
        state.backfill = None;
        let outbound = state.outbound.take();
        let waiting = outbound
            .as_ref()
            .map_or((0, 0), |outbound| outbound.waiting());
        Some(Left {
            lost: if self.is_window() {
                waiting.1
            } else {
                waiting.0
            },
            sent: outbound.map_or(0, |outbound| outbound.highest_sent()),
            link: state.link.take(),
        })
    }

    /// The connection of this epoch speaks for the session from here on.
    pub(crate) fn listen_to(&self, epoch: SessionEpoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// A window takes what this home pushes from here on.
    pub(crate) fn open_window(&self, state: &mut State, gateway: Box<Gateway>) {
        self.connected.store(true, Ordering::Release);
        state.gateway = Some(gateway);
    }

    /// The window is gone: what was in flight will be pushed again. `sent`: the highest sequence number the client was
    /// sent, if that is known. Says how many messages were lost with it.
    pub(crate) fn close_window(&self, state: &mut State, sent: Option<u64>) -> usize {
        self.connected.store(false, Ordering::Release);
        state.gateway = None;
        let lost = state
            .outbound
            .as_mut()
            .map_or(0, |outbound| outbound.detach(sent));
        state.tidy();
        lost
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
        state.gateway = None;
        state.link = None;
        state.wake();
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
        self.state.lock().is_subscribed(filter)
    }

    /// Takes a message for the client.
    pub(crate) fn deliver(&self, delivery: Delivery, bounds: &Bounds) -> Delivered {
        let mut state = self.state.lock();
        if state.ended {
            return Delivered::Absent;
        }
        let connected = state.connection.is_some() || state.gateway.is_some();
        let is_durable = self.is_home() && delivery.qos > Qos::AtMostOnce;
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
        let is_durable = self.is_home() && delivery.qos > Qos::AtMostOnce;
        state
            .outbound()
            .has_room(cost(&delivery.message), bounds, is_durable)
    }

    /// The row of a message is committed, or will never be, or nobody knows: then it counts as acknowledged, and the
    /// caller has it deleted. False: the session ended meanwhile and the row is a stray.
    pub(crate) fn settle(&self, sequence: u64, cost: usize, outcome: Result<(), Refusal>) -> bool {
        let mut state = self.state.lock();
        if state.ended {
            return false;
        }
        let outbound = state.outbound();
        outbound.settle(sequence, cost, outcome.is_ok());
        if outcome == Err(Refusal::Unknown) {
            // it was not counted: read all the same, it would be taken for another that is there
            outbound.begin_delete(sequence);
        }
        state.tidy();
        state.wake();
        true
    }
}

/// What a connection leaves behind.
#[derive(Debug)]
pub(crate) struct Left {
    /// Messages that waited and are lost.
    pub(crate) lost: usize,
    /// The highest sequence number the client was sent.
    pub(crate) sent: u64,
    /// Of a window: the way to its home.
    pub(crate) link: Option<Box<Link>>,
}
