//! A cluster in one process: its net, its disks, and what a test asks of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use umbel_cluster::{
    Changed, Config, Control, Owners, Shards, begin_life,
    link::{Transport, memory::MemoryNet},
};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{
    Ledger, Refusal, Table, Write,
    memory::{MemoryLog, MemoryState},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SHARD: ShardId = ShardId(0);

/// A node's disk, which outlives its process.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) state: Arc<MemoryState>,
}

/// A running process.
pub(crate) struct Node {
    pub(crate) shards: Arc<Shards>,
    pub(crate) owners: Arc<Owners>,
    _control: Arc<Control>,
}

/// The cluster.
pub(crate) struct World {
    pub(crate) net: MemoryNet,
    pub(crate) shards: u16,
    disks: BTreeMap<NodeId, Disk>,
    nodes: BTreeMap<NodeId, Node>,
    pub(crate) adjust: fn(&mut Config),
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId(id)
}

pub(crate) fn set(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

impl World {
    /// Nodes 1 to `nodes`, each of which votes in every shard; node 1 owns them all.
    pub(crate) async fn of(nodes: u64, shards: u16) -> Self {
        Self::with(nodes, shards, |_| {}).await
    }

    pub(crate) async fn with(nodes: u64, shards: u16, adjust: fn(&mut Config)) -> Self {
        Self::over(MemoryNet::new(), nodes, shards, adjust).await
    }

    pub(crate) async fn over(
        net: MemoryNet,
        nodes: u64,
        shards: u16,
        adjust: fn(&mut Config),
    ) -> Self {
        let mut world = Self {
            net,
            shards,
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            adjust,
        };
        for id in 1..=nodes {
            world.boot(id).await;
        }
        world.at(1).shards.found().await.expect("founded");
        world.at(1).shards.settled().await;
        let all: Vec<u64> = (1..=nodes).collect();
        for shard in (0..shards).map(ShardId) {
            for id in 2..=nodes {
                let hosted = world.at(id).shards.host(shard).await;
                hosted.expect("hosted");
            }
            let voters = set(&all);
            let changed = world.at(1).shards.change_members(shard, voters, set(&[]));
            let expected = if nodes > 1 {
                Changed::Done
            } else {
                Changed::Already
            };
            assert_eq!(changed.await.expect("members change"), expected);
        }
        world
    }

    /// Starts a node, on its old disk if it has one.
    pub(crate) async fn boot(&mut self, id: u64) {
        let id = node(id);
        let disk = self.disks.entry(id).or_default().clone();
        let boot = begin_life(disk.log.as_ref()).await.expect("a life begins");
        let mut config = Config::new(id, self.shards);
        config.boot = Some(boot);
        (self.adjust)(&mut config);
        let transport: Arc<dyn Transport> = self.net.node(id, boot);
        let control = Control::start(transport.as_ref());
        let shards = Shards::start(
            config,
            disk.log,
            disk.state,
            Some(Arc::clone(&transport)),
            Arc::new(|why| panic!("{why}")),
        );
        let shards = shards.await.expect("shards start");
        let owners = Owners::start(Arc::clone(&shards), transport, &control);
        let running = Node {
            shards,
            owners,
            _control: control,
        };
        self.nodes.insert(id, running);
    }

    /// Ends a node's process in the middle of whatever it does.
    #[expect(
        clippy::unused_async,
        reason = "a shutdown is spawned, which needs the runtime"
    )]
    pub(crate) async fn kill(&mut self, id: u64) {
        let id = node(id);
        self.net.stop(id);
        let Some(running) = self.nodes.remove(&id) else {
            return;
        };
        if let Some(disk) = self.disks.get_mut(&id) {
            // The state first: what runs on may still append, and rows are never ahead of the log.
            let state = Arc::new(disk.state.crash_copy());
            let log = Arc::new(disk.log.crash_copy());
            *disk = Disk { log, state };
        }
        // What is still running of it writes to a disk that nobody reads any more.
        drop(running.owners);
        tokio::spawn(async move { running.shards.shutdown().await });
    }

    pub(crate) fn at(&self, id: u64) -> &Node {
        self.nodes.get(&node(id)).expect("the node runs")
    }

    pub(crate) fn disk(&mut self, id: u64) -> &mut Disk {
        self.disks.entry(node(id)).or_default()
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.nodes.keys().map(|id| id.0).collect()
    }

    /// Who serves a shard now; at most one may.
    pub(crate) fn server(&self, shard: ShardId) -> Option<(u64, Term)> {
        let serving: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|(id, running)| Some((id.0, running.shards.term(shard)?)))
            .collect();
        assert!(serving.len() <= 1, "G2: {serving:?} serve shard {shard}");
        serving.first().copied()
    }

    /// Waits for somebody to serve a shard.
    pub(crate) async fn served(&self, shard: ShardId) -> (u64, Term) {
        until("somebody serves the shard", || self.server(shard)).await
    }

    /// Writes a key wherever the shard is served, until that is acknowledged. What is unknown is written again.
    pub(crate) async fn put(&self, shard: ShardId, key: &str, value: &str) {
        let begun = Instant::now();
        loop {
            if let Some((owner, term)) = self.server(shard) {
                let writes = vec![Write::put(Table::Device, key, value.into())];
                let receipt = self.at(owner).shards.propose(shard, term, writes);
                match timeout(PATIENCE, receipt).await.expect("answered") {
                    Ok(()) => return,
                    Err(Refusal::NotOwner | Refusal::Unknown | Refusal::Busy) => {},
                    Err(other) => panic!("refused: {other}"),
                }
            }
            assert!(begun.elapsed() < PATIENCE, "nobody takes {key}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reads a key on one node, as far as that has applied.
    pub(crate) fn get(&self, id: u64, shard: ShardId, key: &str) -> Option<String> {
        let value = self.at(id).shards.get(shard, Table::Device, key.as_bytes());
        value
            .expect("readable")
            .map(|value| String::from_utf8(value).expect("text"))
    }

    /// Waits until a node has a value.
    pub(crate) async fn has(&self, id: u64, shard: ShardId, key: &str, value: &str) {
        until(&format!("node {id} has {key} = {value}"), || {
            (self.get(id, shard, key).as_deref() == Some(value)).then_some(())
        })
        .await;
    }
}

/// Waits for something to be there.
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, looking).await
}

pub(crate) async fn within<T>(what: &str, doing: impl Future<Output = T>) -> T {
    let done = timeout(PATIENCE, doing).await;
    done.unwrap_or_else(|_| panic!("not in time: {what}"))
}
