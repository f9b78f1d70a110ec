//! Who should hold what.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    balance::{Zones, balance},
    owners,
};
use crate::{
    cluster::{Assignment, ClusterMap, Node, NodeState},
    ids::{NodeId, ShardId},
};

/// Replicas of a shard, if there are as many nodes.
pub const REPLICAS: usize = 3;
/// Most voters of the meta group.
pub const VOTERS_MAX: usize = 5;

/// Who should hold a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who should vote, the preferred owner first.
    pub replicas: Vec<NodeId>,
    /// Who should have a copy without a vote.
    pub learners: Vec<NodeId>,
}

/// Who should hold each group of the map.
///
/// `down` nodes keep what they have and are given nothing: they may come back, and nobody should wait for them. `lost`
/// nodes are taken to be gone for good.
pub fn target(
    map: &ClusterMap,
    down: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> BTreeMap<ShardId, Target> {
    let shards: BTreeMap<ShardId, &Assignment> = map
        .shards
        .iter()
        .filter(|(shard, _)| **shard != ShardId::META)
        .map(|(shard, row)| (*shard, row))
        .collect();
    let holders = zones(map, lost, |node| node.profile.roles.shards);
    let mut targets: BTreeMap<_, _> = place(&shards, &holders, down, REPLICAS)
        .into_iter()
        .map(|(shard, replicas)| {
            let learners = Vec::new();
            (shard, Target { replicas, learners })
        })
        .collect();
    if let Some(row) = map.shards.get(&ShardId::META) {
        targets.insert(ShardId::META, meta(map, row, down, lost));
    }
    targets
}

/// An odd number of voters where there is a choice: the even one more would make every decision wait for one more node
/// and let no more nodes fail. Two are better than one only in that both have the data.
fn voters(nodes: usize) -> usize {
    match nodes {
        0..=3 => nodes,
        4 => 3,
        _ => VOTERS_MAX,
    }
}

fn meta(
    map: &ClusterMap,
    row: &Assignment,
    down: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> Target {
    let holders = zones(map, lost, |node| node.profile.roles.voter);
    let shards = BTreeMap::from([(ShardId::META, row)]);
    let placed = place(&shards, &holders, down, voters(holders.len()));
    let replicas = placed.into_values().next().unwrap_or_default();
    // Whoever takes part reads its copy of the map, also while it has no other duty left.
    let takes_part = |node: &Node| {
        matches!(
            node.state,
            NodeState::Active | NodeState::Draining | NodeState::Drained
        )
    };
    let learners = map
        .nodes
        .iter()
        .filter(|(id, node)| takes_part(node) && !replicas.contains(id))
        .map(|(id, _)| *id)
        .collect();
    Target { replicas, learners }
}

/// The nodes that may be given something, with their zones.
fn zones<'a>(
    map: &'a ClusterMap,
    lost: &BTreeSet<NodeId>,
    has_role: impl Fn(&Node) -> bool,
) -> Zones<'a> {
    map.nodes
        .iter()
        .filter(|(id, node)| node.is_active() && has_role(node) && !lost.contains(id))
        .map(|(id, node)| (*id, node.profile.zone.as_str()))
        .collect()
}

fn place(
    rows: &BTreeMap<ShardId, &Assignment>,
    holders: &Zones<'_>,
    down: &BTreeSet<NodeId>,
    count: usize,
) -> BTreeMap<ShardId, Vec<NodeId>> {
    let current: BTreeMap<ShardId, BTreeSet<NodeId>> = rows
        .iter()
        .map(|(shard, row)| (*shard, row.voters()))
        .collect();
    let mut sets = balance(&current, holders, down, count);
    for (shard, set) in &mut sets {
        // Nobody can take it: it stays where it is.
        if set.is_empty()
            && let Some(row) = rows.get(shard)
        {
            *set = row.voters();
        }
    }
    owners::order(rows, &sets)
}
