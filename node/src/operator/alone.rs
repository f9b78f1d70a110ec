//! The council of a node that is alone: nothing to decide.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use umbel_actors::ports::BoxFuture;
use umbel_core::{
    cluster::{Addresses, Assignment, ClusterMap, Command, Node, NodeState, Profile, Roles},
    ids::{NodeId, ShardId},
    time::Timestamp,
};
use umbel_http::operator::{Denied, Token};

use super::gather::Council;

/// A cluster of one, as a map: itself, with every shard.
pub(crate) struct Alone(Arc<ClusterMap>);

impl Alone {
    pub(crate) fn new(me: NodeId, shards: u16, now: Timestamp) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let profile = Profile {
            addresses: Addresses {
                link: nowhere,
                gossip: nowhere,
                client: None,
            },
            zone: String::new(),
            roles: Roles::default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let node = Node {
            profile,
            state: NodeState::Active,
            admitted_at: now,
        };
        let row = Assignment {
            replicas: vec![me],
            ..Assignment::default()
        };
        let shards = (0..shards).map(|shard| (ShardId(shard), row.clone()));
        Self(Arc::new(ClusterMap {
            nodes: BTreeMap::from([(me, node)]),
            shards: shards.collect(),
            ..ClusterMap::default()
        }))
    }

    fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, Denied>> {
        let why = "this node is alone: there is no `bind` in [cluster] of its configuration";
        Box::pin(std::future::ready(Err(Denied::Conflict(why.to_owned()))))
    }
}

impl Council for Alone {
    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.0)
    }

    fn command(&self, _: Command) -> BoxFuture<'_, Result<(), Denied>> {
        Self::refuse()
    }

    fn create_token(&self, _: Duration) -> BoxFuture<'_, Result<Token, Denied>> {
        Self::refuse()
    }
}
