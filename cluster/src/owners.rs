//! Who owns what, as this node has heard: from its own replicas, and from what owners say about themselves.
//!
//! An owner tells every peer when it becomes one or ceases to be, tells all it owns when a link comes up, and again
//! every two seconds, so that nothing lost matters for long. The highest term wins, and a node that is gone owns nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{Boot, Ledger, Nodes, Owner, Peer, Reach};

use crate::{
    control::{Control, Kind},
    link::{BoxFuture, Handler, Service, Transport},
    shards::Shards,
    wire,
};

/// How often it is looked what this node owns. A change is told as soon as it is seen.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often all that this node owns is told again.
const REPEAT_EVERY: Duration = Duration::from_secs(2);

/// What an owner says about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Notice {
    /// These, and no others.
    All(Vec<(ShardId, Term)>),
    /// These came, and those went.
    Changed {
        gained: Vec<(ShardId, Term)>,
        lost: Vec<(ShardId, Term)>,
    },
}

#[derive(Default)]
struct Known {
    /// What others said last.
    told: BTreeMap<ShardId, Owner>,
    /// What this node owned when it last looked.
    own: BTreeMap<ShardId, Term>,
}

/// The other nodes, and who owns which shard.
pub struct Owners {
    shards: Arc<Shards>,
    transport: Arc<dyn Transport>,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Owners {
    /// Begins to listen and to tell.
    pub fn start(
        shards: Arc<Shards>,
        transport: Arc<dyn Transport>,
        control: &Control,
    ) -> Arc<Self> {
        let owners = Arc::new(Self {
            shards,
            transport,
            known: Mutex::default(),
            changes: watch::Sender::new(0),
            task: Mutex::default(),
        });
        let ear = Ear(Arc::downgrade(&owners));
        control.register(Kind::Ownership, Arc::new(ear));
        let peers = owners.transport.peers();
        let task = tokio::spawn(look(Arc::downgrade(&owners), peers));
        *owners.task.lock() = Some(task);
        owners
    }

    /// Looks what this node owns now, and tells whom it concerns.
    fn tell_changes(&self) {
        let now = self.owned();
        let mut known = self.known.lock();
        if known.own == now {
            return;
        }
        let differs = |from: &BTreeMap<ShardId, Term>, to: &BTreeMap<ShardId, Term>| {
            from.iter()
                .filter(|(shard, term)| to.get(shard) != Some(term))
                .map(|(shard, term)| (*shard, *term))
                .collect::<Vec<_>>()
        };
        let notice = Notice::Changed {
            gained: differs(&now, &known.own),
            lost: differs(&known.own, &now),
        };
        known.own = now;
        drop(known);
        for peer in self.connected() {
            self.tell(peer, &notice);
        }
        self.changed();
    }

    fn tell_all(&self, peers: impl IntoIterator<Item = NodeId>) {
        let own = self.known.lock().own.clone();
        let notice = Notice::All(own.into_iter().collect());
        for peer in peers {
            self.tell(peer, &notice);
        }
    }

    fn tell(&self, peer: NodeId, notice: &Notice) {
        let body = Control::frame(Kind::Ownership, &wire::encode(notice));
        // What is lost is told again within two seconds.
        if let Err(error) = self.transport.notify(peer, Service::Control, body) {
            tracing::trace!(node = peer.0, %error, "an ownership notice is lost");
        }
    }

    fn owned(&self) -> BTreeMap<ShardId, Term> {
        let hosted = self.shards.hosted();
        hosted
            .into_iter()
            .filter_map(|shard| Some((shard, self.shards.term(shard)?)))
            .collect()
    }

    fn connected(&self) -> BTreeSet<NodeId> {
        let peers = self.transport.peers();
        let peers = peers.borrow();
        peers
            .iter()
            .filter(|peer| peer.reach == Reach::Connected)
            .map(|peer| peer.node)
            .collect()
    }

    fn heard(&self, from: NodeId, notice: Notice) {
        let mut known = self.known.lock();
        let changed = match notice {
            Notice::All(all) => {
                let named: BTreeSet<ShardId> = all.iter().map(|(shard, _)| *shard).collect();
                let before = known.told.len();
                known
                    .told
                    .retain(|shard, owner| owner.node != from || named.contains(shard));
                let fewer = known.told.len() < before;
                known.gained(from, all) || fewer
            },
            Notice::Changed { gained, lost } => {
                let mut changed = false;
                for (shard, term) in lost {
                    changed |= known.lost(from, shard, term);
                }
                known.gained(from, gained) || changed
            },
        };
        drop(known);
        if changed {
            self.changed();
        }
    }

    /// Those who are gone own nothing.
    fn forget(&self, peers: &[Peer]) {
        let gone = |node: NodeId| {
            peers
                .iter()
                .find(|peer| peer.node == node)
                .is_none_or(|peer| peer.reach == Reach::Gone)
        };
        let mut known = self.known.lock();
        known.told.retain(|_, owner| !gone(owner.node));
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Known {
    fn gained(&mut self, from: NodeId, shards: Vec<(ShardId, Term)>) -> bool {
        let mut changed = false;
        for (shard, term) in shards {
            let older = self.told.get(&shard).is_some_and(|now| term <= now.term);
            if !older {
                self.told.insert(shard, Owner { node: from, term });
                changed = true;
            }
        }
        changed
    }

    fn lost(&mut self, from: NodeId, shard: ShardId, term: Term) -> bool {
        let known = self.told.get(&shard);
        if known.is_some_and(|known| known.node == from && known.term <= term) {
            self.told.remove(&shard);
            return true;
        }
        false
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn look(owners: Weak<Owners>, mut peers: watch::Receiver<Vec<Peer>>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut repeat_at = Instant::now();
    let mut linked = BTreeMap::new();
    loop {
        let changed = tokio::select! {
            _ = ticks.tick() => false,
            changed = peers.changed() => changed.is_ok(),
        };
        let Some(owners) = owners.upgrade() else {
            return;
        };
        owners.tell_changes();
        if changed {
            let now = peers.borrow_and_update().clone();
            owners.forget(&now);
            let links: BTreeMap<NodeId, Option<Boot>> = now
                .iter()
                .filter(|peer| peer.reach == Reach::Connected)
                .map(|peer| (peer.node, peer.boot))
                .collect();
            let fresh = links
                .iter()
                .filter(|(node, boot)| linked.get(*node) != Some(*boot));
            owners.tell_all(fresh.map(|(node, _)| *node).collect::<Vec<_>>());
            linked = links;
            owners.changed();
        }
        if Instant::now() >= repeat_at {
            repeat_at = Instant::now() + REPEAT_EVERY;
            owners.tell_all(owners.connected());
        }
    }
}

/// Hears what owners say. Holds nothing alive.
struct Ear(Weak<Owners>);

impl Handler for Ear {
    fn request(&self, _from: NodeId, _body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        Box::pin(async { Err("owners are told of, not asked about".to_owned()) })
    }

    fn notice(&self, from: NodeId, body: Bytes) {
        let Some(owners) = self.0.upgrade() else {
            return;
        };
        match wire::decode(&body) {
            Ok(notice) => owners.heard(from, notice),
            Err(error) => {
                tracing::warn!(node = from.0, %error, "an ownership notice is not understood");
            },
        }
    }
}

impl Nodes for Owners {
    fn me(&self) -> NodeId {
        self.transport.me()
    }

    fn boot(&self) -> Boot {
        self.shards.boot()
    }

    fn owner(&self, shard: ShardId) -> Option<Owner> {
        let local = self.shards.owner(shard);
        // What this node says of itself is not hearsay, but a later term is later.
        let told = self.known.lock().told.get(&shard).copied();
        later(local, told)
    }

    fn peers(&self) -> Vec<Peer> {
        self.transport.peers().borrow().clone()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

fn later(one: Option<Owner>, other: Option<Owner>) -> Option<Owner> {
    match (one, other) {
        (Some(one), Some(other)) if other.term > one.term => Some(other),
        (one, other) => one.or(other),
    }
}
