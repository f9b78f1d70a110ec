//! What an operator sees of the cluster and may ask of it: one narrow trait, and the wire types it speaks in. Field
//! names are part of the API.
//!
//! Every answer is put together from what this node knows and what the others say within a moment; a node that says
//! nothing is shown with the reason and never silently left out.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::{port::BoxFuture, time::Moment};

/// Why an operator's wish was not carried out. Unless said otherwise nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// There is no such node or shard.
    #[error("{0}")]
    NotFound(String),
    /// It would harm, or makes no sense in the present state.
    #[error("{0}")]
    Conflict(String),
    /// Too few nodes answer to decide it. It may or may not be carried out once they do.
    #[error("{0}")]
    NoQuorum(String),
    /// A fault of ours, already logged.
    #[error("{0}")]
    Internal(String),
}

/// Parts of a backup, in order. An error ends it: what came before is of no use.
pub type BackupStream = Pin<Box<dyn Stream<Item = Result<Bytes, Denied>> + Send>>;

/// What operators may ask. Any node answers for the whole cluster.
pub trait Operator: Send + Sync + 'static {
    /// The cluster in a few numbers.
    fn cluster(&self) -> BoxFuture<'_, Cluster>;
    /// Every node.
    fn nodes(&self) -> BoxFuture<'_, Vec<Node>>;
    /// Every shard.
    fn shards(&self) -> BoxFuture<'_, Vec<Shard>>;
    /// Moves everything away from a node, or lets it come back.
    fn set_draining(&self, node: u64, draining: bool) -> BoxFuture<'_, Result<(), Denied>>;
    /// Takes a node out for ever.
    fn remove(&self, node: u64, force: bool) -> BoxFuture<'_, Result<(), Denied>>;
    /// Gives a shard another owner.
    fn transfer(&self, shard: u16, node: u64) -> BoxFuture<'_, Result<(), Denied>>;
    /// Makes a token with which one node may join.
    fn create_token(&self, ttl: Duration) -> BoxFuture<'_, Result<Token, Denied>>;
    /// Everything the cluster holds, with a consistent cut for each shard.
    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, Denied>>;
}

/// What a program without a cluster answers: itself, and that nothing else can be done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Alone {
    fn refuse<T: Send + 'static>() -> BoxFuture<'static, Result<T, Denied>> {
        let why = "this node is not part of a cluster".to_owned();
        Box::pin(std::future::ready(Err(Denied::Conflict(why))))
    }
}

impl Operator for Alone {
    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        Box::pin(std::future::ready(Cluster {
            id: None,
            me: 1,
            meta_leader: None,
            map_version: 0,
            nodes: 1,
            nodes_up: 1,
            shards: 0,
            shards_served: 0,
            shards_ok: 0,
        }))
    }

    fn nodes(&self) -> BoxFuture<'_, Vec<Node>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn shards(&self) -> BoxFuture<'_, Vec<Shard>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn set_draining(&self, _: u64, _: bool) -> BoxFuture<'_, Result<(), Denied>> {
        Self::refuse()
    }

    fn remove(&self, _: u64, _: bool) -> BoxFuture<'_, Result<(), Denied>> {
        Self::refuse()
    }

    fn transfer(&self, _: u16, _: u64) -> BoxFuture<'_, Result<(), Denied>> {
        Self::refuse()
    }

    fn create_token(&self, _: Duration) -> BoxFuture<'_, Result<Token, Denied>> {
        Self::refuse()
    }

    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, Denied>> {
        Self::refuse()
    }
}

/// Whether a node can be counted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It is down, and what its process held is lost.
    Down,
    /// It does not answer, and may be there all the same.
    Unreachable,
    /// It answers, and something about it is not as it should be.
    Degraded,
    /// It is being emptied.
    Draining,
    /// It is empty, and may be stopped, removed, or taken back.
    Drained,
    /// All is well.
    Up,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Node {
    /// Its number; never used again for another node.
    pub id: u64,
    /// Whether it can be counted on.
    pub state: NodeState,
    /// Why not, if not.
    pub why: Vec<String>,
    /// Whether it is the one that answers.
    pub is_me: bool,
    /// Whether it is being emptied or is empty.
    pub draining: bool,
    /// Where other nodes reach it.
    pub address: Option<String>,
    /// Failure domain.
    pub zone: String,
    /// Any of `voter`, `shards`, `gateway`.
    pub roles: Vec<String>,
    /// Release.
    pub version: Option<String>,
    /// Part in the group that decides who belongs to the cluster: `leader`, `voter`, `learner`.
    pub meta: Option<String>,
    /// Shards it owns.
    pub owned: u64,
    /// Shards of which it keeps a copy, owned ones included.
    pub copies: u64,
    /// Log entries its copies are behind the owners, all together.
    pub lag: u64,
    /// Clients connected to it.
    pub connections: u64,
    /// When its process was started.
    pub started_at: Option<Moment>,
}

/// How well a shard is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShardState {
    /// Too few of its copies are there: it serves nothing until they come back.
    NoQuorum,
    /// Nobody owns it at this moment.
    NoOwner,
    /// It is served, and a copy is missing, damaged or far behind.
    Degraded,
    /// It is served, and its copies are changing.
    Moving,
    /// All is well.
    Ok,
}

/// A shard of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Shard {
    /// Its number.
    pub id: u16,
    /// How well it is served.
    pub state: ShardState,
    /// What is wrong, if something is.
    pub why: Vec<String>,
    /// Who owns it.
    pub owner: Option<u64>,
    /// Who should, when all is well.
    pub preferred: Option<u64>,
    /// In which term.
    pub term: Option<u64>,
    /// Its copies.
    pub copies: Vec<Copy>,
    /// Where its copies shall be.
    pub planned: Vec<u64>,
}

/// A copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Copy {
    /// The node that keeps it.
    pub node: u64,
    /// `owner`, `follower`, `learner`, `candidate`, `stopped`, or `unknown` when the node says nothing.
    pub role: String,
    /// Last entry applied.
    pub applied: Option<u64>,
    /// Entries it is behind the owner.
    pub lag: Option<u64>,
    /// Why it serves nothing, if so.
    pub damage: Option<String>,
}

/// The cluster in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cluster {
    /// Its id; none for a node that is alone.
    pub id: Option<String>,
    /// The node that answers.
    pub me: u64,
    /// Leader of the group that decides who belongs to the cluster.
    pub meta_leader: Option<u64>,
    /// Version of the shard map.
    pub map_version: u64,
    /// Nodes.
    pub nodes: u64,
    /// Nodes that answer.
    pub nodes_up: u64,
    /// Shards.
    pub shards: u64,
    /// Shards that are served.
    pub shards_served: u64,
    /// Shards of which all copies are there and up to date.
    pub shards_ok: u64,
}

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub struct Nodes {
    /// The nodes: those in trouble first, then by number.
    pub items: Vec<Node>,
}

/// All shards.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shards {
    /// The shards: those in trouble first, then by number.
    pub items: Vec<Shard>,
}

/// A token with which one node may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Token {
    /// Show it to nobody but the node that shall join.
    pub token: String,
    /// When it is of no use any more.
    pub expires_at: Moment,
}
