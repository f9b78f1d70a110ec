//! Who of a shard's replicas is to own it: evenly, and as it was if that is even enough.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    cluster::Assignment,
    ids::{NodeId, ShardId},
};

type Sets = BTreeMap<ShardId, BTreeSet<NodeId>>;
type Firsts = BTreeMap<ShardId, NodeId>;
type Loads = BTreeMap<NodeId, usize>;

/// Each set as a list, its preferred owner first.
pub(super) fn order(
    rows: &BTreeMap<ShardId, &Assignment>,
    sets: &Sets,
) -> BTreeMap<ShardId, Vec<NodeId>> {
    let mut loads: Loads = sets.values().flatten().map(|node| (*node, 0)).collect();
    let mut firsts = Firsts::new();
    for (shard, set) in sets {
        let before = rows.get(shard).and_then(|row| row.preferred());
        if let Some(first) = before.filter(|first| set.contains(first)) {
            firsts.insert(*shard, first);
            *loads.entry(first).or_default() += 1;
        }
    }
    for (shard, set) in sets {
        let load = |node: &&NodeId| loads.get(*node).copied().unwrap_or_default();
        if !firsts.contains_key(shard)
            && let Some(first) = set.iter().min_by_key(load).copied()
        {
            firsts.insert(*shard, first);
            *loads.entry(first).or_default() += 1;
        }
    }
    let pinned = |shard: &ShardId| rows.get(shard).is_some_and(|row| row.pinned);
    while let Some(path) = uneven(sets, &firsts, &loads, pinned) {
        for (shard, to) in path {
            if let Some(from) = firsts.insert(shard, to) {
                *loads.entry(from).or_default() -= 1;
            }
            *loads.entry(to).or_default() += 1;
        }
    }
    let listed = sets.iter().map(|(shard, set)| {
        let first = firsts.get(shard).copied();
        let rest = set.iter().copied().filter(|node| Some(*node) != first);
        (*shard, first.into_iter().chain(rest).collect())
    });
    listed.collect()
}

/// Shards to hand on, each from its first replica to another, so that in the end a node that owns many owns one less and
/// one that owns at least two less owns one more. Shortest first, so that few shards change hands.
fn uneven(
    sets: &Sets,
    firsts: &Firsts,
    loads: &Loads,
    pinned: impl Fn(&ShardId) -> bool,
) -> Option<Vec<(ShardId, NodeId)>> {
    let mut edges: BTreeMap<NodeId, BTreeMap<NodeId, ShardId>> = BTreeMap::new();
    for (shard, first) in firsts.iter().filter(|(shard, _)| !pinned(shard)) {
        for to in sets.get(shard).into_iter().flatten() {
            if to != first {
                edges
                    .entry(*first)
                    .or_default()
                    .entry(*to)
                    .or_insert(*shard);
            }
        }
    }
    let mut most_first: Vec<(usize, NodeId)> =
        loads.iter().map(|(node, load)| (*load, *node)).collect();
    most_first.sort_unstable_by(|one, two| two.cmp(one));
    most_first
        .into_iter()
        .find_map(|(load, node)| relief(node, load, &edges, loads))
}

/// The shortest way from a node to one that owns at least two less.
fn relief(
    start: NodeId,
    most: usize,
    edges: &BTreeMap<NodeId, BTreeMap<NodeId, ShardId>>,
    loads: &Loads,
) -> Option<Vec<(ShardId, NodeId)>> {
    let mut came: BTreeMap<NodeId, (NodeId, ShardId)> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for (to, shard) in edges.get(&node).into_iter().flatten() {
            if *to == start || came.contains_key(to) {
                continue;
            }
            came.insert(*to, (node, *shard));
            if loads.get(to).copied().unwrap_or_default() + 2 <= most {
                return Some(path(*to, &came));
            }
            queue.push_back(*to);
        }
    }
    None
}

fn path(end: NodeId, came: &BTreeMap<NodeId, (NodeId, ShardId)>) -> Vec<(ShardId, NodeId)> {
    let mut path = Vec::new();
    let mut to = end;
    while let Some((from, shard)) = came.get(&to) {
        path.push((*shard, to));
        to = *from;
    }
    path
}
