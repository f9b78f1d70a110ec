//! What an operator sees of a shard.

use std::fmt;

use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::log::Pace;

/// What this node is in a shard's group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It owns the shard (or will, once it has applied what was committed before).
    Owner,
    /// It asks to become the owner.
    Candidate,
    /// It holds a copy and votes.
    Follower,
    /// It holds a copy and does not vote.
    Learner,
    /// Its group does not run.
    Stopped,
}

impl Role {
    /// The role in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Candidate => "candidate",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a node's disk is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It takes no writes.
    pub full: bool,
    /// How long its syncs take, and whether they are slow.
    pub pace: Pace,
}

/// A shard on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// The term in which this node owns it and serves.
    pub term: Option<Term>,
    /// What this node is in its group.
    pub role: Role,
    /// Who owns it, as far as was heard within the last lease; this node itself only while a majority answers it.
    pub leader: Option<NodeId>,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry in the log.
    pub last_log: Option<u64>,
    /// Index of the last entry in the latest snapshot.
    pub snapshot: Option<u64>,
    /// Commands waiting to be proposed.
    pub queued: usize,
    /// Whether the replica may neither vote nor campaign, because it may have forgotten something.
    pub probation: bool,
    /// Why it serves nothing, if so.
    pub quarantined: Option<String>,
}
