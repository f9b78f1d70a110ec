//! What all shards of a node share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use ractor::ActorId;
use tokio::sync::watch;
use umbel_core::time::Tick;
use umbel_storage::{ledger::Ledger, nodes::Nodes};

use crate::{
    admission::{Place, Places},
    census::Census,
    config::Config,
    feed::Feed,
    lives::Lives,
    metrics::Meters,
    ports::{Clock, Outbox},
    realm,
    shard::Shard,
    slot::Slot,
    take_overs::TakeOvers,
};

/// How many idle actors are looked at to make room for one that is needed. A bound on the work of one command.
const ROOM_TRIES: usize = 32;

/// An actor that has nothing to do and holds state hot.
pub(crate) struct Idle {
    pub(crate) due: Tick,
    pub(crate) actor: ActorId,
    pub(crate) slot: Arc<Slot>,
    pub(crate) shard: Arc<Shard>,
}

pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) ledger: Arc<dyn Ledger>,
    /// The other nodes; `None` for a fleet that is alone and has no need to know who it is.
    pub(crate) nodes: Option<Arc<dyn Nodes>>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) lives: Lives,
    pub(crate) take_overs: TakeOvers,
    /// Changes whenever a shard begins or ends to be served here.
    pub(crate) moves: watch::Sender<u64>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) meters: Meters,
    pub(crate) census: Census,
    pub(crate) in_flight: Arc<Places>,
    pub(crate) awake: Arc<Places>,
    /// Asks gateways; none for a fleet without a realm. The realm holds the fleet, so not the other way round, too.
    realm: OnceLock<Weak<realm::Inner>>,
    /// Idle actors, the longest idle first. Each awake actor is in it at most once.
    idle: Mutex<VecDeque<Idle>>,
    serving: AtomicBool,
    stopping: AtomicBool,
}

impl Common {
    pub(crate) fn new(
        config: Config,
        (ledger, nodes): (Arc<dyn Ledger>, Option<Arc<dyn Nodes>>),
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(Self {
            feed: Arc::new(Feed::new(config.feed_capacity, clock.wall())),
            meters: Meters::new(),
            census: Census::default(),
            in_flight: Places::new(config.node_in_flight_max),
            awake: Places::new(config.awake_max),
            realm: OnceLock::new(),
            idle: Mutex::default(),
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            lives: Lives::default(),
            take_overs: TakeOvers::default(),
            moves: watch::Sender::new(0),
            config,
            ledger,
            nodes,
            outbox,
            clock,
        })
    }

    /// The realm of this fleet, once it is there and as long as it is.
    pub(crate) fn realm(&self) -> Option<Arc<realm::Inner>> {
        self.realm.get()?.upgrade()
    }

    /// There is one realm to a fleet: the first.
    pub(crate) fn join(&self, realm: &Arc<realm::Inner>) {
        if self.realm.set(Arc::downgrade(realm)).is_err() {
            tracing::error!("a fleet has two realms");
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the fleet was told to recover, so that shards which come later are recovered too.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    pub(crate) fn serve(&self) {
        self.serving.store(true, Ordering::Release);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// A place for an actor that has to wake, if need be taken from one that has nothing to do.
    pub(crate) fn place_awake(&self) -> Option<Place> {
        for _ in 0..ROOM_TRIES {
            if let Some(place) = self.awake.take() {
                return Some(place);
            }
            let idle = self.idle.lock().pop_front()?;
            idle.shard.lull_idle(&idle.slot, idle.actor, None);
        }
        None
    }

    /// Notes an actor that became idle.
    pub(crate) fn queue_idle(&self, idle: Idle) {
        self.idle.lock().push_back(idle);
    }

    /// Puts to sleep what has been idle for long enough.
    pub(crate) fn lull_due(&self, now: Tick) {
        loop {
            let idle = {
                let mut queue = self.idle.lock();
                match queue.front() {
                    Some(first) if first.due <= now => queue.pop_front(),
                    Some(_) | None => None,
                }
            };
            let Some(idle) = idle else { return };
            idle.shard.lull_idle(&idle.slot, idle.actor, Some(now));
        }
    }

    /// Lets go of everything that keeps shards alive.
    pub(crate) fn forget_idle(&self) {
        self.idle.lock().clear();
    }
}
