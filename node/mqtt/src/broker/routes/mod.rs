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
mod shared;
mod speak;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::Boot;

use super::peers::routes::{Dest, MessageId};

/// Most filters of other nodes that are kept. A destination that would need more gets every message.
const ENTRIES_MAX: usize = 4_000_000;

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
    /// Shards whose durable sessions are all here, and the term they are here in.
    homes: RwLock<BTreeMap<ShardId, Term>>,
    lanes: lanes::Lanes,
    recent: recent::Recent,
    topics: retain::Topics,
    count: AtomicU64,
    /// Everything was known once.
    is_oriented: AtomicBool,
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
}
