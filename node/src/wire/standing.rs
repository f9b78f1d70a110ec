//! How this node stands in its cluster: what a load balancer and an alert have to know.

use std::sync::Arc;

use metrics::{Unit, describe_gauge, gauge};
use umbel_core::{
    cluster::NodeState,
    ids::{NodeId, ShardId},
};
use umbel_http::port::Check;
use umbel_storage::nodes::{Nodes, Reach};

use crate::operator::Council;

/// Shards this node owns.
const OWNED: &str = "umbel_cluster_owned_shards";
/// Shards whose owner is not known here.
const WITHOUT_OWNER: &str = "umbel_cluster_shards_without_owner";
/// Other nodes, by whether they can be spoken to.
const PEERS: &str = "umbel_cluster_peers";

pub(super) fn describe() {
    describe_gauge!(OWNED, Unit::Count, "Shards this node owns");
    describe_gauge!(
        WITHOUT_OWNER,
        Unit::Count,
        "Shards of which this node knows no owner that it can speak to"
    );
    describe_gauge!(
        PEERS,
        Unit::Count,
        "Other nodes of the cluster, by reach: connected, unreachable or gone"
    );
}

/// This node among the others.
pub(super) struct Standing {
    pub(super) nodes: Arc<dyn Nodes>,
    pub(super) council: Arc<dyn Council>,
    pub(super) shards: u16,
    /// It has no others.
    pub(super) is_alone: bool,
}

/// Owners of shards, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Owners {
    here: usize,
    reachable: usize,
    elsewhere: usize,
}

impl Standing {
    /// What has to hold for the node to serve, beside its disk.
    pub(super) fn checks(&self) -> Vec<Check> {
        let owners = self.owners();
        let shards = usize::from(self.shards);
        if self.is_alone {
            return vec![Check {
                name: "shards",
                ok: owners.here == shards,
                detail: format!("{} of {shards} shards are owned here", owners.here),
            }];
        }
        let served = owners.here + owners.reachable;
        vec![
            Check {
                name: "shards",
                // A node that reaches fewer than most is of less use to clients than any other.
                ok: served * 2 > shards,
                detail: format!(
                    "{} of {shards} shards are owned here, {} by nodes that answer, {} by nobody who does",
                    owners.here, owners.reachable, owners.elsewhere
                ),
            },
            self.quorum(),
            self.drain(),
        ]
    }

    /// Whether the cluster can decide, as seen from here. A minority has no leader, and none that it can reach.
    fn quorum(&self) -> Check {
        let leader = self.nodes.owner(ShardId::META).map(|owner| owner.node);
        let reached = leader.filter(|leader| self.reaches(*leader));
        Check {
            name: "quorum",
            ok: reached.is_some(),
            detail: match reached {
                Some(leader) => format!("node {leader} leads the cluster"),
                None => "this node does not belong to a majority of the cluster".to_owned(),
            },
        }
    }

    fn drain(&self) -> Check {
        let map = self.council.map();
        let state = map.nodes.get(&self.nodes.me()).map(|node| node.state);
        let ok = !matches!(state, Some(NodeState::Draining | NodeState::Drained));
        Check {
            name: "draining",
            ok,
            detail: if ok {
                "no operator empties this node".to_owned()
            } else {
                "an operator empties this node: `umbel ctl undrain` ends it".to_owned()
            },
        }
    }

    fn reaches(&self, node: NodeId) -> bool {
        let peers = self.nodes.peers();
        let is_connected = |node| {
            peers
                .iter()
                .any(|peer| peer.node == node && peer.reach == Reach::Connected)
        };
        node == self.nodes.me() || is_connected(node)
    }

    fn owners(&self) -> Owners {
        let me = self.nodes.me();
        let peers = self.nodes.peers();
        let mut owners = Owners::default();
        for shard in (0..self.shards).map(ShardId) {
            let owner = self.nodes.owner(shard).map(|owner| owner.node);
            let is_connected = |peer: &&umbel_storage::nodes::Peer| {
                Some(peer.node) == owner && peer.reach == Reach::Connected
            };
            if owner == Some(me) {
                owners.here += 1;
            } else if peers.iter().find(is_connected).is_some() {
                owners.reachable += 1;
            } else {
                owners.elsewhere += 1;
            }
        }
        owners
    }

    /// Sets the gauges, for a scrape.
    pub(super) fn record(&self) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of nodes and shards are small"
        )]
        let number = |count: usize| count as f64;
        let owners = self.owners();
        gauge!(OWNED).set(number(owners.here));
        gauge!(WITHOUT_OWNER).set(number(owners.elsewhere));
        let peers = self.nodes.peers();
        for (reach, word) in [
            (Reach::Connected, "connected"),
            (Reach::Unreachable, "unreachable"),
            (Reach::Gone, "gone"),
        ] {
            let count = peers.iter().filter(|peer| peer.reach == reach).count();
            gauge!(PEERS, "reach" => word).set(number(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use umbel_core::{ids::Term, time::Timestamp};
    use umbel_storage::{
        memory::MemoryNodes,
        nodes::{Boot, Owner, Peer},
    };

    use super::*;
    use crate::operator::Alone;

    const SHARDS: u16 = 4;

    fn standing(nodes: &Arc<MemoryNodes>) -> Standing {
        let council = Alone::new(NodeId(1), SHARDS, Timestamp::from_millis(0));
        Standing {
            nodes: Arc::<MemoryNodes>::clone(nodes),
            council: Arc::new(council),
            shards: SHARDS,
            is_alone: false,
        }
    }

    fn failing(standing: &Standing) -> Vec<&'static str> {
        let checks = standing.checks().into_iter();
        checks
            .filter(|check| !check.ok)
            .map(|check| check.name)
            .collect()
    }

    fn owned_by(node: u64) -> Owner {
        Owner {
            node: NodeId(node),
            term: Term(1),
        }
    }

    fn peer(nodes: &MemoryNodes, reach: Reach) {
        nodes.set_peer(Peer {
            node: NodeId(2),
            boot: Some(Boot(1)),
            reach,
        });
    }

    #[test]
    fn a_node_is_ready_while_it_reaches_most_owners_and_the_leader() {
        let nodes = Arc::new(MemoryNodes::new(NodeId(1), Boot(1)));
        let standing = standing(&nodes);
        assert_eq!(failing(&standing), ["shards", "quorum"]);
        peer(&nodes, Reach::Connected);
        nodes.set_owner(ShardId::META, Some(owned_by(2)));
        nodes.set_owner(ShardId(0), Some(owned_by(1)));
        nodes.set_owner(ShardId(1), Some(owned_by(2)));
        assert_eq!(failing(&standing), ["shards"]);
        nodes.set_owner(ShardId(2), Some(owned_by(2)));
        assert!(failing(&standing).is_empty());
        peer(&nodes, Reach::Unreachable);
        assert_eq!(failing(&standing), ["shards", "quorum"]);
    }

    #[test]
    fn a_node_that_is_alone_owns_everything_or_is_not_ready() {
        let nodes = Arc::new(MemoryNodes::new(NodeId(1), Boot(1)));
        let standing = Standing {
            is_alone: true,
            ..standing(&nodes)
        };
        assert_eq!(failing(&standing), ["shards"]);
        for shard in 0..SHARDS {
            nodes.set_owner(ShardId(shard), Some(owned_by(1)));
        }
        assert!(failing(&standing).is_empty());
    }
}
