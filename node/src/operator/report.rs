//! What a node tells about itself when an operator asks. The types are the wire between nodes: new variants and fields go
//! to the end, and a change of shape is a new variant.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use umbel_cluster::{Health, Members, Role, ShardStatus};
use umbel_core::{
    ids::{NodeId, ShardId, Term},
    time::Timestamp,
};

/// A node in its own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its release.
    pub(crate) version: String,
    /// When its process was started.
    pub(crate) started_at: Timestamp,
    /// Clients connected to it.
    pub(crate) connections: u64,
    /// Its copies of shards, the meta group among them.
    pub(crate) copies: Vec<CopyReport>,
    /// What is wrong with it as a whole, in words.
    pub(crate) ailments: Vec<String>,
}

/// What is wrong with a disk, in words.
pub(super) fn ailments(disk: Health) -> Vec<String> {
    let full = "its disk is full: it owns nothing while others have room".to_owned();
    let sync_ms = disk.pace.usual.as_millis();
    let slow = format!(
        "its disk is slow (a sync takes {sync_ms} ms): it owns nothing while others are faster"
    );
    let found = [(disk.full, full), (disk.pace.is_slow, slow)];
    let found = found.into_iter().filter(|(is_so, _)| *is_so);
    found.map(|(_, words)| words).collect()
}

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyReport {
    /// Of which shard.
    pub(crate) shard: ShardId,
    /// The word for what the node is in the shard's group.
    pub(crate) role: String,
    /// The term in which the node owns the shard and serves.
    pub(crate) term: Option<Term>,
    /// Last entry applied.
    pub(crate) applied: u64,
    /// Last entry in the log.
    pub(crate) last_log: Option<u64>,
    /// Why it serves nothing, if so.
    pub(crate) damage: Option<String>,
    /// Who votes and who only listens, as this copy knows it.
    pub(crate) members: Option<(Vec<NodeId>, Vec<NodeId>)>,
}

impl CopyReport {
    /// From what the shards of this node say.
    pub(crate) fn new(status: ShardStatus, members: Option<Members>) -> Self {
        let list = |nodes: BTreeSet<NodeId>| nodes.into_iter().collect();
        Self {
            shard: status.shard,
            role: status.role.as_str().to_owned(),
            term: status.term,
            applied: status.applied,
            last_log: status.last_log,
            damage: status.quarantined,
            members: members.map(|members| (list(members.voters), list(members.learners))),
        }
    }

    /// Whether it takes part in its group.
    pub(super) fn is_running(&self) -> bool {
        self.damage.is_none() && self.role != Role::Stopped.as_str()
    }

    /// Whether it says that it owns the shard, serving or not yet.
    pub(super) fn is_leader(&self) -> bool {
        self.role == Role::Owner.as_str()
    }
}
