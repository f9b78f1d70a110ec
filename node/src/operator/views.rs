//! Nodes and shards as an operator sees them: what the map says should be, beside what each node says is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use umbel_core::{
    cluster::{self, ClusterMap, NodeState as Stage},
    ids::{NodeId, ShardId},
    placement::REPLICAS,
};
use umbel_http::operator::{Cluster, Copy, Node, NodeState, Shard, ShardState};
use umbel_storage::nodes::{Peer, Reach};

use super::report::{CopyReport, Report};

/// Entries from which on a copy counts as far behind. A batch or two is usual under load.
const LAG_MAX: u64 = 1000;

/// Everything that is known at one moment.
pub(crate) struct World {
    pub(crate) me: NodeId,
    /// What should be.
    pub(crate) map: Arc<ClusterMap>,
    /// Who can be spoken to.
    pub(crate) peers: Vec<Peer>,
    /// What was said, this node's own words included.
    pub(crate) reports: BTreeMap<NodeId, Report>,
}

impl World {
    pub(crate) fn cluster(&self) -> Cluster {
        let count = |n: usize| n as u64;
        let (nodes, shards) = (self.nodes(), self.shards());
        let up = |node: &&Node| !matches!(node.state, NodeState::Down | NodeState::Unreachable);
        let served =
            |shard: &&Shard| !matches!(shard.state, ShardState::NoQuorum | ShardState::NoOwner);
        Cluster {
            id: self
                .map
                .identity
                .map(|identity| identity.cluster.to_string()),
            me: self.me.0,
            meta_leader: self.owner(ShardId::META).map(|(node, _)| node.0),
            map_version: self.map.counters.revision,
            nodes: count(nodes.len()),
            nodes_up: count(nodes.iter().filter(up).count()),
            shards: count(shards.len()),
            shards_served: count(shards.iter().filter(served).count()),
            shards_ok: count(shards.iter().filter(|s| s.state == ShardState::Ok).count()),
        }
    }

    pub(crate) fn nodes(&self) -> Vec<Node> {
        let members = self.map.members();
        members.map(|(id, node)| self.node(id, node)).collect()
    }

    pub(crate) fn shards(&self) -> Vec<Shard> {
        let shards = self.map.shards.keys().filter(|id| **id != ShardId::META);
        shards.map(|id| self.shard(*id)).collect()
    }

    fn node(&self, id: NodeId, node: &cluster::Node) -> Node {
        let report = self.reports.get(&id);
        let (state, why) = self.judge(id, node, report);
        let copies = report.map_or(&[][..], |report| &report.copies);
        let copies = copies.iter().filter(|copy| copy.shard != ShardId::META);
        let behind = |copy: &CopyReport| self.lag(copy).unwrap_or_default();
        let profile = &node.profile;
        let roles = profile.roles.to_string();
        // Port 0 is where a node that is alone is not reached.
        let address = profile.addresses.link;
        Node {
            id: id.0,
            state,
            why,
            is_me: id == self.me,
            draining: matches!(node.state, Stage::Draining | Stage::Drained),
            address: (address.port() != 0).then(|| address.to_string()),
            zone: profile.zone.clone(),
            roles: roles.split(',').map(str::to_owned).collect(),
            version: report.map(|report| report.version.clone()),
            meta: self.part_in_meta(id),
            owned: copies.clone().filter(|copy| copy.term.is_some()).count() as u64,
            copies: copies.clone().count() as u64,
            lag: copies.map(behind).sum(),
            connections: report.map_or(0, |report| report.connections),
            started_at: report.map(|report| report.started_at.into()),
        }
    }

    /// How well a node is, and what is wrong with it, the worst first.
    fn judge(
        &self,
        id: NodeId,
        node: &cluster::Node,
        report: Option<&Report>,
    ) -> (NodeState, Vec<String>) {
        let Some(report) = report else {
            return self.absent(id, node);
        };
        let mut why = report.ailments.clone();
        let running = |copy: &&CopyReport| !copy.is_running();
        for copy in report.copies.iter().filter(running) {
            let detail = copy.damage.as_deref().unwrap_or("its group is stopped");
            why.push(format!("shard {}: {detail}", name(copy.shard)));
        }
        let far = |copy: &&CopyReport| self.lag(copy).is_some_and(|lag| lag > LAG_MAX);
        let late = report.copies.iter().filter(far).count();
        if late > 0 {
            why.push(format!("{late} copies are far behind"));
        }
        let is_sound = why.is_empty();
        let is_led =
            !self.map.shards.contains_key(&ShardId::META) || self.owner(ShardId::META).is_some();
        if !is_led {
            why.push("it belongs to no majority of the cluster".to_owned());
        }
        let stage = match node.state {
            Stage::Draining => Some("it is being emptied".to_owned()),
            Stage::Drained => Some("it is empty and may be stopped or removed".to_owned()),
            Stage::Joining | Stage::Active | Stage::Removed => None,
        };
        why.extend(stage);
        let verdict = match (is_sound, node.state) {
            (false, _) => NodeState::Degraded,
            (true, Stage::Draining) => NodeState::Draining,
            (true, Stage::Drained) => NodeState::Drained,
            (true, Stage::Joining | Stage::Active | Stage::Removed) if !is_led => {
                NodeState::Degraded
            },
            (true, Stage::Joining | Stage::Active | Stage::Removed) => NodeState::Up,
        };
        (verdict, why)
    }

    /// A node that said nothing.
    fn absent(&self, id: NodeId, node: &cluster::Node) -> (NodeState, Vec<String>) {
        if node.state == Stage::Joining {
            let why = "it was let in and has not been started yet";
            return (NodeState::Down, vec![why.to_owned()]);
        }
        let peer = self.peers.iter().find(|peer| peer.node == id);
        let (state, why) = match peer.map(|peer| peer.reach) {
            Some(Reach::Connected) => {
                (NodeState::Degraded, "its link is up and it does not answer")
            },
            Some(Reach::Unreachable) => (
                NodeState::Unreachable,
                "the link to it is down, for a moment or for longer",
            ),
            Some(Reach::Gone) | None => (NodeState::Down, "there is no link to it"),
        };
        (state, vec![why.to_owned()])
    }

    fn part_in_meta(&self, id: NodeId) -> Option<String> {
        let row = self.map.shards.get(&ShardId::META)?;
        if self.owner(ShardId::META).map(|(owner, _)| owner) == Some(id) {
            return Some("leader".to_owned());
        }
        let part = match (row.replicas.contains(&id), row.learners.contains(&id)) {
            (true, _) => "voter",
            (false, true) => "learner",
            (false, false) => return None,
        };
        Some(part.to_owned())
    }

    /// Who owns a shard: of those that say so, the one with the highest term.
    fn owner(&self, shard: ShardId) -> Option<(NodeId, &CopyReport)> {
        let copies = self.copies(shard);
        let owners = copies.filter(|(_, copy)| copy.term.is_some());
        owners.max_by_key(|(_, copy)| copy.term)
    }

    fn copies(&self, shard: ShardId) -> impl Iterator<Item = (NodeId, &CopyReport)> {
        self.reports.iter().filter_map(move |(node, report)| {
            let copy = report.copies.iter().find(|copy| copy.shard == shard)?;
            Some((*node, copy))
        })
    }

    /// Entries a copy is behind the owner's log.
    fn lag(&self, copy: &CopyReport) -> Option<u64> {
        let (_, owner) = self.owner(copy.shard)?;
        Some(owner.last_log?.saturating_sub(copy.applied))
    }

    fn shard(&self, id: ShardId) -> Shard {
        let planned = self.map.shards.get(&id);
        let preferred = planned.and_then(cluster::Assignment::preferred);
        let plan: BTreeSet<NodeId> = planned
            .into_iter()
            .flat_map(|row| row.replicas.iter().chain(&row.learners).copied())
            .collect();
        let owner = self.owner(id);
        let (voters, learners) = self.members(id).unwrap_or_else(|| {
            let row = planned.cloned().unwrap_or_default();
            (row.replicas, row.learners)
        });
        let holders: BTreeSet<NodeId> = voters.iter().chain(&learners).copied().collect();
        let (state, why) = self.judge_shard(id, &voters, &holders, &plan);
        Shard {
            id: id.0,
            state,
            why,
            owner: owner.map(|(node, _)| node.0),
            preferred: preferred.map(|node| node.0),
            term: owner.and_then(|(_, copy)| Some(copy.term?.0)),
            copies: holders.iter().map(|node| self.copy(id, *node)).collect(),
            planned: plan.iter().map(|node| node.0).collect(),
        }
    }

    fn copy(&self, shard: ShardId, node: NodeId) -> Copy {
        let found = self.copies(shard).find(|(holder, _)| *holder == node);
        let Some((_, copy)) = found else {
            return Copy {
                node: node.0,
                role: "unknown".to_owned(),
                applied: None,
                lag: None,
                damage: None,
            };
        };
        Copy {
            node: node.0,
            role: copy.role.clone(),
            applied: Some(copy.applied),
            lag: self.lag(copy),
            damage: copy.damage.clone(),
        }
    }

    /// Who votes and who listens, in the words of the owner, or of the copy that is furthest.
    fn members(&self, shard: ShardId) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let owner = self.owner(shard).and_then(|(_, copy)| copy.members.clone());
        owner.or_else(|| {
            let known = self
                .copies(shard)
                .filter(|(_, copy)| copy.members.is_some());
            let furthest = known.max_by_key(|(_, copy)| copy.last_log)?;
            furthest.1.members.clone()
        })
    }

    fn judge_shard(
        &self,
        id: ShardId,
        voters: &[NodeId],
        holders: &BTreeSet<NodeId>,
        plan: &BTreeSet<NodeId>,
    ) -> (ShardState, Vec<String>) {
        let copies: BTreeMap<NodeId, &CopyReport> = self.copies(id).collect();
        let runs = |node: &&NodeId| copies.get(node).is_some_and(|copy| copy.is_running());
        let silent: Vec<String> = voters
            .iter()
            .filter(|node| !runs(node))
            .map(
                |node| match copies.get(node).and_then(|copy| copy.damage.as_ref()) {
                    Some(damage) => format!("node {node}: {damage}"),
                    None => format!("node {node} does not answer"),
                },
            )
            .collect();
        let running = voters.len() - silent.len();
        let mut why = Vec::new();
        if self.owner(id).is_none() {
            let state = if running * 2 > voters.len() {
                let is_led = copies.values().any(|copy| copy.is_leader());
                why.push(if is_led {
                    "its owner does not serve yet".to_owned()
                } else {
                    "no owner is elected yet".to_owned()
                });
                ShardState::NoOwner
            } else {
                why.push(format!("{running} of {} voters answer", voters.len()));
                ShardState::NoQuorum
            };
            why.extend(silent);
            return (state, why);
        }
        let late = copies.iter().filter(|(node, copy)| {
            holders.contains(node) && self.lag(copy).is_some_and(|lag| lag > LAG_MAX)
        });
        let late = late.map(|(node, _)| format!("the copy of node {node} is far behind"));
        why.extend(silent.into_iter().chain(late));
        if !why.is_empty() {
            return (ShardState::Degraded, why);
        }
        let wanted = self.copies_wanted();
        if voters.len() < wanted {
            let why = format!("it has {} of {wanted} copies so far", voters.len());
            return (ShardState::Moving, vec![why]);
        }
        if holders != plan {
            let plan: Vec<_> = plan.iter().map(ToString::to_string).collect();
            return (
                ShardState::Moving,
                vec![format!("its copies go to nodes {}", plan.join(", "))],
            );
        }
        (ShardState::Ok, why)
    }
}

impl World {
    /// How many copies a shard should have with the nodes there are.
    fn copies_wanted(&self) -> usize {
        let holds = |node: &cluster::Node| node.is_active() && node.profile.roles.shards;
        let holders = self.map.members().filter(|(_, node)| holds(node)).count();
        holders.clamp(1, REPLICAS)
    }
}

fn name(shard: ShardId) -> String {
    if shard == ShardId::META {
        "meta".to_owned()
    } else {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests;
