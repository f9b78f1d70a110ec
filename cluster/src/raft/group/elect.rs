//! When a member campaigns, and when an owner gives up.
//!
//! All groups of a node are looked at by one task ([`crate::conductor`]), which also beats their hearts. A campaign has
//! two steps: first the others are asked whether they *would* vote, which changes nothing anywhere, and only with a
//! majority of yes does openraft ask for votes in a new term. So a node that cannot be heard, or that comes back with an
//! old log, disturbs nobody.
//!
//! How long a member waits after the lease that it granted is over:
//!
//! * The link to the leader is down, or nothing was ever heard of one: no longer than its rank among the voters asks
//!   for, so that there is one candidate and not two. Ranks differ from shard to shard, so that a dead node's shards
//!   find different owners.
//! * Otherwise a random time, as Raft has it, and again after each attempt that failed.
//! * Where the disk is slow, two leases more.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use metrics::counter;
use openraft::{EmptyNode, LeaderId, Membership, ServerState};
use tokio::{task::JoinSet, time::timeout};
use umbel_core::ids::{NodeId, Term};
use umbel_storage::{Owner, crash};

use super::Group;
use crate::{
    clock::Moment,
    metrics as names,
    raft::{
        rpc::{Answer, Ask},
        types,
    },
};

/// What a member knows of its leader, and when it campaigns.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Until then this member has promised to elect nobody but the leader it heard.
    promised: Moment,
    /// When the last append of a leader was taken, and whose.
    heard: Option<(LeaderId<u64>, Moment)>,
    /// How often this member stood for election.
    elections: u64,
    /// When the leader's silence was first put down to its being gone.
    prompted: Option<Moment>,
    /// When to campaign if nothing else says so.
    fallback: Option<Moment>,
    /// Not before then: an attempt has failed.
    not_before: Moment,
    /// Since when this node leads, if it does.
    leading: Option<(LeaderId<u64>, Moment)>,
    /// Since when this node has led without the right to speak, which it gave away.
    mute: Option<Moment>,
    /// How many campaigns are on their way into openraft's queue; see [`Timers::stand`].
    standing: u32,
    /// Whether it could speak for the group when it was last looked at.
    spoke: bool,
}

/// What a look at a group asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Nothing.
    Wait,
    /// This node leads: its followers have to hear of it.
    Beat,
    /// This node leads and hears nobody: others may, if they are let.
    StepDown,
    /// There is no leader: try to become one.
    Campaign,
}

impl Timers {
    /// A group that had a leader once may have heard of it a moment before this node was started.
    pub(super) fn new(promised: Moment) -> Self {
        Self {
            promised,
            heard: None,
            elections: 0,
            prompted: None,
            fallback: None,
            not_before: Moment::default(),
            leading: None,
            mute: None,
            standing: 0,
            spoke: false,
        }
    }

    /// How often this member stood for election. An append that was taken before it did must not be answered after it:
    /// the answer is a promise that was not kept.
    pub(super) fn elections(&self) -> u64 {
        self.elections
    }

    /// A leader's append was taken, and its answer promises not to elect another for a while. False if this member
    /// stood for election itself meanwhile, or is about to.
    pub(super) fn heard(&mut self, leader: LeaderId<u64>, lease: Duration, elections: u64) -> bool {
        if elections != self.elections || self.standing > 0 {
            return false;
        }
        let now = Moment::now();
        self.heard = Some((leader, now));
        self.promised = self.promised.max(now.plus(lease));
        self.prompted = None;
        self.fallback = None;
        self.not_before = Moment::default();
        true
    }

    /// A vote was given to a candidate, or a leader let go: the promise to whoever led before is over, and whoever comes
    /// next gets some time.
    pub(super) fn released(&mut self, upto: LeaderId<u64>) {
        if self.heard.is_none_or(|(heard, _)| heard <= upto) {
            self.promised = Moment::default();
        }
        self.prompted = None;
        self.fallback = None;
    }

    /// Stands for election, unless that was promised not to happen; `despite` is the leader that gives back the promise
    /// it was given. Until [`Timers::stood`] no append is answered: openraft may take one before it hears of the campaign,
    /// and a promise given then would be broken at once.
    pub(super) fn stand(&mut self, despite: Option<LeaderId<u64>>) -> bool {
        // What was promised to a later leader is not for an earlier one to give back.
        let given_back = despite.is_some_and(|leader| {
            let heard = self.heard.map(|(heard, _)| heard);
            heard.is_none_or(|heard| heard <= leader)
        });
        if !given_back && Moment::now() < self.promised {
            return false;
        }
        self.elections += 1;
        self.standing += 1;
        true
    }

    /// The campaign is in openraft's queue: whatever it takes from here on, it takes after it.
    pub(super) fn stood(&mut self) {
        self.elections += 1;
        self.standing -= 1;
    }
}

impl Group {
    /// What is to be done now. `down` says whether the link to a node is down.
    pub(crate) fn look(&self, now: Moment, down: impl Fn(NodeId) -> bool) -> Act {
        let server = self.server.borrow().clone();
        let members = server.membership_config.membership();
        let mut timers = self.timers.lock();
        if server.state == ServerState::Leader {
            // openraft may not get to hear of it while the disk does not answer: once is enough.
            if self.stepping_down.load(Ordering::Acquire) {
                return Act::Wait;
            }
            let act = self.look_as_leader(&mut timers, server.vote.leader_id, members, now);
            if act == Act::StepDown {
                self.stepping_down.store(true, Ordering::Release);
            }
            return act;
        }
        (timers.leading, timers.mute, timers.spoke) = (None, None, false);
        let voters: BTreeSet<u64> = members.voter_ids().collect();
        if !voters.contains(&self.node)
            || server.state == ServerState::Shutdown
            || self.campaigning.load(Ordering::Acquire)
            || self.is_quarantined()
            || (self.is_on_probation() && voters.len() > 1)
        {
            return Act::Wait;
        }
        let leader = server.vote.committed.then_some(server.vote.leader_id);
        if now < timers.promised {
            (timers.prompted, timers.fallback) = (None, None);
            return Act::Wait;
        }
        let prompted = leader
            .is_some_and(|leader| timers.heard.is_none() || down(NodeId(leader.node_id)))
            || voters.len() == 1;
        let due = if prompted {
            let since = *timers.prompted.get_or_insert(now);
            since.plus(self.stagger(&voters, leader))
        } else {
            let wait = self.random_timeout();
            *timers.fallback.get_or_insert_with(|| now.plus(wait))
        };
        if now < due || now < timers.not_before {
            return Act::Wait;
        }
        // Nobody gains by an owner whose disk is slow: the others may go first.
        let handicap = self.config.election_max.saturating_mul(2);
        if now < due.plus(handicap) && self.log.pace().is_slow {
            return Act::Wait;
        }
        self.campaigning.store(true, Ordering::Release);
        Act::Campaign
    }

    fn look_as_leader(
        &self,
        timers: &mut Timers,
        leader: LeaderId<u64>,
        members: &Membership<u64, EmptyNode>,
        now: Moment,
    ) -> Act {
        let since = match timers.leading {
            Some((known, since)) if known == leader => since,
            Some(_) | None => {
                (timers.leading, timers.mute) = (Some((leader, now)), None);
                timers.spoke = false;
                now
            },
        };
        // A transfer gave this leadership away and did not come to its end: its followers would keep to it for ever.
        if self.lease.is_yielded(leader) && !self.fenced.load(Ordering::Acquire) {
            let mute = *timers.mute.get_or_insert(now);
            if now.since(mute) > self.config.election_min {
                return Act::StepDown;
            }
        } else {
            timers.mute = None;
        }
        self.note_speaking(timers, leader, members, now);
        // Two whole leases without a word: whoever could still hear this node would wait for it for ever.
        let quorum = self.lease.last_quorum(leader, members, now);
        let heard = quorum.map_or(since, |quorum| quorum.max(since));
        if now.since(heard) > self.config.election_max.saturating_mul(2) {
            return Act::StepDown;
        }
        Act::Beat
    }

    /// Counts a leader that may not speak any more although it gave nothing away.
    fn note_speaking(
        &self,
        timers: &mut Timers,
        leader: LeaderId<u64>,
        members: &Membership<u64, EmptyNode>,
        now: Moment,
    ) {
        let speaks = self.lease.holds(leader, members, now);
        let yielded = self.fenced.load(Ordering::Acquire) || self.lease.is_yielded(leader);
        if timers.spoke && !speaks && !yielded {
            counter!(names::LEASES_LOST).increment(1);
        }
        timers.spoke = speaks;
    }

    /// How much of the promise to a leader is left: until then no vote for anybody else.
    pub(super) fn promised(&self) -> Duration {
        self.timers.lock().promised.since(Moment::now())
    }

    /// The leader this member follows, if it was heard within the last lease.
    pub(crate) fn leader(&self) -> Option<LeaderId<u64>> {
        if let Some(leader) = self.speaks_as() {
            return Some(leader);
        }
        let server = self.server.borrow();
        let (vote, own) = (server.vote, server.vote.leader_id.node_id == self.node);
        drop(server);
        let (leader, at) = self.timers.lock().heard?;
        let fresh = Moment::now() < at.plus(self.config.election_max);
        (vote.committed && !own && vote.leader_id == leader && fresh).then_some(leader)
    }

    /// The owner this member knows of: itself while it serves, or the leader it heard of last.
    pub(crate) fn owner(&self) -> Option<Owner> {
        let own = self.term().map(|term| Owner {
            node: NodeId(self.node),
            term,
        });
        own.or_else(|| {
            let leader = self.leader().filter(|leader| leader.node_id != self.node)?;
            Some(Owner {
                node: NodeId(leader.node_id),
                term: Term(types::owner_term(leader)),
            })
        })
    }

    /// Says to the followers that the leader is there.
    pub(crate) async fn beat(&self) {
        // An error means that the group has ended, which others notice too.
        drop(self.raft.trigger().heartbeat().await);
    }

    /// Gives up a leadership that no majority answers to, or that was given away already.
    pub(crate) async fn step_down(&self) {
        self.try_step_down().await;
        self.stepping_down.store(false, Ordering::Release);
    }

    async fn try_step_down(&self) {
        let leader = {
            let server = self.server.borrow();
            let leads = server.state == ServerState::Leader && server.vote.committed;
            leads.then_some(server.vote.leader_id)
        };
        if let Some(leader) = leader {
            if self.lease.is_yielded(leader) {
                tracing::info!(
                    shard = self.id.0,
                    "a hand-over was not finished: this node stops owning the shard"
                );
            } else {
                tracing::warn!(
                    shard = self.id.0,
                    "no majority of the shard's voters answers: this node stops owning it"
                );
            }
            counter!(names::STEP_DOWNS).increment(1);
            self.forget(leader).await;
        }
    }

    /// Asks for votes, if a majority would give theirs.
    pub(crate) async fn campaign(self: Arc<Self>) {
        let may = !self.is_on_probation() || self.is_alone_indeed().await;
        let would = may && self.would_win().await;
        let won = would && self.elect(None).await;
        let outcome = match (would, won) {
            (_, true) => "won",
            (true, false) => "lost",
            (false, false) => "denied",
        };
        counter!(names::ELECTIONS, "outcome" => outcome).increment(1);
        let wait = if won {
            Duration::ZERO
        } else {
            self.random_timeout() / 2
        };
        let mut timers = self.timers.lock();
        timers.not_before = Moment::now().plus(wait);
        timers.fallback = None;
        drop(timers);
        self.campaigning.store(false, Ordering::Release);
    }

    /// Asks for votes in a new term, and says whether this node got them. `despite` is the leader that asked it to: the
    /// promise it was given is given back.
    pub(super) async fn elect(&self, despite: Option<LeaderId<u64>>) -> bool {
        if !self.timers.lock().stand(despite) {
            return false;
        }
        crash::point("elect.before");
        let told = self.raft.trigger().elect().await;
        self.timers.lock().stood();
        if told.is_err() {
            self.notice_end();
            return false;
        }
        let mut server = self.server.clone();
        let won =
            server.wait_for(|server| server.state == ServerState::Leader && server.vote.committed);
        let won = timeout(self.config.election_min, won).await;
        crash::point("elect.after");
        won.is_ok_and(|won| won.is_ok())
    }

    async fn would_win(&self) -> bool {
        let members = self.server.borrow().membership_config.membership().clone();
        let mut yes = BTreeSet::from([self.node]);
        if is_quorum(&members, &yes) {
            return true;
        }
        let Some(mux) = &self.mux else { return false };
        let mut asked = JoinSet::new();
        for voter in members.voter_ids().filter(|voter| *voter != self.node) {
            let (mux, group) = (Arc::clone(mux), self.id.0);
            let within = self.config.election_min * 2 / 3;
            let last = self.last_place();
            asked.spawn(async move {
                let ask = Ask::WouldVote { last };
                (
                    voter,
                    mux.ask(NodeId(voter), group, &ask, None, within).await,
                )
            });
        }
        while let Some(answered) = asked.join_next().await {
            if let Ok((voter, Ok(Answer::WouldVote { yes: true, .. }))) = answered {
                yes.insert(voter);
                if is_quorum(&members, &yes) {
                    return true;
                }
            }
        }
        false
    }

    /// How long this voter lets others go first.
    fn stagger(&self, voters: &BTreeSet<u64>, leader: Option<LeaderId<u64>>) -> Duration {
        let place = |voter: u64| {
            let mut hasher = DefaultHasher::new();
            (self.id.0, voter).hash(&mut hasher);
            hasher.finish()
        };
        let others = voters
            .iter()
            .filter(|voter| leader.is_none_or(|leader| leader.node_id != **voter));
        let before = others
            .filter(|voter| place(**voter) < place(self.node))
            .count();
        let step = self.config.heartbeat;
        step.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX))
    }

    fn random_timeout(&self) -> Duration {
        rand::random_range(self.config.election_min..self.config.election_max)
    }
}

/// Whether these are a majority of every set of voters.
pub(super) fn is_quorum(members: &Membership<u64, EmptyNode>, of: &BTreeSet<u64>) -> bool {
    let sets = members.get_joint_config();
    !sets.is_empty()
        && sets
            .iter()
            .all(|voters| voters.intersection(of).count() > voters.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_mins(1);
    const FIRST: LeaderId<u64> = LeaderId {
        term: 3,
        node_id: 1,
    };
    const NEXT: LeaderId<u64> = LeaderId {
        term: 4,
        node_id: 2,
    };

    /// G2: openraft takes this member's campaign from a queue, and may take an append before it that came later.
    #[test]
    fn g2_who_stands_promises_nothing_until_openraft_has_heard_of_it() {
        let mut timers = Timers::new(Moment::default());
        let before = timers.elections();
        assert!(timers.stand(None));
        let meanwhile = timers.elections();
        assert!(!timers.heard(FIRST, LEASE, before), "taken before it stood");
        assert!(
            !timers.heard(FIRST, LEASE, meanwhile),
            "maybe taken before the campaign was"
        );
        timers.stood();
        assert!(
            !timers.heard(FIRST, LEASE, meanwhile),
            "the same, told later"
        );
        assert!(timers.heard(NEXT, LEASE, timers.elections()));
        assert!(!timers.stand(None), "a promise is kept");
    }

    /// G2: a word of an earlier leader that came late does not break the promise that a later one was given.
    #[test]
    fn g2_a_promise_is_given_back_by_whom_it_was_given_to_or_by_a_later_leader() {
        let mut timers = Timers::new(Moment::default());
        assert!(timers.heard(NEXT, LEASE, timers.elections()));
        assert!(!timers.stand(Some(FIRST)));
        assert!(timers.stand(Some(NEXT)));
    }
}
