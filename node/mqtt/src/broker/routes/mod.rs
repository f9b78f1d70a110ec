//! Who gets a message, over all nodes.
//!
//! Each node tells every other which filters its sessions hold ([`local`], [`speak`]), and keeps what it is told
//! ([`table`]). A publish goes once to each node that may have somebody for it ([`forward`]); what a shard's owner could
//! not take is tried again where the shard goes ([`lanes`]).
//!
//! # Order
//! Two messages of one caller reach each receiver in the order of the calls: they take their places in the local queues,
//! or on the link, before the call returns. While a message for a shard is being tried again, later ones for that shard
//! wait behind it. What remains: a message that fails at an owner that is not ready may be overtaken by one that finds
//! it ready a moment later.
//!
//! # Twice
//! A message that is tried again carries its name, and the owner remembers the last ones per shard in memory. A shard
//! that changes hands between the commit and the lost answer is the one case in which a message may be queued twice.

mod forward;
mod lanes;
mod local;
mod recent;
mod retain;
mod serve;
mod settle;
mod shared;
mod speak;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::Boot;

use super::{
    Broker,
    peers::routes::{Dest, MessageId},
};

/// Most filters of other nodes that are kept. A destination that would need more gets every message.
const ENTRIES_MAX: usize = 4_000_000;

/// Shards whose durable sessions are all here, and the term they are here in.
pub(crate) type Homes = BTreeMap<ShardId, Term>;

/// See the module.
pub(crate) struct Routes {
    me: NodeId,
    boot: Boot,
    local: Mutex<local::Local>,
    /// The number of the latest change of `local`.
    version: watch::Sender<u64>,
    table: RwLock<table::Table>,
    /// Up to which change each peer has heard.
    heard: watch::Sender<BTreeMap<NodeId, u64>>,
    /// Copied by whoever needs the same answer twice.
    homes: RwLock<Arc<Homes>>,
    lanes: lanes::Lanes,
    recent: recent::Recent,
    topics: retain::Topics,
    count: AtomicU64,
    /// Everything was known once.
    is_oriented: AtomicBool,
    /// Every node that lives, and every owner, can be spoken to.
    sees_all: AtomicBool,
}

impl Routes {
    pub(super) fn new(me: NodeId, boot: Boot, shards: u16) -> Self {
        let mut local = local::Local::default();
        local.claim(Dest::Node(me), Term::default());
        Self {
            me,
            boot,
            version: watch::Sender::new(local.version()),
            local: Mutex::new(local),
            table: RwLock::new(table::Table::new(me, shards, ENTRIES_MAX)),
            heard: watch::Sender::default(),
            homes: RwLock::default(),
            lanes: lanes::Lanes::default(),
            recent: recent::Recent::default(),
            topics: retain::Topics::default(),
            count: AtomicU64::new(0),
            is_oriented: AtomicBool::new(false),
            sees_all: AtomicBool::new(false),
        }
    }

    /// A name for a message of this node.
    fn name(&self) -> MessageId {
        MessageId {
            boot: self.boot,
            count: self.count.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Changes what this node's sessions want, and lets the peers hear of it.
    fn change(&self, change: impl FnOnce(&mut local::Local)) -> u64 {
        let mut local = self.local.lock();
        change(&mut local);
        let version = local.version();
        drop(local);
        self.version.send_if_modified(|last| {
            let is_news = *last < version;
            *last = version.max(*last);
            is_news
        });
        version
    }

    /// Whether the durable sessions of a shard are here.
    fn is_home(&self, shard: ShardId) -> bool {
        self.homes.read().contains_key(&shard)
    }

    /// Whose durable sessions are here now.
    fn homes(&self) -> Arc<Homes> {
        Arc::clone(&self.homes.read())
    }
}

impl Broker {
    /// Whether the durable sessions of a shard are here, and nobody else had the shard since they were read: a node that
    /// lost it and has it again knows nothing of what was asked for in between before it has read it.
    fn is_served(&self, homes: &Homes, shard: ShardId) -> bool {
        let term = homes.get(&shard);
        term.is_some() && self.ledger.term(shard).as_ref() == term
    }
}
