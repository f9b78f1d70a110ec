//! What the meta room needs of the groups of a node.

use std::collections::BTreeSet;

use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::Ledger;

use crate::{link::BoxFuture, status::Health};

/// Who belongs to a group, as one of its replicas knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Who votes. During a change, the votes of both sides.
    pub voters: BTreeSet<NodeId>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
    /// A change of voters is on its way.
    pub joint: bool,
    /// Whose log is near the end of the leader's. Only the leader knows; empty elsewhere.
    pub caught_up: BTreeSet<NodeId>,
}

/// The groups of a node. An error is a sentence for an operator; whoever asked tries again.
pub trait Groups: Ledger {
    /// The groups that have a replica here, the meta group included.
    fn hosted(&self) -> Vec<ShardId>;
    /// Begins a replica without content that waits for a leader; nothing if there is one.
    fn host(&self, shard: ShardId) -> BoxFuture<'static, Result<(), String>>;
    /// Stops the replica and erases it.
    fn retire(&self, shard: ShardId) -> BoxFuture<'static, Result<(), String>>;
    /// On the leader: makes these the members, or comes nearer to it.
    fn change_members(
        &self,
        shard: ShardId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
    ) -> BoxFuture<'static, Result<(), String>>;
    /// On the leader: lets another voter lead.
    fn transfer(&self, shard: ShardId, to: NodeId) -> BoxFuture<'static, Result<(), String>>;
    /// Who belongs to the group of a replica.
    fn members(&self, shard: ShardId) -> Option<Members>;
    /// Who leads the group of a replica, as far as that knows.
    fn leader(&self, shard: ShardId) -> Option<NodeId>;
    /// How the disk is that the groups are on.
    fn health(&self) -> Health;
    /// Changes when something was applied; `None` without a replica.
    fn applied(&self, shard: ShardId) -> Option<watch::Receiver<u64>>;
}
