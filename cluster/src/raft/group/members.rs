//! Who belongs to a group, and changing that.

use std::{collections::BTreeSet, fmt, sync::Arc};

use openraft::{
    ChangeMembers, EmptyNode, ServerState,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
    metrics::RaftDataMetrics,
    raft::ClientWriteResponse,
};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use umbel_core::ids::NodeId;
use umbel_storage::crash;

use super::Group;
use crate::raft::{
    rpc::{Answer, Ask},
    types::Types,
};

/// Steps of one change: adding, two of a joint change, two more where it has to be finished first, removing.
const STEPS_MAX: usize = 8;

/// Who belongs to a shard's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Nodes that vote; of both sets, while they change.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that have a copy and do not vote.
    pub learners: BTreeSet<NodeId>,
    /// Whether the voters are being changed: a change that was interrupted is to be asked for again.
    pub joint: bool,
    /// Nodes that have all entries but a few. Only the owner knows; empty elsewhere.
    pub caught_up: BTreeSet<NodeId>,
}

/// What a change of members did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The members are as asked for.
    Done,
    /// They were already.
    Already,
}

/// Why a change of members, or a transfer, did not happen, or not to its end. It may be asked for again as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// This node does not host the shard.
    #[error("this node does not host the shard")]
    NotHosted,
    /// This node does not own the shard.
    #[error("this node does not own the shard{}", Hint(.0))]
    NotLeader(Option<NodeId>),
    /// Another change of this shard is under way.
    #[error("another change is under way")]
    Busy,
    /// A new member does not have the log in time; it goes on catching up.
    #[error("node {0} has not caught up")]
    NotCaughtUp(NodeId),
    /// A node that is needed does not answer, or no majority did in time.
    #[error("node {0} does not answer")]
    Unreachable(NodeId),
    /// The node is no voter of the shard.
    #[error("node {0} does not vote in the shard")]
    NotMember(NodeId),
    /// What is asked for would leave the shard without a majority that has its data.
    #[error("the shard would be left without enough voters: {0}")]
    Unsafe(&'static str),
    /// The replica could not be started or erased.
    #[error("replica: {0}")]
    Replica(String),
}

struct Hint<'a>(&'a Option<NodeId>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(node) => write!(f, "; node {node} may"),
            None => Ok(()),
        }
    }
}

/// How far replicas are, on the owner.
pub(super) struct Progressing<'a>(&'a RaftDataMetrics<u64>);

impl<'a> Progressing<'a> {
    pub(super) fn of(metrics: &'a RaftDataMetrics<u64>) -> Self {
        Self(metrics)
    }

    pub(super) fn has_caught_up(&self, node: NodeId, lag: u64) -> bool {
        let last = self.0.last_log.map_or(0, |id| id.index);
        let replicas = self.0.replication.as_ref();
        replicas
            .and_then(|replicas| replicas.get(&node.0))
            .and_then(|matching| matching.as_ref())
            .is_some_and(|matching| matching.index.saturating_add(lag) >= last)
    }
}

impl Group {
    /// Who belongs to the group, as far as this member knows; `None` before it has heard.
    pub(crate) fn members(&self) -> Option<Members> {
        let server = self.server.borrow().clone();
        let members = server.membership_config.membership();
        let voters: BTreeSet<NodeId> = members.voter_ids().map(NodeId).collect();
        if voters.is_empty() {
            return None;
        }
        let learners: BTreeSet<NodeId> = members.learner_ids().map(NodeId).collect();
        let data = self.raft.data_metrics();
        let data = data.borrow();
        let progress = Progressing::of(&data);
        let leads = server.state == ServerState::Leader;
        let caught_up = voters
            .iter()
            .chain(&learners)
            .filter(|node| leads && progress.has_caught_up(**node, self.config.changes.lag_entries))
            .copied()
            .collect();
        Some(Members {
            voters,
            learners,
            joint: members.get_joint_config().len() > 1,
            caught_up,
        })
    }

    /// Who may know better.
    pub(super) fn not_leader(&self) -> ChangeError {
        let hint = self.leader().map(|leader| NodeId(leader.node_id));
        ChangeError::NotLeader(hint.filter(|node| node.0 != self.node))
    }

    /// Brings the members to what is asked for, in steps each of which is safe by itself: new members learn until they
    /// have caught up, then the voters change in one joint step, then who is left over goes.
    pub(crate) async fn change_members(
        self: &Arc<Self>,
        voters: &BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
    ) -> Result<Changed, ChangeError> {
        let _only = self
            .changing
            .try_lock()
            .map_err(|_held| ChangeError::Busy)?;
        if voters.is_empty() {
            return Err(ChangeError::Unsafe("nobody would vote"));
        }
        let deadline = Instant::now() + self.config.changes.catch_up;
        for step in 0..STEPS_MAX {
            if self.speaks_as().is_none() {
                return Err(self.not_leader());
            }
            let members = self.members().ok_or_else(|| self.not_leader())?;
            if !self
                .change_step(&members, voters, learners, deadline)
                .await?
            {
                let changed = if step == 0 {
                    Changed::Already
                } else {
                    Changed::Done
                };
                return Ok(changed);
            }
        }
        Err(ChangeError::Busy)
    }

    /// One step; false if there is none left.
    async fn change_step(
        self: &Arc<Self>,
        now: &Members,
        voters: &BTreeSet<NodeId>,
        learners: &BTreeSet<NodeId>,
        deadline: Instant,
    ) -> Result<bool, ChangeError> {
        let present: BTreeSet<NodeId> = now.voters.union(&now.learners).copied().collect();
        let wanted: BTreeSet<NodeId> = voters.union(learners).copied().collect();
        let missing: Vec<NodeId> = wanted.difference(&present).copied().collect();
        if !missing.is_empty() {
            let nodes = missing.iter().map(|node| (node.0, EmptyNode {})).collect();
            self.propose_change(ChangeMembers::AddNodes(nodes)).await?;
            return Ok(true);
        }
        if now.joint || now.voters != *voters {
            let new: Vec<NodeId> = voters.difference(&now.voters).copied().collect();
            self.wait_caught_up(&new, self.config.changes.lag_entries, deadline)
                .await?;
            self.wait_ready(&new, deadline).await?;
            self.check_majority(voters)?;
            if !voters.contains(&NodeId(self.node)) {
                return self.leave_first(now, voters).await;
            }
            let ids = voters.iter().map(|node| node.0).collect();
            self.propose_change(ChangeMembers::ReplaceAllVoters(ids))
                .await?;
            return Ok(true);
        }
        let excess: BTreeSet<u64> = present.difference(&wanted).map(|node| node.0).collect();
        if !excess.is_empty() {
            self.propose_change(ChangeMembers::RemoveNodes(excess))
                .await?;
            return Ok(true);
        }
        Ok(false)
    }

    /// New voters have left their probation: the shard must not depend on the votes of who gives none.
    async fn wait_ready(&self, nodes: &[NodeId], deadline: Instant) -> Result<(), ChangeError> {
        let Some(mux) = &self.mux else { return Ok(()) };
        for node in nodes.iter().copied() {
            loop {
                let within = self.config.election_min;
                let ready = mux.ask(node, self.id.0, &Ask::Ready, None, within).await;
                if matches!(ready, Ok(Answer::Done(true))) {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(ChangeError::NotCaughtUp(node));
                }
                if self.speaks_as().is_none() {
                    return Err(self.not_leader());
                }
                sleep(self.config.heartbeat / 4).await;
            }
        }
        Ok(())
    }

    /// The owner itself is to go: somebody who stays becomes the owner first, and has to be asked for the rest. A leader
    /// outside of its own group would be one more way to be wrong.
    async fn leave_first(
        self: &Arc<Self>,
        now: &Members,
        voters: &BTreeSet<NodeId>,
    ) -> Result<bool, ChangeError> {
        let staying: Vec<NodeId> = voters.intersection(&now.voters).copied().collect();
        let heir = staying
            .iter()
            .find(|node| now.caught_up.contains(node))
            .or_else(|| staying.first());
        if let Some(heir) = heir {
            self.hand_over(*heir).await?;
            return Err(ChangeError::NotLeader(Some(*heir)));
        }
        // None of the present voters stays: the new ones come first, beside this one.
        let ids = voters
            .iter()
            .map(|node| node.0)
            .chain([self.node])
            .collect();
        self.propose_change(ChangeMembers::ReplaceAllVoters(ids))
            .await?;
        Ok(true)
    }

    /// A majority of the new voters has the data: the change can be committed, and what is committed stays.
    fn check_majority(&self, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let data = self.raft.data_metrics();
        let data = data.borrow();
        let progress = Progressing::of(&data);
        let lag = self.config.changes.lag_entries;
        let have = voters
            .iter()
            .filter(|node| node.0 == self.node || progress.has_caught_up(**node, lag))
            .count();
        if have > voters.len() / 2 {
            Ok(())
        } else {
            Err(ChangeError::Unsafe("most of the new voters are far behind"))
        }
    }

    /// One change of membership, committed; one of voters, to its uniform end.
    async fn propose_change(
        &self,
        change: ChangeMembers<u64, EmptyNode>,
    ) -> Result<(), ChangeError> {
        let within = self.config.changes.step;
        crash::point("members.before");
        let changing = self.raft.change_membership(change, true);
        let outcome: Result<ClientWriteResponse<Types>, _> = timeout(within, changing)
            .await
            .map_err(|_late| ChangeError::Busy)?;
        crash::point("members.changed");
        let index = match outcome {
            Ok(response) => response.log_id.index,
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                return Err(self.not_leader());
            },
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                return Err(match error {
                    ChangeMembershipError::InProgress(_) => ChangeError::Busy,
                    ChangeMembershipError::EmptyMembership(_) => {
                        ChangeError::Unsafe("nobody would vote")
                    },
                    ChangeMembershipError::LearnerNotFound(missing) => {
                        ChangeError::NotMember(NodeId(missing.node_id))
                    },
                });
            },
            Err(RaftError::Fatal(_)) => {
                self.notice_end();
                return Err(ChangeError::NotLeader(None));
            },
        };
        // What the next step looks at has to show this one.
        let mut server = self.server.clone();
        let seen = server.wait_for(|server| {
            let at = server.membership_config.log_id();
            at.is_some_and(|at| at.index >= index) || server.state != ServerState::Leader
        });
        drop(timeout(within, seen).await);
        Ok(())
    }
}
