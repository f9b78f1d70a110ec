//! A cluster that makes itself: one node founds it, others join with tokens, and the meta room does the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};
use umbel_cluster::{
    Config, Control, Owners, Shards, begin_life,
    control::Kind,
    link::{Transport, memory::MemoryNet},
    meta::{ClusterIdentity, JoinDesk, JoinToken, Meta, MetaConfig, ShardGroups, join},
};
use umbel_core::{
    cluster::{Addresses, ClusterMap, Profile, Roles},
    ids::{NodeId, ShardId},
    time::Timestamp,
};
use umbel_storage::{
    Ledger, Nodes,
    memory::{MemoryLog, MemoryState},
};

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
pub(crate) const SHARDS: u16 = 6;

#[derive(Clone, Default)]
struct Disk {
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
}

/// A running process.
pub(crate) struct Node {
    pub(crate) shards: Arc<Shards>,
    pub(crate) meta: Arc<Meta>,
    _owners: Arc<Owners>,
    _control: Arc<Control>,
}

/// The cluster.
pub(crate) struct World {
    net: MemoryNet,
    folder: tempfile::TempDir,
    disks: BTreeMap<NodeId, Disk>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
}

pub(crate) fn profile(place: u16) -> Profile {
    let address: SocketAddr = ([127, 0, 0, 1], 7000 + place).into();
    Profile {
        addresses: Addresses {
            link: address,
            gossip: address,
            client: None,
        },
        zone: String::new(),
        roles: Roles::default(),
        version: "test".to_owned(),
    }
}

/// Asks as a newcomer would.
pub(crate) async fn ask(
    desk: JoinDesk,
    data: PathBuf,
    token: &JoinToken,
    place: u16,
) -> Result<ClusterIdentity, String> {
    let send = |_seed, _fingerprint, body, _within| desk(([127, 0, 0, 1], 9).into(), body);
    let seeds = ["seed:1".to_owned()];
    let joined = join(&data, token, &seeds, profile(place), send).await;
    joined.map_err(|error| error.to_string())
}

impl World {
    /// One node that founds a cluster.
    pub(crate) async fn founded() -> Self {
        let mut world = Self {
            net: MemoryNet::new(),
            folder: tempfile::tempdir().expect("a folder"),
            disks: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        let data = world.data(1);
        let identity = ClusterIdentity::init(&data, NodeId(1), SHARDS, NOW).expect("founded");
        world.boot(&identity, 1).await;
        let first = world.at(NodeId(1));
        first.shards.found().await.expect("founded");
        first.meta.ready().await;
        world
    }

    /// A folder of a newcomer's own.
    pub(crate) fn data(&self, place: u16) -> PathBuf {
        self.folder.path().join(place.to_string())
    }

    pub(crate) fn at(&self, id: NodeId) -> &Node {
        self.nodes.get(&id).expect("the node runs")
    }

    /// The log of a node's disk.
    pub(crate) fn log(&self, id: NodeId) -> Arc<MemoryLog> {
        Arc::clone(&self.disks.get(&id).expect("the node has a disk").log)
    }

    /// A further node, through whichever runs.
    pub(crate) async fn join(&mut self, place: u16) -> NodeId {
        let seed = self.nodes.values().next().expect("somebody runs");
        let (meta, desk) = (Arc::clone(&seed.meta), seed.meta.join_desk());
        let token = meta.create_token(HOUR).await.expect("a token");
        let identity = ask(desk, self.data(place), &token, place).await;
        let identity = identity.expect("let in");
        let node = identity.node;
        self.boot(&identity, place).await;
        node
    }

    async fn boot(&mut self, identity: &ClusterIdentity, place: u16) {
        let id = identity.node;
        let disk = self.disks.entry(id).or_default().clone();
        let boot = begin_life(disk.log.as_ref()).await.expect("a life begins");
        let mut config = Config::new(id, SHARDS);
        config.boot = Some(boot);
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
        let owners = Owners::start(Arc::clone(&shards), Arc::clone(&transport), &control);
        let profile = profile(place);
        let config = MetaConfig {
            init: identity.init_command(&profile),
            profile,
            moving_max: 4,
            clock: Arc::new(|| NOW),
            // A node that was removed says so; here it is killed anyway.
            fatal: Arc::new(drop),
        };
        let nodes = Arc::clone(&owners) as Arc<dyn Nodes>;
        let groups = Arc::new(ShardGroups(Arc::clone(&shards)));
        let meta = Meta::start(groups, transport, nodes, config).expect("meta starts");
        control.register(Kind::Meta, meta.handler());
        let running = Node {
            shards,
            meta,
            _owners: owners,
            _control: control,
        };
        self.nodes.insert(id, running);
    }

    /// Ends a node's process in the middle of whatever it does.
    pub(crate) async fn kill(&mut self, id: NodeId) {
        self.net.stop(id);
        if let Some(running) = self.nodes.remove(&id) {
            running.meta.shutdown().await;
            tokio::spawn(async move { running.shards.shutdown().await });
        }
    }

    /// Who leads the meta group.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let mut nodes = self.nodes.iter();
        let leads = nodes.find(|(_, node)| node.shards.term(ShardId::META).is_some());
        leads.map(|(id, _)| *id)
    }

    /// The voters of a shard, as whoever owns it says, while they are not being changed.
    pub(crate) fn voters(&self, shard: ShardId) -> Option<BTreeSet<NodeId>> {
        let mut nodes = self.nodes.values();
        let owner = nodes.find(|node| node.shards.term(shard).is_some())?;
        let members = owner.shards.members(shard)?;
        (!members.joint && members.learners.is_empty()).then_some(members.voters)
    }

    /// Whether these nodes, and nobody else, hold every shard, and all have one map that says so.
    pub(crate) fn is_held_by(&self, nodes: &[NodeId]) -> bool {
        let wanted: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let shards = || (0..SHARDS).map(ShardId);
        let held = shards().all(|shard| self.voters(shard).as_ref() == Some(&wanted));
        let maps: Vec<Arc<ClusterMap>> = nodes.iter().map(|id| self.at(*id).meta.map()).collect();
        let same = maps.windows(2).all(|pair| pair[0] == pair[1]);
        let named = shards().all(|shard| {
            let row = maps[0].shards.get(&shard);
            row.is_some_and(|row| row.voters() == wanted)
        });
        held && same && named
    }
}

/// Waits for a state.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
