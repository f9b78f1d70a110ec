//! What to do now, so that shards come to be where the map says, and the map to say where they should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{group::Round, target::Target};
use crate::{
    cluster::{ClusterMap, NodeState},
    ids::{NodeId, ShardId},
};

/// How much is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Shards whose replicas move at the same time: each copies its whole content.
    pub moving_max: usize,
    /// Shards that change their owner in one round for the sake of balance or of a drain.
    pub transfers_max: usize,
    /// Shards that leave an unfit owner in one round: each of their requests waits for it.
    pub rescues_max: usize,
    /// A preferred owner gets its shard back when nothing changed for so long.
    pub stable_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            moving_max: 4,
            transfers_max: 4,
            rescues_max: 16,
            stable_for: Duration::from_secs(5),
        }
    }
}

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// It can be spoken to.
    pub up: bool,
    /// For how long that has been so.
    pub since: Duration,
    /// The groups it has a replica of; `None` if it did not say.
    pub hosted: Option<BTreeSet<ShardId>>,
    /// It had better own nothing: its disk is slow or full.
    pub unfit: bool,
}

/// What the leader of a group said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSeen {
    /// The leader.
    pub leader: NodeId,
    /// Who votes; during a change, on either side of it.
    pub voters: BTreeSet<NodeId>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// A change of voters is on its way.
    pub joint: bool,
    /// Whose copy is complete.
    pub caught_up: BTreeSet<NodeId>,
    /// For how long it has had this leader and these members.
    pub stable: Duration,
}

impl GroupSeen {
    /// Whether a node belongs to the group.
    pub fn includes(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// What is known of nodes and groups. What is not known is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Nodes.
    pub nodes: BTreeMap<NodeId, NodeSeen>,
    /// Groups that have a leader which was heard.
    pub groups: BTreeMap<ShardId, GroupSeen>,
}

impl Observed {
    /// Whether a node can be spoken to.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|seen| seen.up)
    }

    /// Whether a node had better own nothing.
    pub fn is_unfit(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|seen| seen.unfit)
    }

    /// Whether a node has a replica of a group; `None` if it did not say.
    pub fn hosts(&self, node: NodeId, shard: ShardId) -> Option<bool> {
        let seen = self.nodes.get(&node).filter(|seen| seen.up)?;
        seen.hosted.as_ref().map(|hosted| hosted.contains(&shard))
    }

    /// Nodes that cannot be spoken to.
    pub fn down(&self, map: &ClusterMap) -> BTreeSet<NodeId> {
        let members = map.members().map(|(id, _)| id);
        members.filter(|id| !self.is_up(*id)).collect()
    }

    /// Nodes that could not be spoken to for so long that the settings take them for gone.
    pub fn lost(&self, map: &ClusterMap) -> BTreeSet<NodeId> {
        let Some(after) = map.settings.replace_after else {
            return BTreeSet::new();
        };
        let nodes = self.nodes.iter();
        let lost = nodes.filter(|(_, seen)| !seen.up && seen.since >= after);
        lost.map(|(id, _)| *id).collect()
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Change the row of a group.
    Assign {
        /// Which group.
        shard: ShardId,
        /// Who is to vote, the preferred owner first.
        replicas: Vec<NodeId>,
        /// Who is to have a copy without a vote.
        learners: Vec<NodeId>,
        /// The epoch of the row this was seen in.
        epoch: u64,
    },
    /// Begin a replica.
    Host {
        /// Where.
        node: NodeId,
        /// Of which group.
        shard: ShardId,
    },
    /// Erase a replica that belongs to the group no more.
    Retire {
        /// Where.
        node: NodeId,
        /// Of which group.
        shard: ShardId,
    },
    /// Change the members of a group.
    Change {
        /// Its leader.
        leader: NodeId,
        /// Which group.
        shard: ShardId,
        /// Who is to vote.
        voters: BTreeSet<NodeId>,
        /// Who is to get the log without a vote.
        learners: BTreeSet<NodeId>,
    },
    /// Let another voter lead.
    Transfer {
        /// Its leader.
        leader: NodeId,
        /// Which group.
        shard: ShardId,
        /// Who.
        to: NodeId,
    },
    /// Write down that a node has nothing left.
    Drained {
        /// Which node.
        node: NodeId,
    },
}

/// What to do now. Nothing when all is as it should be, or nothing can be done until somebody comes back.
pub fn next_steps(
    map: &ClusterMap,
    targets: &BTreeMap<ShardId, Target>,
    observed: &Observed,
    limits: &Limits,
) -> Vec<Step> {
    let mut round = Round::new(map, observed, limits);
    for (shard, row) in &map.shards {
        round.group(*shard, row, targets.get(shard));
    }
    let mut steps = round.steps;
    for (node, entry) in &map.nodes {
        if entry.state == NodeState::Draining && has_nothing(map, observed, *node) {
            steps.push(Step::Drained { node: *node });
        }
    }
    steps
}

/// Shards whose replicas are on their way, as far as anybody can do something about it.
pub fn moving(map: &ClusterMap, observed: &Observed) -> usize {
    let limits = Limits::default();
    let round = Round::new(map, observed, &limits);
    round.moving
}

/// Whether a node holds nothing but its copy of the map.
fn has_nothing(map: &ClusterMap, observed: &Observed, node: NodeId) -> bool {
    let seen = observed.nodes.get(&node).filter(|seen| seen.up);
    let Some(hosted) = seen.and_then(|seen| seen.hosted.as_ref()) else {
        return false;
    };
    let meta = observed.groups.get(&ShardId::META);
    let votes = meta.is_none_or(|meta| meta.joint || meta.voters.contains(&node));
    let named = map.shards.values().any(|row| row.replicas.contains(&node));
    !votes && !named && hosted.iter().all(|shard| *shard == ShardId::META)
}
