//! Handing ownership to another member without waiting for a lease.
//!
//! openraft 0.9 has no transfer. Its followers refuse votes while the lease of a *committed* vote lasts
//! (`handle_vote_req`), so the owner has to make them forget it:
//!
//! 1. It takes no more proposals and serves no more reads ([`Group::term`] is `None`), and waits until the target has its
//!    whole log.
//! 2. It yields: from here on this leadership speaks for nothing, whatever happens ([`super::super::lease`]).
//! 3. It asks the other voters to adopt an uncommitted vote above its own ([`Ask::Release`]), and does so itself, which
//!    ends its leadership. No lease is left.
//! 4. It asks the target to campaign at once ([`Ask::TakeOver`]).
//!
//! Why this is safe: the target is elected by a majority like anybody else, and only with a log as long as that of each
//! of its voters, so nothing committed is lost. A lease is a promise to one owner; the promise is given back by that owner
//! itself, before anybody acts on it. If messages are lost after step 2, the shard is without an owner until some member
//! campaigns, this one among them.

use std::sync::{Arc, atomic::Ordering};

use metrics::counter;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use umbel_core::ids::NodeId;
use umbel_storage::crash;

use super::{
    Group,
    members::{ChangeError, Progressing},
};
use crate::{
    metrics as names,
    raft::rpc::{Answer, Ask},
};

/// Lets proposals in again when a transfer ends.
pub(super) struct Fence<'a>(&'a Group);

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        self.0.fenced.store(false, Ordering::Release);
    }
}

impl Group {
    /// Takes no proposals until the fence is dropped.
    pub(super) fn fence(&self) -> Fence<'_> {
        self.fenced.store(true, Ordering::Release);
        Fence(self)
    }

    /// Makes another voter the owner. Until it is, proposals are refused; an error says that nothing has changed, or
    /// that nobody knows yet who comes next.
    pub(crate) async fn transfer(self: &Arc<Self>, to: NodeId) -> Result<(), ChangeError> {
        let _only = self
            .changing
            .try_lock()
            .map_err(|_held| ChangeError::Busy)?;
        self.hand_over(to).await
    }

    /// Makes any other voter that has caught up the owner.
    pub(crate) async fn leave(self: Arc<Self>) {
        let Some(members) = self.members() else {
            return;
        };
        let heirs = members.caught_up.intersection(&members.voters);
        for heir in heirs.filter(|heir| heir.0 != self.node) {
            match self.transfer(*heir).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::debug!(shard = self.id.0, node = heir.0, %error, "the shard stays");
                },
            }
        }
    }

    /// The same, for who holds the lock already.
    pub(super) async fn hand_over(self: &Arc<Self>, to: NodeId) -> Result<(), ChangeError> {
        let outcome = self.try_hand_over(to).await;
        let result = if outcome.is_ok() { "done" } else { "failed" };
        counter!(names::TRANSFERS, "result" => result).increment(1);
        outcome
    }

    async fn try_hand_over(self: &Arc<Self>, to: NodeId) -> Result<(), ChangeError> {
        let leader = self.speaks_as().ok_or_else(|| self.not_leader())?;
        if to.0 == self.node {
            return Ok(());
        }
        let (Some(mux), Some(members)) = (self.mux.clone(), self.members()) else {
            return Err(ChangeError::NotMember(to));
        };
        if !members.voters.contains(&to) {
            return Err(ChangeError::NotMember(to));
        }
        if !mux.reaches(to) {
            return Err(ChangeError::Unreachable(to));
        }
        let deadline = Instant::now() + self.config.changes.transfer;
        // Without the fence first: the owner goes on while the target is still far behind.
        self.wait_caught_up(&[to], self.config.changes.lag_entries, deadline)
            .await?;
        let fence = self.fence();
        // A batch that was let in before the fence comes to its end first: the target has to have it too.
        let written = tokio::time::timeout_at(deadline, self.writing.lock()).await;
        let _written = written.map_err(|_late| ChangeError::Busy)?;
        self.wait_caught_up(&[to], 0, deadline).await?;
        if self.speaks_as() != Some(leader) {
            return Err(self.not_leader());
        }
        let vote = self.server.borrow().vote;
        self.lease.yielded(leader);
        crash::point("transfer.yielded");
        let mut asked = JoinSet::new();
        let others = members
            .voters
            .iter()
            .filter(|voter| **voter != to && voter.0 != self.node);
        for voter in others.copied() {
            let (mux, group, within) = (Arc::clone(&mux), self.id.0, self.config.heartbeat);
            asked.spawn(async move {
                let ask = Ask::Release { vote: vote.into() };
                mux.ask(voter, group, &ask, None, within).await
            });
        }
        while asked.join_next().await.is_some() {}
        // Not waited for longer than that: a slow disk is a reason to hand over. The heir's vote ends this leadership too,
        // and it speaks for nothing already.
        let group = Arc::clone(self);
        let mut forgetting = tokio::spawn(async move { group.forget(leader).await });
        drop(timeout(self.config.heartbeat, &mut forgetting).await);
        crash::point("transfer.forgotten");
        let ask = Ask::TakeOver { vote: vote.into() };
        let within = self.config.election_min;
        let outcome = mux.ask(to, self.id.0, &ask, None, within).await;
        drop(fence);
        match outcome {
            Ok(Answer::Done(true)) => Ok(()),
            Ok(_) => Err(ChangeError::Unreachable(to)),
            Err(error) => {
                tracing::warn!(shard = self.id.0, node = to.0, %error, "the new owner did not answer");
                Err(ChangeError::Unreachable(to))
            },
        }
    }

    pub(super) async fn wait_caught_up(
        &self,
        nodes: &[NodeId],
        lag: u64,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        let mut metrics = self.raft.data_metrics();
        loop {
            let behind = {
                let now = metrics.borrow_and_update();
                let progress = Progressing::of(&now);
                nodes
                    .iter()
                    .find(|node| !progress.has_caught_up(**node, lag))
                    .copied()
            };
            let Some(behind) = behind else { return Ok(()) };
            if self.speaks_as().is_none() {
                return Err(self.not_leader());
            }
            match tokio::time::timeout_at(deadline, metrics.changed()).await {
                Ok(Ok(())) => {},
                Ok(Err(_)) => return Err(self.not_leader()),
                Err(_) => return Err(ChangeError::NotCaughtUp(behind)),
            }
        }
    }
}
