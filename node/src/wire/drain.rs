//! Leaving without anybody noticing: an operator's drain, and the hand-over of shards at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use umbel_cluster::{Members, Shards, meta::Meta};
use umbel_core::{
    cluster::{ClusterMap, Node, NodeState},
    ids::{NodeId, ShardId},
};
use umbel_mqtt::broker::Broker;
use umbel_storage::{
    Ledger,
    nodes::{Nodes, Reach},
};

/// How often a drain looks whether the shards are gone, and whether new clients came.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long clients wait for the shards to move first. They may be stuck, and an operator wants the node empty.
const SHARDS_FIRST_MAX: Duration = Duration::from_mins(2);
/// Shards handed over at the same time: each costs its clients a moment.
const TRANSFERS: usize = 8;

/// Sends clients to other nodes when an operator empties this one.
pub(super) struct Drainer {
    pub(super) meta: Arc<Meta>,
    pub(super) nodes: Arc<dyn Nodes>,
    pub(super) shards: Arc<Shards>,
    pub(super) broker: Arc<Broker>,
    /// Clients in a second.
    pub(super) rate: u32,
}

impl Drainer {
    /// Watches until it is aborted.
    pub(super) fn start(self) -> JoinHandle<()> {
        tokio::spawn(self.run())
    }

    async fn run(self) {
        let mut map = self.meta.watch();
        loop {
            if map
                .wait_for(|map| is_draining(map, self.nodes.me()))
                .await
                .is_err()
            {
                return;
            }
            tracing::info!("an operator empties this node: shards first, then clients");
            self.empty().await;
        }
    }

    /// Until the drain is ended.
    async fn empty(&self) {
        let still = || is_draining(&self.meta.map(), self.nodes.me());
        let moved = async {
            while still() && self.holds_shards() {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(SHARDS_FIRST_MAX, moved).await.is_err() {
            tracing::warn!("the shards of this node do not move; its clients go all the same");
        }
        while still() {
            if let Some(addresses) = self.other_gateways() {
                let sent = self.broker.hand_over(self.rate, addresses).await;
                if sent > 0 {
                    tracing::info!(sent, "clients were sent to other nodes");
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn holds_shards(&self) -> bool {
        self.shards
            .hosted()
            .iter()
            .any(|shard| *shard != ShardId::META)
    }

    /// Where clients can go, if anywhere: the addresses of those other nodes that have told one.
    fn other_gateways(&self) -> Option<Vec<String>> {
        let peers = self.nodes.peers().into_iter();
        let reached = peers
            .filter(|peer| peer.reach == Reach::Connected)
            .map(|peer| peer.node)
            .collect();
        gateways(&self.meta.map(), &reached)
    }
}

/// The addresses for clients of nodes that take them; none if there is no such node.
fn gateways(map: &ClusterMap, reached: &BTreeSet<NodeId>) -> Option<Vec<String>> {
    let takes = |id: &NodeId, node: &Node| {
        reached.contains(id) && node.profile.roles.gateway && node.is_active()
    };
    let mut gateways = map
        .members()
        .filter(|(id, node)| takes(id, node))
        .peekable();
    gateways.peek()?;
    let addresses = gateways.filter_map(|(_, node)| node.profile.addresses.client.clone());
    Some(addresses.collect())
}

fn is_draining(map: &ClusterMap, node: NodeId) -> bool {
    let state = map.nodes.get(&node).map(|node| node.state);
    matches!(state, Some(NodeState::Draining | NodeState::Drained))
}

/// Gives every shard that this node owns to another of its voters, so that nobody waits for an election when this node
/// stops. What cannot be given away in time is elected anew.
pub(super) async fn hand_over(shards: &Arc<Shards>, nodes: &Arc<dyn Nodes>, within: Duration) {
    let owned: Vec<ShardId> = shards
        .hosted()
        .into_iter()
        .filter(|id| shards.term(*id).is_some())
        .collect();
    if owned.is_empty() {
        return;
    }
    let peers = nodes.peers().into_iter();
    let reached: BTreeSet<NodeId> = peers
        .filter(|peer| peer.reach == Reach::Connected)
        .map(|peer| peer.node)
        .collect();
    let mut given = BTreeMap::new();
    let permits = Arc::new(Semaphore::new(TRANSFERS));
    let mut transfers = JoinSet::new();
    for shard in owned.iter().copied() {
        let heir = shards
            .members(shard)
            .and_then(|members| heir(&members, &reached, &mut given));
        let Some(heir) = heir else { continue };
        let (shards, permits) = (Arc::clone(shards), Arc::clone(&permits));
        transfers.spawn(async move {
            let _permit = permits.acquire_owned().await;
            shards
                .transfer(shard, heir)
                .await
                .map_err(|error| (shard, error))
        });
    }
    let done = async {
        let mut moved = 0;
        while let Some(transfer) = transfers.join_next().await {
            match transfer {
                Ok(Ok(())) => moved += 1,
                Ok(Err((shard, error))) => {
                    tracing::info!(%shard, %error, "a shard is not handed over and elects an owner");
                },
                Err(panic) => tracing::error!(%panic, "a hand-over ended"),
            }
        }
        moved
    };
    match timeout(within, done).await {
        Ok(moved) => tracing::info!(moved, of = owned.len(), "shards handed over"),
        Err(_elapsed) => tracing::warn!("some shards are not handed over in time and elect owners"),
    }
}

/// Who takes a shard: of the voters that can be reached, those that are up to date first, then who got the fewest so far.
fn heir(
    members: &Members,
    reached: &BTreeSet<NodeId>,
    given: &mut BTreeMap<NodeId, usize>,
) -> Option<NodeId> {
    let candidates = members.voters.intersection(reached);
    let best = candidates.min_by_key(|node| {
        let is_late = !members.caught_up.contains(node);
        (
            is_late,
            given.get(node).copied().unwrap_or_default(),
            **node,
        )
    });
    let heir = *best?;
    *given.entry(heir).or_default() += 1;
    Some(heir)
}

#[cfg(test)]
mod tests {
    use umbel_core::{
        cluster::{Addresses, Profile, Roles},
        time::Timestamp,
    };

    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn clients_are_sent_to_every_other_node_that_takes_them_and_can_be_reached() {
        let gateway = |address: Option<&str>, state| {
            let place = "10.0.0.1:7400".parse().unwrap();
            let addresses = Addresses {
                link: place,
                gossip: place,
                client: address.map(str::to_owned),
            };
            let profile = Profile {
                addresses,
                zone: String::new(),
                roles: Roles::default(),
                version: String::new(),
            };
            Node {
                profile,
                state,
                admitted_at: Timestamp::default(),
            }
        };
        let active = NodeState::Active;
        let mut map = ClusterMap::default();
        let no_gateway = {
            let mut node = gateway(Some("five:8883"), active);
            node.profile.roles.gateway = false;
            node
        };
        map.nodes.extend([
            (NodeId(1), gateway(Some("one:8883"), NodeState::Draining)),
            (NodeId(2), gateway(Some("two:8883"), active)),
            (NodeId(3), gateway(Some("three:8883"), active)),
            (NodeId(4), gateway(None, active)),
            (NodeId(5), no_gateway),
            (NodeId(6), gateway(Some("six:8883"), active)),
        ]);
        let two = ["two:8883", "three:8883"].map(str::to_owned);
        assert_eq!(gateways(&map, &set(&[1, 2, 3, 4, 5])), Some(two.into()));
        assert_eq!(
            gateways(&map, &set(&[4])),
            Some(Vec::new()),
            "no address is told"
        );
        assert_eq!(gateways(&map, &set(&[1, 5])), None);
    }

    #[test]
    fn shards_are_spread_over_those_who_are_up_to_date_and_there() {
        let members = Members {
            voters: set(&[1, 2, 3, 4]),
            learners: set(&[5]),
            joint: false,
            caught_up: set(&[2, 3, 5]),
        };
        let mut given = BTreeMap::new();
        let reached = set(&[2, 3, 4, 5]);
        let heirs = [(); 4].map(|()| heir(&members, &reached, &mut given).unwrap().0);
        assert_eq!(heirs, [2, 3, 2, 3]);
        assert_eq!(heir(&members, &set(&[4]), &mut given), Some(NodeId(4)));
        assert_eq!(heir(&members, &set(&[5]), &mut given), None);
    }
}
