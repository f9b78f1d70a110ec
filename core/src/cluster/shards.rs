//! Changes of who is to hold a shard.

use std::collections::BTreeSet;

use super::{
    command::Rejected,
    map::{Assignment, ClusterMap, Row},
};
use crate::ids::{NodeId, ShardId};

/// Most voters of a group: more only make every write wait for more disks.
const REPLICAS_MAX: usize = 7;

/// Changes a row, if it is still the one this was decided on; `lists` are the replicas and the learners.
pub(super) fn assign(
    map: &ClusterMap,
    shard: ShardId,
    lists: (&[NodeId], &[NodeId]),
    epoch: u64,
) -> Result<Vec<Row>, Rejected> {
    let (replicas, learners) = lists;
    let row = row(map, shard)?;
    if row.epoch != epoch {
        return Err(Rejected::Stale {
            shard,
            epoch: row.epoch,
        });
    }
    if replicas.is_empty() || replicas.len() > REPLICAS_MAX {
        return Err(Rejected::Invalid {
            what: "replicas".into(),
        });
    }
    let mut seen = BTreeSet::new();
    for node in replicas.iter().chain(learners) {
        let known = map.nodes.get(node).ok_or(Rejected::UnknownNode(*node))?;
        if !known.is_member() || !seen.insert(*node) {
            return Err(Rejected::Invalid {
                what: "replicas".into(),
            });
        }
    }
    let pinned = row.pinned && row.preferred() == replicas.first().copied();
    Ok(changed(
        shard,
        row,
        (replicas.to_vec(), learners.to_vec()),
        pinned,
    ))
}

/// Puts a replica first, or leaves the order to the balance.
pub(super) fn prefer(
    map: &ClusterMap,
    shard: ShardId,
    node: Option<NodeId>,
) -> Result<Vec<Row>, Rejected> {
    let row = row(map, shard)?;
    let mut replicas = row.replicas.clone();
    if let Some(node) = node {
        let place = replicas.iter().position(|replica| *replica == node);
        let place = place.ok_or_else(|| Rejected::Invalid {
            what: "preferred owner (it holds no copy)".into(),
        })?;
        let first = replicas.remove(place);
        replicas.insert(0, first);
    }
    let learners = row.learners.clone();
    Ok(changed(shard, row, (replicas, learners), node.is_some()))
}

fn row(map: &ClusterMap, shard: ShardId) -> Result<&Assignment, Rejected> {
    map.shards.get(&shard).ok_or(Rejected::UnknownShard(shard))
}

fn changed(
    shard: ShardId,
    row: &Assignment,
    lists: (Vec<NodeId>, Vec<NodeId>),
    pinned: bool,
) -> Vec<Row> {
    let (replicas, learners) = lists;
    let same = row.replicas == replicas && row.learners == learners && row.pinned == pinned;
    if same {
        return Vec::new();
    }
    let after = Assignment {
        replicas,
        learners,
        pinned,
        epoch: row.epoch + 1,
    };
    vec![Row::Shard(shard, after)]
}
