//! The steps of one group.
//!
//! The order of a move: the row names the newcomer → the newcomer begins an empty replica → it becomes a learner → its copy
//! is complete → one change of voters lets it in and the leaver out, led by somebody who stays → the leaver erases its
//! replica. At any point somebody else may go on from what is seen.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    steps::{GroupSeen, Limits, Observed, Step},
    target::Target,
};
use crate::{
    cluster::{Assignment, ClusterMap, Node, NodeState},
    ids::{NodeId, ShardId},
};

/// One pass over all groups.
pub(super) struct Round<'a> {
    map: &'a ClusterMap,
    observed: &'a Observed,
    limits: &'a Limits,
    /// Shards whose replicas move.
    pub(super) moving: usize,
    transfers: usize,
    rescues: usize,
    /// Groups that each node leads, or will when it has what was given to it in this pass.
    leads: BTreeMap<NodeId, usize>,
    pub(super) steps: Vec<Step>,
}

impl<'a> Round<'a> {
    pub(super) fn new(map: &'a ClusterMap, observed: &'a Observed, limits: &'a Limits) -> Self {
        let mut round = Self {
            map,
            observed,
            limits,
            moving: 0,
            transfers: 0,
            rescues: 0,
            leads: BTreeMap::new(),
            steps: Vec::new(),
        };
        let shards = map.shards.iter();
        let moving = shards.filter(|(shard, row)| {
            let seen = observed.groups.get(*shard);
            **shard != ShardId::META && seen.is_some_and(|seen| round.moves(row, seen))
        });
        round.moving = moving.count();
        for seen in observed.groups.values() {
            *round.leads.entry(seen.leader).or_default() += 1;
        }
        round
    }

    /// Whether replicas are on their way that somebody can do something about: who waits for a node that is down would
    /// hold up all others.
    fn moves(&self, row: &Assignment, seen: &GroupSeen) -> bool {
        let wanted = row.voters();
        let mut missing = wanted.difference(&seen.voters);
        let comes = missing.any(|node| self.observed.is_up(*node));
        let goes = !seen.voters.is_subset(&wanted) && wanted.is_subset(&seen.voters);
        seen.joint || goes || comes
    }

    /// What to do about one group.
    pub(super) fn group(&mut self, shard: ShardId, row: &Assignment, target: Option<&Target>) {
        let seen = self.observed.groups.get(&shard);
        if let (Some(target), Some(seen)) = (target, seen)
            && self.assign(shard, row, target, seen)
        {
            return;
        }
        self.host(shard, row, seen);
        let Some(seen) = seen else { return };
        self.retire(shard, row, seen);
        if self.rescue(shard, row, seen)
            || self.relieve(shard, row, seen)
            || self.members(shard, row, seen)
        {
            return;
        }
        self.prefer(shard, row, seen);
    }

    /// Makes the row say what it should; true if it does not yet.
    fn assign(
        &mut self,
        shard: ShardId,
        row: &Assignment,
        target: &Target,
        seen: &GroupSeen,
    ) -> bool {
        if row.replicas == target.replicas && row.learners == target.learners {
            return false;
        }
        let replicas: BTreeSet<NodeId> = target.replicas.iter().copied().collect();
        let starts = shard != ShardId::META && replicas != row.voters() && !self.moves(row, seen);
        if starts {
            if self.moving >= self.limits.moving_max {
                return false;
            }
            self.moving += 1;
        }
        self.steps.push(Step::Assign {
            shard,
            replicas: target.replicas.clone(),
            learners: target.learners.clone(),
            epoch: row.epoch,
        });
        true
    }

    /// Begins replicas. Not where the group still counts on one: that node lost its disk, and an empty replica that is
    /// believed to know what it once said could vote twice. It is taken out of the group first.
    fn host(&mut self, shard: ShardId, row: &Assignment, seen: Option<&GroupSeen>) {
        let Some(seen) = seen else { return };
        for node in row.replicas.iter().chain(&row.learners) {
            if self.observed.hosts(*node, shard) == Some(false) && !seen.includes(*node) {
                self.steps.push(Step::Host { node: *node, shard });
            }
        }
    }

    /// Erases replicas that belong to nothing.
    fn retire(&mut self, shard: ShardId, row: &Assignment, seen: &GroupSeen) {
        if seen.joint {
            return;
        }
        for node in self.observed.nodes.keys() {
            let left = !row.includes(*node) && !seen.includes(*node);
            if left && self.observed.hosts(*node, shard) == Some(true) {
                self.steps.push(Step::Retire { node: *node, shard });
            }
        }
    }

    /// Takes the lead from a node that is unfit for it, if somebody is fit; true if that is to be done first.
    fn rescue(&mut self, shard: ShardId, row: &Assignment, seen: &GroupSeen) -> bool {
        if !self.observed.is_unfit(seen.leader) || seen.joint {
            return false;
        }
        let load = |node: &NodeId| self.leads.get(node).copied().unwrap_or_default();
        let fit = self
            .heirs(row, seen)
            .filter(|node| !self.observed.is_unfit(*node));
        let Some(to) = fit.min_by_key(load) else {
            return false;
        };
        if self.rescues < self.limits.rescues_max {
            self.rescues += 1;
            *self.leads.entry(to).or_default() += 1;
            self.steps.push(Step::Transfer {
                leader: seen.leader,
                shard,
                to,
            });
        }
        true
    }

    /// Takes the lead from a node that is being drained; true if that is to be done first.
    fn relieve(&mut self, shard: ShardId, row: &Assignment, seen: &GroupSeen) -> bool {
        let leader = self.map.nodes.get(&seen.leader);
        if leader.is_none_or(|leader| leader.state == NodeState::Active) || seen.joint {
            return false;
        }
        let Some(to) = self.successor(row, seen) else {
            return false;
        };
        self.transfer(shard, seen, to);
        true
    }

    /// Who could lead instead, best first: those who are fit, in the order of the row.
    fn successor(&self, row: &Assignment, seen: &GroupSeen) -> Option<NodeId> {
        self.heirs(row, seen)
            .min_by_key(|node| self.observed.is_unfit(*node))
    }

    /// Who could lead instead, in the order of the row.
    fn heirs<'s>(
        &'s self,
        row: &'s Assignment,
        seen: &'s GroupSeen,
    ) -> impl Iterator<Item = NodeId> + use<'s, 'a> {
        let others = row.replicas.iter().chain(&seen.voters).copied();
        others.filter(move |node| {
            let state = self.map.nodes.get(node).map(|node| node.state);
            *node != seen.leader
                && state == Some(NodeState::Active)
                && seen.voters.contains(node)
                && seen.caught_up.contains(node)
                && self.observed.is_up(*node)
        })
    }

    fn transfer(&mut self, shard: ShardId, seen: &GroupSeen, to: NodeId) {
        if self.transfers < self.limits.transfers_max {
            self.transfers += 1;
            self.steps.push(Step::Transfer {
                leader: seen.leader,
                shard,
                to,
            });
        }
    }

    /// Brings the members nearer to the row; true if they are not there yet.
    fn members(&mut self, shard: ShardId, row: &Assignment, seen: &GroupSeen) -> bool {
        let hosts = |node: &NodeId| self.observed.hosts(*node, shard);
        // Without its replica a member is worse than none. Who is down did not say, and stays.
        let keeps = |node: &NodeId| hosts(node) != Some(false);
        let wanted = row.voters();
        let ready = |node: &NodeId| {
            let votes = !seen.joint && seen.voters.contains(node) && keeps(node);
            let may = seen.includes(*node) && hosts(node) == Some(true);
            votes || (may && seen.caught_up.contains(node))
        };
        let ready: BTreeSet<NodeId> = wanted.iter().copied().filter(ready).collect();
        let present: BTreeSet<NodeId> = seen.voters.iter().copied().filter(keeps).collect();
        // Adding comes before removing: while somebody is missing, nobody goes.
        let complete = ready == wanted;
        let voters: BTreeSet<NodeId> = if complete {
            wanted
        } else {
            ready.union(&present).copied().collect()
        };
        let learners = self.learners(shard, row, seen, &voters);
        if voters == seen.voters && learners == seen.learners && !seen.joint {
            return !complete;
        }
        if !self.has_majority(&voters) {
            return true;
        }
        self.change(shard, row, seen, (voters, learners));
        true
    }

    /// Who should get the log without a vote: who is to, and who is on its way to a vote.
    fn learners(
        &self,
        shard: ShardId,
        row: &Assignment,
        seen: &GroupSeen,
        voters: &BTreeSet<NodeId>,
    ) -> BTreeSet<NodeId> {
        let named = row.learners.iter().chain(&row.replicas).copied();
        let may = |node: &NodeId| match self.observed.hosts(*node, shard) {
            Some(hosts) => hosts,
            None => seen.includes(*node),
        };
        named
            .filter(|node| !voters.contains(node) && may(node))
            .collect()
    }

    fn has_majority(&self, voters: &BTreeSet<NodeId>) -> bool {
        let up = voters.iter().filter(|node| self.observed.is_up(**node));
        up.count() * 2 > voters.len()
    }

    /// A change that its leader survives: whoever leads hands the lead on before it leaves.
    fn change(
        &mut self,
        shard: ShardId,
        row: &Assignment,
        seen: &GroupSeen,
        (mut voters, learners): (BTreeSet<NodeId>, BTreeSet<NodeId>),
    ) {
        let leader = seen.leader;
        if !voters.contains(&leader) {
            let stays = |node: &NodeId| voters.contains(node);
            let to = self.successor(row, seen).filter(stays);
            if let (Some(to), false) = (to, seen.joint) {
                return self.transfer(shard, seen, to);
            }
            voters.insert(leader);
            if voters == seen.voters && learners == seen.learners && !seen.joint {
                return;
            }
        }
        // One after the other: newcomers first learn.
        let known = voters.iter().all(|node| seen.includes(*node));
        debug_assert!(known, "only who learned gets a vote");
        self.steps.push(Step::Change {
            leader,
            shard,
            voters,
            learners,
        });
    }

    /// Gives a shard back to its preferred owner, when all is quiet.
    fn prefer(&mut self, shard: ShardId, row: &Assignment, seen: &GroupSeen) {
        let Some(to) = row.preferred().filter(|to| *to != seen.leader) else {
            return;
        };
        let quiet = |node: NodeId| {
            let seen = self.observed.nodes.get(&node);
            seen.is_some_and(|seen| seen.up && seen.since >= self.limits.stable_for)
        };
        let active = self.map.nodes.get(&to).is_some_and(Node::is_active);
        let knows = seen.voters.contains(&to) && seen.caught_up.contains(&to);
        let fit = knows && !self.observed.is_unfit(to);
        if active && fit && quiet(to) && seen.stable >= self.limits.stable_for {
            self.transfer(shard, seen, to);
        }
    }
}
