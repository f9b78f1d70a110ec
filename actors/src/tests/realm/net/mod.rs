//! Several fleets in one process: one store that all of them see, owners that a test moves, links that it cuts.

mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use umbel_core::{
    device::{Connect, DisconnectReason, Presence},
    ids::{ClientId, NodeId, SessionEpoch, ShardId, Term},
    message::Message,
};
use umbel_storage::{
    PeerError, codec,
    ledger::{Ledger, Receipt, Refusal},
    memory::{MemoryLedger, MemoryNodes},
    nodes::{Boot, Owner, Peer, Reach},
    table::{Pairs, ReadError, Table, Write},
};

use self::ports::{Broker, View, Wire};
use super::super::{ManualClock, client, eventually, quick};
use crate::{
    Config, DeviceView, Fleet, Realm, Refused, Rounds, Running, Timing,
    ports::{BoxFuture, Clock, EvictReason, Outbox, Peers},
    remote::{Answer, Verb},
};

pub(super) const SHARDS: u16 = 4;

/// Which question's answer is lost, and what happens instead.
type Loss = (&'static str, Box<dyn FnOnce() + Send>);

/// What becomes of a question on its way.
#[derive(Clone)]
pub(super) enum Fate {
    Passes,
    /// It never arrives.
    Unsent,
    /// It is worked on, and the answer is lost.
    Unanswered,
    /// It is worked on, and the answer waits for this.
    Waits(watch::Receiver<bool>),
}

type Fates = Box<dyn FnMut(&'static str) -> Fate + Send>;

/// What all nodes share.
pub(super) struct Net {
    pub(super) ledger: MemoryLedger,
    pub(super) clock: Arc<ManualClock>,
    owners: Mutex<BTreeMap<ShardId, Owner>>,
    /// Never repeats, also over shards.
    terms: AtomicU64,
    sites: Mutex<BTreeMap<NodeId, Arc<Site>>>,
    /// Directions in which nothing passes.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Runs in place of the answer to the next question of this kind.
    lose: Mutex<Option<Loss>>,
    fates: Mutex<Option<Fates>>,
    /// How many more commits are taken before one is refused.
    taken: Mutex<Option<u32>>,
    pub(super) asked: Mutex<Vec<(NodeId, NodeId, &'static str)>>,
    pub(super) published: Mutex<Vec<(NodeId, String, Value)>>,
    pub(super) config: Config,
}

/// One node, in one life.
pub(super) struct Site {
    pub(super) me: NodeId,
    pub(super) boot: u64,
    pub(super) nodes: Arc<MemoryNodes>,
    pub(super) realm: Realm,
    alive: watch::Sender<bool>,
    running: Mutex<Option<(Rounds, Running)>>,
    /// Connections, as a broker would hold them.
    pub(super) open: Mutex<BTreeMap<ClientId, SessionEpoch>>,
    pub(super) evicted: Mutex<Vec<(ClientId, SessionEpoch, EvictReason)>>,
}

pub(super) const TIMING: Timing = Timing {
    deadline: Duration::from_secs(2),
    nobody_within: Duration::from_millis(300),
    touches_every: Duration::from_millis(20),
    compare_all_every: Duration::from_secs(1),
    retry_every: Duration::from_millis(20),
    sure_after: Duration::from_millis(200),
};

impl Net {
    /// Nodes 1 to `count`; every shard belongs to the last.
    pub(super) async fn new(count: u64) -> Arc<Self> {
        Self::with(count, quick()).await
    }

    pub(super) async fn with(count: u64, config: Config) -> Arc<Self> {
        let net = Arc::new(Self {
            ledger: MemoryLedger::new(SHARDS),
            clock: Arc::default(),
            owners: Mutex::default(),
            terms: AtomicU64::new(1),
            sites: Mutex::default(),
            cut: Mutex::default(),
            lose: Mutex::default(),
            fates: Mutex::default(),
            taken: Mutex::default(),
            asked: Mutex::default(),
            published: Mutex::default(),
            config,
        });
        for number in 0..SHARDS {
            net.owners.lock().insert(
                ShardId(number),
                Owner {
                    node: NodeId(count),
                    term: Term(1),
                },
            );
        }
        for node in 1..=count {
            net.start(node, 1).await;
        }
        net
    }

    /// A node begins a life.
    pub(super) async fn start(self: &Arc<Self>, node: u64, boot: u64) {
        let me = NodeId(node);
        let nodes = Arc::new(MemoryNodes::new(me, Boot(boot)));
        for (shard, owner) in self.owners.lock().iter() {
            nodes.set_owner(*shard, Some(*owner));
        }
        let alive = watch::Sender::new(true);
        let ledger = View {
            me,
            net: Arc::clone(self),
            alive: alive.subscribe(),
        };
        let outbox = Broker {
            me,
            net: Arc::clone(self),
            alive: alive.subscribe(),
        };
        let (fleet, running) = Fleet::start_among(
            self.config.clone(),
            Arc::new(ledger),
            Arc::clone(&nodes) as Arc<_>,
            Arc::new(outbox),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        )
        .await
        .expect("the fleet starts");
        let wire = Wire {
            me,
            net: Arc::clone(self),
        };
        let (realm, rounds) = Realm::start(fleet, Arc::new(wire), TIMING);
        let site = Arc::new(Site {
            me,
            boot,
            nodes,
            realm,
            alive,
            running: Mutex::new(Some((rounds, running))),
            open: Mutex::default(),
            evicted: Mutex::default(),
        });
        let others: Vec<_> = self.sites.lock().values().map(Arc::clone).collect();
        for other in others {
            site.nodes
                .set_peer(peer(other.me, other.boot, Reach::Connected));
            other.nodes.set_peer(peer(me, boot, Reach::Connected));
        }
        self.sites.lock().insert(me, Arc::clone(&site));
        site.realm.local().recover().await;
    }

    pub(super) fn site(&self, node: u64) -> Arc<Site> {
        Arc::clone(self.sites.lock().get(&NodeId(node)).expect("alive"))
    }

    pub(super) fn realm(&self, node: u64) -> Realm {
        self.site(node).realm.clone()
    }

    /// A node dies. The others see its link break at once; [`Self::gone`] confirms it.
    pub(super) fn kill(&self, node: u64) -> Arc<Site> {
        let site = self.sites.lock().remove(&NodeId(node)).expect("alive");
        site.alive.send_replace(false);
        let running = site.running.lock().take();
        if let Some((rounds, running)) = running {
            tokio::spawn(async move {
                rounds.shutdown().await;
                running.shutdown(Duration::ZERO).await;
            });
        }
        for other in self.sites.lock().values() {
            let boot = site.boot;
            other
                .nodes
                .set_peer(peer(site.me, boot, Reach::Unreachable));
        }
        site
    }

    /// Everybody takes a node for gone.
    pub(super) fn gone(&self, site: &Site) {
        for other in self.sites.lock().values() {
            other.nodes.set_peer(peer(site.me, site.boot, Reach::Gone));
        }
    }

    /// One node sees another in this state from now on.
    pub(super) fn sees(&self, node: u64, other: u64, reach: Reach) {
        let boot = self
            .sites
            .lock()
            .get(&NodeId(other))
            .map_or(1, |site| site.boot);
        self.site(node)
            .nodes
            .set_peer(peer(NodeId(other), boot, reach));
    }

    /// From now on nothing passes in this direction, or everything again.
    pub(super) fn cut(&self, from: u64, to: u64, is_cut: bool) {
        let way = (NodeId(from), NodeId(to));
        if is_cut {
            self.cut.lock().insert(way);
        } else {
            self.cut.lock().remove(&way);
        }
    }

    /// The answer to the next question of this kind is lost, and this happens instead.
    pub(super) fn lose_next(&self, label: &'static str, then: impl FnOnce() + Send + 'static) {
        *self.lose.lock() = Some((label, Box::new(then)));
    }

    /// From now on this says what becomes of each question, by its kind.
    pub(super) fn fates(&self, fates: impl FnMut(&'static str) -> Fate + Send + 'static) {
        *self.fates.lock() = Some(Box::new(fates));
    }

    pub(super) fn all_pass(&self) {
        *self.fates.lock() = None;
    }

    /// So many commits are taken, then one is refused.
    pub(super) fn refuse_after(&self, commits: u32) {
        *self.taken.lock() = Some(commits);
    }

    fn is_refused(&self) -> bool {
        let mut taken = self.taken.lock();
        let is_refused = *taken == Some(0);
        *taken = taken.and_then(|commits| commits.checked_sub(1));
        is_refused
    }

    fn fate(&self, label: &'static str) -> Fate {
        let mut fates = self.fates.lock();
        fates.as_mut().map_or(Fate::Passes, |fates| fates(label))
    }

    /// Gives a shard to another node, or to nobody; everybody hears of it.
    pub(super) fn give(&self, shard: ShardId, node: Option<u64>) {
        let owner = self.give_quietly(shard, node);
        for site in self.sites.lock().values() {
            site.nodes.set_owner(shard, owner);
        }
    }

    /// Likewise, and nobody hears of it.
    pub(super) fn give_quietly(&self, shard: ShardId, node: Option<u64>) -> Option<Owner> {
        let term = Term(self.terms.fetch_add(2, Ordering::SeqCst) + 2);
        let owner = node.map(|node| Owner {
            node: NodeId(node),
            term,
        });
        let mut owners = self.owners.lock();
        match owner {
            Some(owner) => owners.insert(shard, owner),
            None => owners.remove(&shard),
        };
        self.ledger.set_term(shard, Some(term));
        owner
    }

    pub(super) fn give_all(&self, node: Option<u64>) {
        for number in 0..SHARDS {
            self.give(ShardId(number), node);
        }
    }

    pub(super) fn owner(&self, shard: ShardId) -> Option<u64> {
        self.owners.lock().get(&shard).map(|owner| owner.node.0)
    }

    /// Connects a client through a node, as its broker would.
    pub(super) async fn connect(
        &self,
        node: u64,
        id: &str,
        hello: Connect,
    ) -> Result<SessionEpoch, Refused> {
        let site = self.site(node);
        let hello = Connect {
            gateway: site.me,
            gateway_boot: site.boot,
            ..hello
        };
        let opened = site.realm.connect(&client(id), hello).await?;
        opened.pulse.touch(self.clock.tick());
        let mut open = site.open.lock();
        let known = open.entry(client(id)).or_insert(opened.epoch);
        *known = (*known).max(opened.epoch);
        Ok(opened.epoch)
    }

    /// The end of a connection of a node.
    pub(super) async fn leave(
        &self,
        node: u64,
        id: &str,
        epoch: SessionEpoch,
        why: DisconnectReason,
    ) -> Result<(), Refused> {
        let site = self.site(node);
        {
            let mut open = site.open.lock();
            if open.get(&client(id)) == Some(&epoch) {
                open.remove(&client(id));
            }
        }
        let id = client(id);
        site.realm.disconnect(&id, epoch, why, None, false).await
    }

    /// What a node's owner says of a client.
    pub(super) async fn view(&self, node: u64, id: &str) -> Option<DeviceView> {
        self.realm(node)
            .client(&client(id))
            .await
            .expect("answered")
    }

    pub(super) async fn presence(&self, node: u64, id: &str) -> Presence {
        self.view(node, id).await.expect("known").record.presence
    }

    /// Waits until a client's presence is this, as asked at a node.
    pub(super) async fn becomes(&self, node: u64, id: &str, wanted: Presence) {
        let until = tokio::time::Instant::now() + super::super::PATIENCE;
        loop {
            let view = self.realm(node).client(&client(id)).await;
            let is = view.ok().flatten().map(|view| view.record.presence);
            if is == Some(wanted) {
                return;
            }
            assert!(
                tokio::time::Instant::now() < until,
                "{id} never became {wanted:?}, it is {is:?}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How often a topic was published to.
    pub(super) fn count(&self, topic: &str) -> usize {
        let published = self.published.lock();
        published.iter().filter(|said| said.1 == topic).count()
    }

    pub(super) fn asked(&self, label: &str) -> usize {
        let asked = self.asked.lock();
        asked.iter().filter(|asked| asked.2 == label).count()
    }

    /// Whether an owner waits for a gateway to say what it holds.
    pub(super) fn is_calling(&self) -> bool {
        let sites = self.sites.lock().clone();
        sites.values().any(|site| {
            let shards = &site.realm.local().shards;
            shards.iter().any(|shard| shard.rolls.is_any_open())
        })
    }

    /// Waits until every owner serves what it owns.
    pub(super) async fn settled(&self) {
        eventually("every shard is served by its owner", || {
            let owners = self.owners.lock().clone();
            let sites = self.sites.lock().clone();
            owners.iter().all(|(shard, owner)| {
                let site = sites.get(&owner.node);
                site.is_some_and(|site| {
                    let shard = site.realm.local().numbered(*shard).expect("a shard");
                    shard.term().is_ok()
                })
            })
        })
        .await;
    }
}

fn peer(node: NodeId, boot: u64, reach: Reach) -> Peer {
    Peer {
        node,
        boot: Some(Boot(boot)),
        reach,
    }
}

pub(super) fn shard(id: &str) -> ShardId {
    ShardId::of(id, SHARDS)
}
