//! What a member answers to other members.

use std::sync::Arc;

use openraft::{LeaderId, ServerState, Vote, raft::AppendEntriesRequest};
use tokio::sync::Semaphore;
use umbel_core::ids::NodeId;
use umbel_storage::crash;

use super::Group;
use crate::raft::{
    rpc::{self, Answer, Append, Appended, Ask, Place, VoteSeen},
    types::{Id, NODE_MAX, Types},
};

/// Appends in openraft's hands at a time. Its queue has no end, and its core takes nothing while a disk is full or does
/// not answer; a leader sends what was not answered again, megabytes at a time. Who is refused hears that the group does
/// not run just now, and waits a little longer.
pub(super) const APPENDS_MAX: usize = 2;
/// The same for what candidates and departing leaders ask.
pub(super) const VOTES_MAX: usize = 8;

impl Group {
    /// Answers another member.
    pub(crate) async fn answer(self: Arc<Self>, from: NodeId, ask: Ask, vouched: bool) -> Answer {
        // Who may have forgotten what it promised gets no vote, and who may have forgotten itself gives none.
        let may_vote = vouched && !self.is_on_probation();
        let hands = match &ask {
            Ask::Append(_) => Some(&self.appending),
            Ask::Vote { .. } | Ask::Release { .. } => Some(&self.voting),
            Ask::WouldVote { .. }
            | Ask::TakeOver { .. }
            | Ask::Speaks
            | Ask::Ready
            | Ask::Met { .. } => None,
        };
        let held = hands.map(Semaphore::try_acquire).transpose();
        let Ok(_held) = held else {
            return Answer::NoGroup;
        };
        match ask {
            Ask::Append(append) => self.append(append).await,
            Ask::Vote { vote, last } => self.vote(vote, last, may_vote).await,
            Ask::WouldVote { last } => self.would_vote(last, may_vote),
            Ask::Release { vote } => Answer::Done(self.release(from, vote.into()).await),
            Ask::TakeOver { vote } => Answer::Done(self.take_over(from, vote.into()).await),
            Ask::Speaks => Answer::Done(self.speaks_as().is_some()),
            Ask::Ready => Answer::Done(!self.is_on_probation()),
            Ask::Met { .. } => Answer::NotUnderstood,
        }
    }

    async fn append(self: &Arc<Self>, append: Append) -> Answer {
        let leader = Vote::from(append.vote);
        let request = match append.request() {
            Ok(request) => request,
            Err(error) => {
                // Never skipped: those who understand it would go on with other rows.
                self.machine
                    .quarantine(format!("an entry of the leader is not understood: {error}"));
                return Answer::NotUnderstood;
            },
        };
        let elections = self.elections();
        let committed = request.leader_commit;
        let Ok(response) = self.raft.append_entries(request).await else {
            self.notice_end();
            return Answer::NoGroup;
        };
        let answer = Appended::from(response);
        let refused = matches!(answer, Appended::HigherVote(_));
        if refused || self.heard(leader.leader_id, elections) {
            if !refused {
                self.look_at_probation(leader.leader_id, committed);
            }
            Answer::Append(answer)
        } else {
            Answer::NotUnderstood
        }
    }

    /// See [`super::elect::Timers::elections`].
    pub(in crate::raft) fn elections(&self) -> u64 {
        self.timers.lock().elections()
    }

    /// A leader's word was taken. False if it must not be answered.
    pub(in crate::raft) fn heard(&self, leader: LeaderId<u64>, elections: u64) -> bool {
        let lease = self.config.election_max;
        self.timers.lock().heard(leader, lease, elections)
    }

    /// A vote is refused while this node may speak as owner: its own word is part of its lease. Otherwise openraft
    /// decides, and refuses while a lease that this node granted is not over.
    async fn vote(&self, vote: VoteSeen, last: Option<Place>, may: bool) -> Answer {
        let mine = self.server.borrow().vote;
        let refused = || Answer::Vote {
            vote: mine.into(),
            granted: false,
            last: self.last_place(),
        };
        if !may || self.speaks_as().is_some() || !self.promised().is_zero() {
            return refused();
        }
        let deciding = self.lease.deciding();
        let request = rpc::vote_request(vote, last);
        let candidate = request.vote.leader_id;
        let outcome = self.raft.vote(request).await;
        let Ok(response) = outcome else {
            self.notice_end();
            return Answer::NoGroup;
        };
        if response.vote_granted {
            // Every leadership before that one is over here, also where openraft has not said so yet.
            self.lease.yielded(before(candidate));
            self.timers.lock().released(before(candidate));
        }
        drop(deciding);
        rpc::vote_answer(&response)
    }

    fn would_vote(&self, last: Option<Place>, may: bool) -> Answer {
        let no = |after_millis| Answer::WouldVote {
            yes: false,
            after_millis,
        };
        if self.server.borrow().state == ServerState::Leader && self.speaks_as().is_some() {
            return no(millis(self.config.heartbeat));
        }
        if !may {
            return no(millis(self.config.election_min));
        }
        let promised = self.promised();
        if !promised.is_zero() {
            return no(millis(promised));
        }
        if last.map(Id::from) < self.last_id() {
            return no(0);
        }
        Answer::WouldVote {
            yes: true,
            after_millis: 0,
        }
    }

    /// The last entry of the log, as openraft last said.
    pub(super) fn last_id(&self) -> Option<Id> {
        self.raft.data_metrics().borrow().last_log
    }

    pub(super) fn last_place(&self) -> Option<Place> {
        self.last_id().map(Place::from)
    }

    /// The leader of `vote` gives up the lease that this node granted it.
    async fn release(&self, from: NodeId, vote: Vote<u64>) -> bool {
        let mine = self.server.borrow().vote;
        if !vote.committed || vote.leader_id.node_id != from.0 || mine != vote {
            return false;
        }
        self.forget(vote.leader_id).await
    }

    /// Adopts an uncommitted vote above that leadership and below every election to come: {same term, no node}. openraft
    /// then knows no leader and no lease, and if this node was that leader, it is not any more.
    ///
    /// The way there is an append with that vote, behind a place in the log that cannot exist: openraft takes the vote,
    /// finds that the entries do not follow, has nothing to cut off, and says so. It is what a member does that gives
    /// its vote to a candidate which then dies, so it is as safe as that.
    pub(super) async fn forget(&self, leader: LeaderId<u64>) -> bool {
        self.lease.yielded(leader);
        let nobody = Vote::new(leader.term, NODE_MAX + 1);
        let nowhere = Id {
            leader_id: openraft::CommittedLeaderId::new(leader.term, NODE_MAX + 1),
            index: u64::MAX - 1,
        };
        let request = AppendEntriesRequest::<Types> {
            vote: nobody,
            prev_log_id: Some(nowhere),
            entries: Vec::new(),
            leader_commit: None,
        };
        let taken = self.raft.append_entries(request).await;
        if taken.is_err() {
            self.notice_end();
        }
        self.timers.lock().released(leader);
        taken.is_ok_and(|response| response.is_conflict())
    }

    /// The leader of `vote` gave up in favour of this node: it campaigns at once.
    async fn take_over(&self, from: NodeId, vote: Vote<u64>) -> bool {
        let mine = self.server.borrow().vote;
        let known = mine.leader_id.term == vote.leader_id.term && vote.leader_id.node_id == from.0;
        if !known || self.machine.is_quarantined() || self.is_on_probation() {
            return false;
        }
        crash::point("transfer.taken");
        self.elect(Some(vote.leader_id)).await
    }
}

/// All leaderships below that one: in openraft's order, a lower node in the same term.
fn before(leader: LeaderId<u64>) -> LeaderId<u64> {
    match leader.node_id.checked_sub(1) {
        Some(node) => LeaderId::new(leader.term, node),
        None => LeaderId::new(leader.term.saturating_sub(1), u64::MAX),
    }
}

fn millis(span: std::time::Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}
