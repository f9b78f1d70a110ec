//! Which nodes hold which shard.
//!
//! What is in place is kept as far as zones allow. Gaps are filled by rendezvous hashing (each shard ranks all nodes by a
//! hash) among the least used nodes. Then replicas move from nodes that have at least two more than another to that
//! other, as long as zones allow: each move makes the loads more even, so this ends, and what it ends with is its own
//! target.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{NodeId, ShardId};

/// Nodes and their zones.
pub(super) type Zones<'a> = BTreeMap<NodeId, &'a str>;

/// How many replicas each node has.
type Loads = BTreeMap<NodeId, usize>;

/// A shard's sets.
type Sets = BTreeMap<ShardId, BTreeSet<NodeId>>;

/// The place of a node in a shard's ranking: the higher, the better.
fn rank(shard: ShardId, node: NodeId) -> u64 {
    let mut key = [0; 10];
    let (left, right) = key.split_at_mut(2);
    left.copy_from_slice(&shard.0.to_be_bytes());
    right.copy_from_slice(&node.0.to_be_bytes());
    xxh3_64(&key)
}

/// Up to `count` nodes for each shard.
pub(super) fn balance(
    current: &Sets,
    zones: &Zones<'_>,
    down: &BTreeSet<NodeId>,
    count: usize,
) -> Sets {
    let count = count.min(zones.len());
    let zone_max = zone_max(zones, count);
    let mut sets: Sets = current
        .iter()
        .map(|(shard, set)| (*shard, kept(*shard, set, zones, (count, zone_max))))
        .collect();
    let mut loads: Loads = zones.keys().map(|node| (*node, 0)).collect();
    for node in sets.values().flatten() {
        *loads.entry(*node).or_default() += 1;
    }
    let fair = (current.len() * count).div_ceil(zones.len().max(1));
    for (shard, set) in &mut sets {
        while set.len() < count {
            let Some(node) = newcomer(*shard, set, zones, down, &loads, (zone_max, fair)) else {
                break;
            };
            set.insert(node);
            *loads.entry(node).or_default() += 1;
        }
    }
    while let Some((shard, from, to)) = improvement(&sets, &loads, zones, down, zone_max) {
        if let Some(set) = sets.get_mut(&shard) {
            set.remove(&from);
            set.insert(to);
        }
        *loads.entry(from).or_default() -= 1;
        *loads.entry(to).or_default() += 1;
    }
    sets
}

/// Most replicas of one shard in one zone, if they are spread as evenly as the zones allow.
fn zone_max(zones: &Zones<'_>, count: usize) -> usize {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for zone in zones.values() {
        *sizes.entry(zone).or_default() += 1;
    }
    let room = |most: usize| sizes.values().map(|size| *size.min(&most)).sum::<usize>();
    (1..=count).find(|most| room(*most) >= count).unwrap_or(1)
}

fn in_zone(set: &BTreeSet<NodeId>, zones: &Zones<'_>, zone: &str) -> usize {
    let same = |node: &&NodeId| zones.get(node).is_some_and(|other| *other == zone);
    set.iter().filter(same).count()
}

/// What may stay of a shard's set: the best ranked, within the bounds of its size and of each zone.
fn kept(
    shard: ShardId,
    set: &BTreeSet<NodeId>,
    zones: &Zones<'_>,
    (count, zone_max): (usize, usize),
) -> BTreeSet<NodeId> {
    let mut best: Vec<NodeId> = set.iter().copied().collect();
    best.sort_by_key(|node| Reverse(rank(shard, *node)));
    let mut kept = BTreeSet::new();
    for node in best {
        let Some(zone) = zones.get(&node) else {
            continue;
        };
        if kept.len() < count && in_zone(&kept, zones, zone) < zone_max {
            kept.insert(node);
        }
    }
    kept
}

/// Who fills a gap: somebody with less than a fair share if possible, then the best ranked; else the least used.
fn newcomer(
    shard: ShardId,
    set: &BTreeSet<NodeId>,
    zones: &Zones<'_>,
    down: &BTreeSet<NodeId>,
    loads: &Loads,
    (zone_max, fair): (usize, usize),
) -> Option<NodeId> {
    let load = |node: &NodeId| loads.get(node).copied().unwrap_or_default();
    zones
        .iter()
        .filter(|(node, _)| !set.contains(node) && !down.contains(node))
        .filter(|(_, zone)| in_zone(set, zones, zone) < zone_max)
        .map(|(node, _)| *node)
        .min_by_key(|node| {
            let excess = (load(node) + 1).saturating_sub(fair);
            (excess, Reverse(rank(shard, *node)))
        })
}

/// A replica that moves from a node to one that has at least two less.
fn improvement(
    sets: &Sets,
    loads: &Loads,
    zones: &Zones<'_>,
    down: &BTreeSet<NodeId>,
    zone_max: usize,
) -> Option<(ShardId, NodeId, NodeId)> {
    let mut order: Vec<(usize, NodeId)> = loads
        .iter()
        .filter(|(node, _)| zones.contains_key(node) && !down.contains(node))
        .map(|(node, load)| (*load, *node))
        .collect();
    order.sort_unstable();
    for (high, from) in order.iter().rev() {
        for (low, to) in order.iter().take_while(|(low, _)| low + 2 <= *high) {
            debug_assert!(low < high, "loads are in order");
            let found = movable(sets, zones, zone_max, (*from, *to));
            if let Some(shard) = found {
                return Some((shard, *from, *to));
            }
        }
    }
    None
}

/// Of the shards that may move between two nodes, the one that likes its place least.
fn movable(
    sets: &Sets,
    zones: &Zones<'_>,
    zone_max: usize,
    (from, to): (NodeId, NodeId),
) -> Option<ShardId> {
    let (leaves, enters) = (zones.get(&from)?, zones.get(&to)?);
    let fits = |set: &BTreeSet<NodeId>| {
        set.contains(&from)
            && !set.contains(&to)
            && (leaves == enters || in_zone(set, zones, enters) < zone_max)
    };
    sets.iter()
        .filter(|(_, set)| fits(set))
        .map(|(shard, _)| *shard)
        .min_by_key(|shard| rank(*shard, from))
}
