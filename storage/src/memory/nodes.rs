//! A cluster in memory: who is there and who owns what is what a test says.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId};

use crate::{
    ledger::Ledger,
    nodes::{Boot, Nodes, Owner, Peer},
};

/// A node without peers: it owns what its ledger says it owns.
pub struct OneNode {
    me: NodeId,
    boot: Boot,
    ledger: Arc<dyn Ledger>,
    changes: watch::Sender<u64>,
}

impl OneNode {
    /// The only node, with its ledger.
    pub fn new(me: NodeId, ledger: Arc<dyn Ledger>) -> Self {
        Self::with_boot(me, Boot(1), ledger)
    }

    /// The only node, in this life.
    pub fn with_boot(me: NodeId, boot: Boot, ledger: Arc<dyn Ledger>) -> Self {
        Self {
            me,
            boot,
            ledger,
            changes: watch::Sender::new(0),
        }
    }
}

impl Nodes for OneNode {
    fn me(&self) -> NodeId {
        self.me
    }

    fn boot(&self) -> Boot {
        self.boot
    }

    fn owner(&self, shard: ShardId) -> Option<Owner> {
        let term = self.ledger.term(shard)?;
        Some(Owner {
            node: self.me,
            term,
        })
    }

    fn peers(&self) -> Vec<Peer> {
        Vec::new()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// One node's view of a cluster, moved by hand.
pub struct MemoryNodes {
    me: NodeId,
    boot: Boot,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    owners: BTreeMap<ShardId, Owner>,
    peers: BTreeMap<NodeId, Peer>,
}

impl MemoryNodes {
    /// A node that knows of nobody and of no owner.
    pub fn new(me: NodeId, boot: Boot) -> Self {
        Self {
            me,
            boot,
            known: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// From now on, this one (or nobody) owns the shard.
    pub fn set_owner(&self, shard: ShardId, owner: Option<Owner>) {
        let mut known = self.known.lock();
        match owner {
            Some(owner) => known.owners.insert(shard, owner),
            None => known.owners.remove(&shard),
        };
        drop(known);
        self.changed();
    }

    /// From now on, a peer is like this.
    pub fn set_peer(&self, peer: Peer) {
        self.known.lock().peers.insert(peer.node, peer);
        self.changed();
    }

    /// From now on, a peer is not heard of.
    pub fn forget_peer(&self, peer: NodeId) {
        self.known.lock().peers.remove(&peer);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Nodes for MemoryNodes {
    fn me(&self) -> NodeId {
        self.me
    }

    fn boot(&self) -> Boot {
        self.boot
    }

    fn owner(&self, shard: ShardId) -> Option<Owner> {
        self.known.lock().owners.get(&shard).copied()
    }

    fn peers(&self) -> Vec<Peer> {
        self.known.lock().peers.values().copied().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
