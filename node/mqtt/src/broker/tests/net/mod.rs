//! Several brokers in one process. What they say to each other goes through bytes, over links that keep the order, and
//! that break, wait and heal when a test says so. One ledger stands for the replicated log: a node may write to a shard as
//! long as it owns it.

mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use umbel_actors::ports::{BoxFuture, Clock};
use umbel_core::{
    ids::{ClientId, NodeId, ShardId, Term},
    message::{Message, Qos},
    policy::{Context as PolicyContext, Policy},
};
use umbel_storage::{
    Boot, Ledger, Nodes, Owner, Pairs, Peer, PeerError, Reach, ReadError, Receipt, Refusal, Table,
    Write, codec,
    memory::{MemoryLedger, MemoryNodes},
};

pub(super) use self::links::Links;
use self::links::{OnLook, Plug};
use super::world::{Client, Hello, Port, TestClock, TestFleet, connect_to};
use crate::{
    authenticate::Identity,
    broker::{
        Broker, Config,
        peers::{Ask, Peers, Reply, Tell},
    },
    packet::ConnAck,
};

/// A node's view of the one ledger: it owns what the links say.
struct View {
    me: NodeId,
    shared: MemoryLedger,
    links: Arc<Links>,
}

impl View {
    fn happens(&self, when: &Mutex<Option<OnLook>>, shard: ShardId) {
        let is_it = |(node, looked_at, _): &mut OnLook| (*node, *looked_at) == (self.me, shard);
        let happens = when.lock().take_if(is_it);
        if let Some((_, _, happen)) = happens {
            happen();
        }
    }
}

impl Ledger for View {
    fn shards(&self) -> u16 {
        self.shared.shards()
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        self.happens(&self.links.on_look, shard);
        let inner = self.links.inner.lock();
        let owner = inner.owners.get(&shard)?;
        (owner.node == self.me).then_some(owner.term)
    }

    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        let mut inner = self.links.inner.lock();
        let Some(stalled) = inner.stalled.get_mut(&(shard, term)) else {
            drop(inner);
            return self.shared.propose(shard, term, writes);
        };
        let (answer, receipt) = Receipt::pending();
        stalled.push((writes, answer));
        receipt
    }

    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.shared.get(shard, table, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        self.happens(&self.links.on_read, shard);
        while self.links.inner.lock().slow.contains(&(shard, table)) {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.shared.scan(shard, table, prefix, after, limit)
    }
}

/// One node.
pub(super) struct Site {
    pub(super) id: NodeId,
    pub(super) broker: Arc<Broker>,
    pub(super) fleet: Arc<TestFleet>,
    pub(super) nodes: Arc<MemoryNodes>,
}

/// See the module.
pub(super) struct Net {
    pub(super) ledger: MemoryLedger,
    pub(super) clock: Arc<TestClock>,
    pub(super) sites: Vec<Site>,
    pub(super) links: Arc<Links>,
    records: Arc<Mutex<BTreeMap<ClientId, super::world::Record>>>,
    config: Config,
}

pub(super) const SHARDS: u16 = 8;

impl Net {
    /// So many nodes, with ids from 1, each connected to each; the shards are owned in turn.
    pub(super) async fn new(nodes: u64) -> Self {
        Self::with(nodes, |_| {}).await
    }

    pub(super) async fn with(nodes: u64, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let ledger = MemoryLedger::new(SHARDS);
        let links = Arc::<Links>::default();
        for shard in (0..SHARDS).map(ShardId) {
            let node = NodeId(u64::from(shard.0) % nodes + 1);
            let owner = Owner {
                node,
                term: Term(1),
            };
            links.inner.lock().owners.insert(shard, owner);
        }
        let mut net = Self {
            ledger,
            clock: Arc::default(),
            sites: Vec::new(),
            links,
            records: Arc::default(),
            config,
        };
        for id in (1..=nodes).map(NodeId) {
            let site = net.site(id, Boot(1), nodes);
            net.sites.push(site);
        }
        for site in &net.sites {
            site.broker.start();
        }
        net.converged().await;
        net
    }

    fn site(&self, id: NodeId, boot: Boot, nodes: u64) -> Site {
        let view = Arc::new(MemoryNodes::new(id, boot));
        for other in (1..=nodes).map(NodeId).filter(|other| *other != id) {
            let peer = Peer {
                node: other,
                boot: Some(Boot(1)),
                reach: Reach::Connected,
            };
            view.set_peer(peer);
        }
        let owners = self.links.inner.lock().owners.clone();
        for (shard, owner) in &owners {
            view.set_owner(*shard, Some(*owner));
        }
        let ledger = View {
            me: id,
            shared: self.ledger.clone(),
            links: Arc::clone(&self.links),
        };
        let plug = Plug {
            me: id,
            links: Arc::clone(&self.links),
        };
        let broker = Broker::new(
            self.config.clone(),
            Arc::new(ledger),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::clone(&view) as Arc<dyn Nodes>,
            Arc::new(plug),
        );
        let fleet = Arc::new(TestFleet::in_net(
            &self.records,
            (id, Arc::clone(&self.links)),
            &broker,
            &self.ledger,
        ));
        broker.attach(Arc::new(Port(Arc::clone(&fleet))));
        let weak = Arc::downgrade(&broker);
        self.links.inner.lock().brokers.insert(id, weak);
        Site {
            id,
            broker,
            fleet,
            nodes: view,
        }
    }

    /// A node, by its number from 1.
    pub(super) fn site_of(&self, id: u64) -> &Site {
        let found = self.sites.iter().find(|site| site.id == NodeId(id));
        found.expect("a node of the net")
    }

    pub(super) fn broker(&self, id: u64) -> &Arc<Broker> {
        &self.site_of(id).broker
    }

    /// Connects a client to a node.
    pub(super) async fn connect(&self, node: u64, hello: Hello) -> Client {
        self.try_connect(node, hello).await.expect("accepted")
    }

    pub(super) async fn try_connect(&self, node: u64, hello: Hello) -> Result<Client, ConnAck> {
        let client = ClientId::parse(&hello.name).expect("valid client id");
        let identity = Identity {
            kind: umbel_core::device::Kind::App,
            device: None,
            principal: "tester".to_owned(),
            policy: Policy::open().compile(&PolicyContext::new(client.clone())),
            client,
        };
        connect_to(self.broker(node), hello, identity).await
    }

    /// The links between two nodes break; each sees the other like this.
    pub(super) fn break_link(&self, one: u64, other: u64, reach: Reach) {
        let (one, other) = (NodeId(one), NodeId(other));
        {
            let mut inner = self.links.inner.lock();
            for way in [(one, other), (other, one)] {
                inner.broken.insert(way);
                *inner.breaks.entry(way).or_default() += 1;
            }
        }
        self.see(one, other, reach);
        self.see(other, one, reach);
    }

    /// The links between two nodes are there again.
    pub(super) fn heal(&self, one: u64, other: u64) {
        let (one, other) = (NodeId(one), NodeId(other));
        {
            let mut inner = self.links.inner.lock();
            inner.broken.remove(&(one, other));
            inner.broken.remove(&(other, one));
        }
        self.see(one, other, Reach::Connected);
        self.see(other, one, Reach::Connected);
    }

    /// One node sees another like this.
    pub(super) fn see(&self, from: NodeId, of: NodeId, reach: Reach) {
        let peer = Peer {
            node: of,
            boot: Some(Boot(1)),
            reach,
        };
        self.site_of(from.0).nodes.set_peer(peer);
    }

    /// What one node sends another stays on the way.
    pub(super) fn hold(&self, from: u64, to: u64) {
        self.links
            .inner
            .lock()
            .held
            .insert((NodeId(from), NodeId(to)));
    }

    /// It arrives.
    pub(super) fn release(&self, from: u64, to: u64) {
        self.links
            .inner
            .lock()
            .held
            .remove(&(NodeId(from), NodeId(to)));
        self.links.changed.notify_waiters();
    }

    /// Who owns a shard.
    pub(super) fn owner(&self, shard: ShardId) -> Owner {
        self.links.inner.lock().owners[&shard]
    }

    /// A shard has another owner from now on, as all nodes hear at once.
    pub(super) fn move_shard(&self, shard: ShardId, to: u64) -> Owner {
        self.move_shard_heard_by(shard, to, |_| true)
    }

    fn move_shard_heard_by(&self, shard: ShardId, to: u64, hears: impl Fn(u64) -> bool) -> Owner {
        let owner = self.links.move_shard(&self.ledger, shard, NodeId(to));
        for site in self.sites.iter().filter(|site| hears(site.id.0)) {
            site.nodes.set_owner(shard, Some(owner));
        }
        owner
    }

    /// As [`Self::move_shard`], and one node does not hear of it.
    pub(super) fn move_shard_unheard(&self, shard: ShardId, to: u64, deaf: u64) {
        self.move_shard_heard_by(shard, to, |node| node != deaf);
    }

    /// What is proposed to a shard in one term waits until it is to [go on](Self::go_on), whatever becomes of others.
    pub(super) fn stall(&self, shard: ShardId, term: Term) {
        let mut inner = self.links.inner.lock();
        inner.stalled.insert((shard, term), Vec::new());
    }

    /// How much waits in a term that is stalled.
    pub(super) fn stalled(&self, shard: ShardId, term: Term) -> usize {
        let inner = self.links.inner.lock();
        inner.stalled.get(&(shard, term)).map_or(0, Vec::len)
    }

    /// What waited is proposed.
    pub(super) async fn go_on(&self, shard: ShardId, term: Term) {
        let waiting = self.links.inner.lock().stalled.remove(&(shard, term));
        for (writes, answer) in waiting.into_iter().flatten() {
            let outcome = self.ledger.propose(shard, term, writes).await;
            assert!(answer.send(outcome).is_ok(), "the proposer waits");
        }
    }

    /// Whoever reads a table of a shard, on a thread where that may take long, waits; or goes on.
    pub(super) fn read_slowly(&self, shard: ShardId, table: Table, is_slow: bool) {
        let mut inner = self.links.inner.lock();
        if is_slow {
            inner.slow.insert((shard, table));
        } else {
            inner.slow.remove(&(shard, table));
        }
    }

    /// This happens when a node next looks whether it owns a shard: in the middle of something.
    pub(super) fn on_look(
        &self,
        node: u64,
        shard: ShardId,
        happen: impl FnOnce() + Send + 'static,
    ) {
        *self.links.on_look.lock() = Some((NodeId(node), shard, Box::new(happen)));
    }

    /// This happens when a node next reads rows of a shard.
    pub(super) fn on_read(
        &self,
        node: u64,
        shard: ShardId,
        happen: impl FnOnce() + Send + 'static,
    ) {
        *self.links.on_read.lock() = Some((NodeId(node), shard, Box::new(happen)));
    }

    /// How many asks and notices were sent so far.
    pub(super) fn parcels(&self) -> u64 {
        self.links.inner.lock().parcels
    }

    /// Every node knows what the others want.
    pub(super) async fn converged(&self) {
        eventually("every shard has its homes", || self.are_homes_ready()).await;
        eventually("every node has heard of every filter", || {
            self.sites.iter().all(|site| site.broker.is_all_told())
        })
        .await;
    }

    /// Whether each shard's owner, if it lives, has taken it up.
    fn are_homes_ready(&self) -> bool {
        let owners = self.links.inner.lock().owners.clone();
        owners.into_iter().all(|(shard, owner)| {
            self.sites
                .iter()
                .find(|site| site.id == owner.node)
                .is_none_or(|site| site.broker.home_ready(shard))
        })
    }

    /// A node dies: nobody hears from it, and another takes its shards over. Its clients have to be forgotten, not closed.
    pub(super) fn kill(&mut self, node: u64, heir: u64) {
        let others: Vec<_> = self.sites.iter().map(|site| site.id.0).collect();
        for other in others.into_iter().filter(|other| *other != node) {
            self.break_link(node, other, Reach::Gone);
        }
        self.sites.retain(|site| site.id != NodeId(node));
        for shard in (0..SHARDS).map(ShardId) {
            if self.owner(shard).node == NodeId(node) {
                self.move_shard(shard, heir);
            }
        }
    }

    /// A client id of which this node owns the shard.
    pub(super) fn name_at(&self, node: u64, prefix: &str) -> String {
        let is_there = |name: &String| self.owner(ShardId::of(name, SHARDS)).node == NodeId(node);
        let mut names = (0..1_000).map(|number| format!("{prefix}{number}"));
        names.find(is_there).expect("one of many")
    }
}

/// What must not happen has its time to happen. This is time and not a state, because nothing tells that nothing happened.
pub(super) async fn a_while() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Waits until a condition holds.
pub(super) async fn eventually(why: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {why}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until a client hears something of this kind, and gives everything heard until then.
pub(super) async fn payloads_of(client: &mut Client, count: usize) -> Vec<String> {
    let mut heard = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while heard.len() < count {
        heard.extend(client.payloads());
        assert!(
            tokio::time::Instant::now() < deadline,
            "only {heard:?} of {count}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    heard
}

/// A message of a client.
pub(super) fn message(topic: &str, payload: &str, qos: Qos) -> Message {
    Message {
        publisher: ClientId::parse("publisher").ok(),
        ..Message::from_cluster(
            topic.to_owned(),
            payload.to_owned().into(),
            qos,
            umbel_core::time::Timestamp::from_millis(1_000_000),
        )
    }
}
