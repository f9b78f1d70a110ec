//! The laws of placement, on random clusters and in a small simulated world.

mod laws;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::{
    cluster::{
        Addresses, Assignment, Authority, ClusterId, ClusterMap, Command, Init, Node, NodeState,
        Profile, Request, RequestId, Roles, Secret, decide,
    },
    ids::{NodeId, ShardId},
    time::Timestamp,
};

pub(super) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn profile(node: u64, zone: &str) -> Profile {
    let port = u16::try_from(7000 + node).expect("few nodes");
    let address = ([127, 0, 0, 1], port).into();
    Profile {
        addresses: Addresses {
            link: address,
            gossip: address,
            client: None,
        },
        zone: zone.to_owned(),
        roles: Roles::default(),
        version: "1".to_owned(),
    }
}

/// A cluster of one node, as its creation leaves it.
fn made(shards: u16) -> ClusterMap {
    let init = Init {
        cluster: ClusterId(7),
        shards,
        authority: Authority {
            certificate: vec![1],
            key: Secret::new(vec![2]),
        },
        gossip_key: Secret::new(vec![3; 32]),
        node: NodeId(1),
        profile: profile(1, "a"),
        created_at: NOW,
    };
    let mut map = ClusterMap::default();
    order(&mut map, Command::Init(Box::new(init)));
    map
}

fn order(map: &mut ClusterMap, command: Command) {
    let id = RequestId(u128::from(map.counters.revision) + 1);
    let decision = decide(map, &Request { id, command }, NOW).expect("allowed");
    for row in decision.rows {
        map.apply(row);
    }
}

/// Another node, there at once.
fn add(map: &mut ClusterMap, zone: &str) -> NodeId {
    let id = NodeId(map.counters.next_node);
    map.counters.next_node += 1;
    let node = Node {
        profile: profile(id.0, zone),
        state: NodeState::Active,
        admitted_at: NOW,
    };
    map.nodes.insert(id, node);
    id
}

/// A cluster of nodes in zones, with rows that name some of them.
fn clusters() -> impl Strategy<Value = ClusterMap> {
    let zones = prop::collection::vec(0_usize..4, 1..9);
    let rows = prop::collection::vec(prop::collection::btree_set(1_u64..10, 1..5), 1..40);
    (zones, rows).prop_map(|(zones, rows)| {
        let count = u16::try_from(rows.len()).expect("few rows");
        let mut map = made(count);
        for zone in &zones {
            add(&mut map, ["a", "b", "c", "d"][*zone]);
        }
        for (shard, nodes) in (0..count).map(ShardId).zip(rows) {
            let known = |id: &NodeId| map.nodes.contains_key(id);
            let mut replicas: Vec<NodeId> = nodes.into_iter().map(NodeId).filter(known).collect();
            if replicas.is_empty() {
                replicas.push(NodeId(1));
            }
            let row = Assignment {
                replicas,
                epoch: 1,
                ..Assignment::default()
            };
            map.shards.insert(shard, row);
        }
        map
    })
}

fn none() -> BTreeSet<NodeId> {
    BTreeSet::new()
}

/// Replicas of shards on each node.
fn loads(rows: &BTreeMap<ShardId, Vec<NodeId>>) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for node in rows.values().flatten() {
        *loads.entry(*node).or_default() += 1;
    }
    loads
}
