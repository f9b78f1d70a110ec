//! A cluster of three with two shards, as it looks when something is wrong.

use umbel_core::{
    cluster::{Addresses, Assignment, Node as Member, Profile, Roles},
    ids::Term,
    time::Timestamp,
};
use umbel_storage::nodes::Boot;

use super::*;

const SHARDS: [u16; 2] = [0, 1];

fn map() -> ClusterMap {
    let mut map = ClusterMap::default();
    for id in 1..=3 {
        let address = format!("10.0.0.{id}:7400").parse().expect("an address");
        let profile = Profile {
            addresses: Addresses {
                link: address,
                gossip: address,
                client: None,
            },
            zone: String::new(),
            roles: Roles::default(),
            version: "0".to_owned(),
        };
        let node = Member {
            profile,
            state: Stage::Active,
            admitted_at: Timestamp::from_millis(0),
        };
        map.nodes.insert(NodeId(id), node);
    }
    for shard in SHARDS.map(ShardId).into_iter().chain([ShardId::META]) {
        let row = Assignment {
            replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
            epoch: 1,
            ..Assignment::default()
        };
        map.shards.insert(shard, row);
    }
    map
}

/// Node 1 owns everything.
fn report(node: u64) -> Report {
    let owns = node == 1;
    let voters: Vec<_> = (1..=3).map(NodeId).collect();
    let copy = |shard| CopyReport {
        shard,
        role: if owns { "owner" } else { "follower" }.to_owned(),
        term: owns.then_some(Term(7)),
        applied: 10,
        last_log: Some(10),
        damage: None,
        members: Some((voters.clone(), Vec::new())),
    };
    let shards = SHARDS.map(ShardId).into_iter().chain([ShardId::META]);
    Report {
        version: "0".to_owned(),
        started_at: Timestamp::from_millis(1),
        connections: 5,
        copies: shards.map(copy).collect(),
        ailments: Vec::new(),
    }
}

fn peer(node: u64, reach: Reach) -> Peer {
    Peer {
        node: NodeId(node),
        boot: Some(Boot(1)),
        reach,
    }
}

struct Scene {
    map: ClusterMap,
    peers: Vec<Peer>,
    reports: BTreeMap<NodeId, Report>,
}

impl Scene {
    fn healthy() -> Self {
        Self {
            map: map(),
            peers: vec![peer(2, Reach::Connected), peer(3, Reach::Connected)],
            reports: (1..=3).map(|id| (NodeId(id), report(id))).collect(),
        }
    }

    fn without(mut self, node: u64, reach: Reach) -> Self {
        self.reports.remove(&NodeId(node));
        self.peers.retain(|peer| peer.node != NodeId(node));
        self.peers.push(peer(node, reach));
        self
    }

    fn world(&self) -> World {
        World {
            me: NodeId(1),
            map: Arc::new(self.map.clone()),
            peers: self.peers.clone(),
            reports: self.reports.clone(),
        }
    }

    fn copy(&mut self, node: u64, shard: u16) -> &mut CopyReport {
        let report = self.reports.get_mut(&NodeId(node)).expect("it spoke");
        let mut copies = report.copies.iter_mut();
        copies
            .find(|copy| copy.shard == ShardId(shard))
            .expect("a copy")
    }
}

#[test]
fn a_healthy_cluster_looks_healthy() {
    let scene = Scene::healthy();
    let world = scene.world();
    assert!(world.nodes().iter().all(|node| node.state == NodeState::Up));
    assert!(
        world
            .shards()
            .iter()
            .all(|s| s.state == ShardState::Ok && s.owner == Some(1))
    );
    let cluster = world.cluster();
    assert_eq!(
        (cluster.nodes_up, cluster.shards_ok, cluster.shards),
        (3, 2, 2)
    );
    assert_eq!(cluster.meta_leader, Some(1));
    let first = &world.nodes()[0];
    assert_eq!((first.owned, first.copies, first.connections), (2, 2, 5));
    assert_eq!(first.meta.as_deref(), Some("leader"));
    assert_eq!(first.roles, ["voter", "shards", "gateway"]);
}

#[test]
fn a_node_that_is_gone_is_down_and_its_shards_are_degraded() {
    let scene = Scene::healthy().without(3, Reach::Gone);
    let world = scene.world();
    assert_eq!(world.nodes()[2].state, NodeState::Down);
    assert_eq!(world.nodes()[2].why, ["there is no link to it"]);
    let shard = &world.shards()[0];
    assert_eq!(shard.state, ShardState::Degraded);
    assert_eq!(shard.why, ["node 3 does not answer"]);
    assert_eq!(shard.copies[2].role, "unknown");
}

#[test]
fn a_majority_that_is_gone_takes_the_quorum_with_it() {
    let mut scene = Scene::healthy()
        .without(2, Reach::Unreachable)
        .without(3, Reach::Gone);
    for shard in SHARDS {
        scene.copy(1, shard).term = None;
    }
    let world = scene.world();
    let shard = &world.shards()[0];
    assert_eq!((shard.state, shard.owner), (ShardState::NoQuorum, None));
    assert_eq!(shard.why[0], "1 of 3 voters answer");
    assert_eq!(world.cluster().shards_served, 0);
    assert_eq!(world.nodes()[1].state, NodeState::Unreachable);
}

#[test]
fn a_shard_between_two_owners_is_told_from_one_without_quorum() {
    let mut scene = Scene::healthy();
    scene.copy(1, 0).term = None;
    assert_eq!(
        scene.world().shards()[0].why,
        ["its owner does not serve yet"]
    );
    "candidate".clone_into(&mut scene.copy(1, 0).role);
    let shard = &scene.world().shards()[0];
    assert_eq!(shard.state, ShardState::NoOwner);
    assert_eq!(shard.why, ["no owner is elected yet"]);
}

#[test]
fn damage_and_lag_are_named() {
    let mut scene = Scene::healthy();
    scene.copy(2, 1).damage = Some("a row is damaged".to_owned());
    scene.copy(1, 0).last_log = Some(5000);
    let world = scene.world();
    let node = &world.nodes()[1];
    assert_eq!(node.state, NodeState::Degraded);
    assert_eq!(
        node.why,
        ["shard 1: a row is damaged", "1 copies are far behind"]
    );
    assert!(
        world.shards()[1]
            .why
            .contains(&"node 2: a row is damaged".to_owned())
    );
    assert_eq!(world.shards()[0].copies[1].lag, Some(4990));
}

#[test]
fn copies_on_their_way_and_nodes_being_emptied_are_no_trouble() {
    let mut scene = Scene::healthy();
    let row = scene.map.shards.get_mut(&ShardId(0)).expect("a shard");
    row.replicas = vec![NodeId(1), NodeId(2)];
    scene.map.nodes.get_mut(&NodeId(3)).expect("a node").state = Stage::Draining;
    let world = scene.world();
    assert_eq!(world.shards()[0].state, ShardState::Moving);
    assert_eq!(world.nodes()[2].state, NodeState::Draining);
    assert!(world.nodes()[2].draining);
}

#[test]
fn of_two_that_call_themselves_owner_the_later_one_is_believed() {
    let mut scene = Scene::healthy();
    scene.copy(2, 0).term = Some(Term(9));
    assert_eq!(scene.world().shards()[0].owner, Some(2));
}

#[test]
fn a_node_that_is_there_and_knows_no_leader_of_the_cluster_is_not_up() {
    let mut scene = Scene::healthy();
    scene.reports.retain(|node, _| *node == NodeId(2));
    let world = scene.world();
    let node = world.nodes().into_iter().find(|node| node.id == 2);
    let node = node.expect("a node");
    assert_eq!(node.state, NodeState::Degraded);
    assert_eq!(node.why, ["it belongs to no majority of the cluster"]);
}
