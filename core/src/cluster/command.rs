//! What may be asked of the meta group, and what it answers.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    map::{Authority, ClusterId, Row, Settings, TokenHash},
    node::{Addresses, NodeState, Profile, Roles},
    secret::Secret,
};
use crate::{
    ids::{NodeId, ShardId},
    time::Timestamp,
};

/// Names one command of one asker, so that asking again is not doing it again. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

/// A command with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// What is asked.
    pub command: Command,
}

/// What makes a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Init {
    /// Its id.
    pub cluster: ClusterId,
    /// How many shards it has.
    pub shards: u16,
    /// What makes certificates of nodes.
    pub authority: Authority,
    /// The first key that seals gossip.
    pub gossip_key: Secret,
    /// The first node's id: 1, or what a node that was alone before calls itself.
    pub node: NodeId,
    /// The first node.
    pub profile: Profile,
    /// When.
    pub created_at: Timestamp,
}

/// A change that is asked for. The order is part of the format between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster.
    Init(Box<Init>),
    /// Lets one node join with the secret of this hash.
    CreateToken {
        /// SHA-256 of the secret.
        hash: TokenHash,
        /// For how long.
        lives: Duration,
    },
    /// Lets a node in. Uses up the token.
    Admit {
        /// SHA-256 of the secret it knows.
        token: TokenHash,
        /// SHA-256 of its public key.
        key: [u8; 32],
        /// What it says of itself.
        profile: Profile,
    },
    /// A node started: where it is now, and with what.
    Report {
        /// Which node.
        node: NodeId,
        /// Where it is reached.
        addresses: Addresses,
        /// Its release.
        version: String,
    },
    /// Changes what a node is for.
    SetRoles {
        /// Which node.
        node: NodeId,
        /// What it is for from now on.
        roles: Roles,
    },
    /// Moves a node to another failure domain.
    SetZone {
        /// Which node.
        node: NodeId,
        /// Its zone from now on.
        zone: String,
    },
    /// Takes everything from a node.
    Drain {
        /// Which node.
        node: NodeId,
    },
    /// Gives a node work again.
    Undrain {
        /// Which node.
        node: NodeId,
    },
    /// A draining node holds nothing any more (asked by the driver).
    Drained {
        /// Which node.
        node: NodeId,
    },
    /// Shuts a node out for good.
    Remove {
        /// Which node.
        node: NodeId,
        /// Also while it holds something: it is lost, or does not count.
        force: bool,
    },
    /// Changes who is to hold a shard (asked by the driver).
    Assign {
        /// Which shard.
        shard: ShardId,
        /// Who votes, the preferred owner first.
        replicas: Vec<NodeId>,
        /// Who holds a copy without a vote.
        learners: Vec<NodeId>,
        /// The epoch of the row this was decided on.
        epoch: u64,
    },
    /// Chooses the preferred owner of a shard among its replicas, or leaves it to the balance.
    Prefer {
        /// Which shard.
        shard: ShardId,
        /// Who; `None` leaves it to the balance.
        node: Option<NodeId>,
    },
    /// Adds a gossip key and forgets the oldest one.
    RotateGossipKey {
        /// 32 bytes.
        key: Secret,
    },
    /// Changes what operators may change.
    Set {
        /// From now on.
        settings: Settings,
    },
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// What was asked.
    Done,
    /// A node was let in, under this id.
    Admitted(NodeId),
}

/// Rows to store together, and the answer once they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What changes. Empty if all is as asked already.
    pub rows: Vec<Row>,
    /// What to answer.
    pub outcome: Outcome,
}

/// Why a command changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Rejected {
    /// The cluster was not made yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// It was, and under another id.
    #[error("the cluster is initialised already")]
    AlreadyInitialised,
    /// There is no such node.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// The node is in no state for this.
    #[error("node {node} is {state}")]
    NodeState {
        /// Which node.
        node: NodeId,
        /// What it is.
        state: NodeState,
    },
    /// Somebody else has this link address.
    #[error("node {0} has this address")]
    AddressTaken(NodeId),
    /// Nobody would be left.
    #[error("node {node} is the last one with role {role}")]
    LastNode {
        /// Which node.
        node: NodeId,
        /// What for.
        role: Cow<'static, str>,
    },
    /// The token was never made, was used, or is too old. Which of them is nobody's business.
    #[error("the join token is not valid")]
    Token,
    /// There is no such shard.
    #[error("there is no shard {0}")]
    UnknownShard(ShardId),
    /// The row changed since.
    #[error("shard {shard} is at epoch {epoch} by now")]
    Stale {
        /// Which shard.
        shard: ShardId,
        /// Its epoch.
        epoch: u64,
    },
    /// A bound.
    #[error("there are {max} {what} already")]
    TooMany {
        /// Of what.
        what: Cow<'static, str>,
        /// How many there may be.
        max: usize,
    },
    /// A value that cannot be.
    #[error("{what} is not valid")]
    Invalid {
        /// Which value.
        what: Cow<'static, str>,
    },
}
