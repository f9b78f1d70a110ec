//! How long an owner may speak for its shard without asking.
//!
//! A follower that took an append or a heartbeat refuses its vote to others for a whole lease
//! ([`crate::Config::election_max`]) from then on. Whoever *sent* to a majority less than that ago, and was answered, is
//! the only owner there can be. The margin covers clocks that go at different speeds; the time of sending is always
//! before the time of the follower's taking, so the owner's lease ends first.
//!
//! The owner's own word counts as given now, and so must not be given to anybody else: a vote asked of an owner whose
//! lease holds is refused, and while one is being decided the lease is suspended ([`Lease::deciding`]). What an owner
//! gave away by itself (a transfer, a step down) is over for good in that term ([`Lease::yielded`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use openraft::{EmptyNode, LeaderId, Membership};
use parking_lot::Mutex;

use crate::clock::Moment;

/// The lease of a group's owner; kept on every member, of use on the owner.
#[derive(Debug)]
pub(crate) struct Lease {
    node: u64,
    length: Duration,
    inner: Mutex<Inner>,
    deciding: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Whose answers these are.
    leader: LeaderId<u64>,
    /// When the last append that was answered was sent to each node.
    sent: BTreeMap<u64, Moment>,
    /// Holds until then; worked out from the above when it was last asked.
    until: Moment,
    /// Leaderships up to this one are over, whatever openraft says.
    yielded: Option<LeaderId<u64>>,
}

impl Lease {
    /// Nobody has answered yet. `length` is the followers' promise without the margin.
    pub(crate) fn new(node: u64, length: Duration) -> Self {
        Self {
            node,
            length,
            inner: Mutex::default(),
            deciding: AtomicUsize::new(0),
        }
    }

    /// A node took what the leader sent at that moment.
    pub(crate) fn answered(&self, leader: LeaderId<u64>, node: u64, sent: Moment) {
        let mut inner = self.inner.lock();
        if leader < inner.leader {
            return;
        }
        inner.begin(leader);
        let last = inner.sent.entry(node).or_default();
        *last = sent.max(*last);
    }

    /// Whether this node, leader as `leader`, may speak for the group.
    pub(crate) fn holds(
        &self,
        leader: LeaderId<u64>,
        members: &Membership<u64, EmptyNode>,
        now: Moment,
    ) -> bool {
        if self.deciding.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let mut inner = self.inner.lock();
        if inner.yielded.is_some_and(|yielded| leader <= yielded) {
            return false;
        }
        inner.begin(leader);
        if now >= inner.until {
            let sent = self.quorum_sent(&inner.sent, members, now);
            inner.until = sent.map(|sent| sent.plus(self.length)).unwrap_or_default();
        }
        inner.leader == leader && now < inner.until
    }

    /// When a majority was last heard of, of every set of voters.
    pub(crate) fn last_quorum(
        &self,
        leader: LeaderId<u64>,
        members: &Membership<u64, EmptyNode>,
        now: Moment,
    ) -> Option<Moment> {
        let inner = self.inner.lock();
        if inner.leader != leader {
            return None;
        }
        self.quorum_sent(&inner.sent, members, now)
    }

    fn quorum_sent(
        &self,
        sent: &BTreeMap<u64, Moment>,
        members: &Membership<u64, EmptyNode>,
        now: Moment,
    ) -> Option<Moment> {
        let of_set = |voters: &BTreeSet<u64>| {
            let mut moments: Vec<Moment> = voters
                .iter()
                .filter_map(|voter| {
                    if *voter == self.node {
                        Some(now)
                    } else {
                        sent.get(voter).copied()
                    }
                })
                .collect();
            moments.sort_unstable_by(|a, b| b.cmp(a));
            moments.get(voters.len() / 2).copied()
        };
        let sets = members.get_joint_config();
        if sets.is_empty() {
            return None;
        }
        sets.iter()
            .map(of_set)
            .try_fold(now, |least, set| set.map(|set| set.min(least)))
    }

    /// Until the guard is dropped the lease does not hold: a vote for another may be given meanwhile.
    pub(crate) fn deciding(&self) -> Deciding<'_> {
        self.deciding.fetch_add(1, Ordering::SeqCst);
        Deciding(self)
    }

    /// That leadership is over and does not come back.
    pub(crate) fn yielded(&self, leader: LeaderId<u64>) {
        let mut inner = self.inner.lock();
        inner.yielded = inner.yielded.max(Some(leader));
        inner.until = Moment::default();
    }

    /// Whether that leadership is over, though openraft may go on with it.
    pub(crate) fn is_yielded(&self, leader: LeaderId<u64>) -> bool {
        let yielded = self.inner.lock().yielded;
        yielded.is_some_and(|yielded| leader <= yielded)
    }
}

impl Inner {
    fn begin(&mut self, leader: LeaderId<u64>) {
        if self.leader < leader {
            self.leader = leader;
            self.sent.clear();
            self.until = Moment::default();
        }
    }
}

/// A vote is being decided.
pub(crate) struct Deciding<'a>(&'a Lease);

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.0.deciding.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_millis(800);

    fn members(sets: &[&[u64]]) -> Membership<u64, EmptyNode> {
        let sets: Vec<BTreeSet<u64>> = sets
            .iter()
            .map(|set| set.iter().copied().collect())
            .collect();
        Membership::new(sets, None)
    }

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    const ME: LeaderId<u64> = LeaderId {
        term: 3,
        node_id: 1,
    };

    #[test]
    fn g2_a_lease_lasts_from_the_sending_of_what_a_majority_answered() {
        let lease = Lease::new(1, LENGTH);
        let three = members(&[&[1, 2, 3]]);
        assert!(!lease.holds(ME, &three, at(1000)), "nobody has answered");
        lease.answered(ME, 2, at(1000));
        assert!(lease.holds(ME, &three, at(1799)));
        assert!(!lease.holds(ME, &three, at(1800)));
        lease.answered(ME, 3, at(1500));
        assert!(lease.holds(ME, &three, at(2299)));
        assert!(!lease.holds(ME, &members(&[&[1, 2, 3, 4, 5]]), at(2300)));
    }

    #[test]
    fn g2_both_sets_of_voters_have_to_have_answered() {
        let lease = Lease::new(1, LENGTH);
        let joint = members(&[&[1, 2, 3], &[4, 5, 6]]);
        lease.answered(ME, 2, at(1000));
        lease.answered(ME, 4, at(1000));
        assert!(!lease.holds(ME, &joint, at(1001)));
        lease.answered(ME, 6, at(1000));
        assert!(lease.holds(ME, &joint, at(1001)));
    }

    #[test]
    fn g2_what_was_yielded_or_is_being_decided_does_not_hold() {
        let lease = Lease::new(1, LENGTH);
        let alone = members(&[&[1]]);
        assert!(lease.holds(ME, &alone, at(5)), "alone is a majority");
        let deciding = lease.deciding();
        assert!(!lease.holds(ME, &alone, at(6)));
        drop(deciding);
        assert!(lease.holds(ME, &alone, at(7)));
        lease.yielded(ME);
        assert!(!lease.holds(ME, &alone, at(8)));
        let next = LeaderId { term: 4, ..ME };
        assert!(
            lease.holds(next, &alone, at(9)),
            "a later leadership is new"
        );
        assert!(!lease.holds(ME, &alone, at(10)), "the older one is over");
    }
}
