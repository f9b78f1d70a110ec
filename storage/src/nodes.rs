//! Who else is there and who owns what, without saying how that is known.
//!
//! `cluster` keeps this up to date; [`crate::memory::OneNode`] is the world of a node that is alone. Everything here is
//! a *hint* that may be a moment old: an owner may have changed, a peer may be gone. Truth is in the answer of the node
//! that is asked, and in the term of [`crate::Ledger`].

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;
use umbel_core::ids::{NodeId, ShardId, Term};

/// One life of a node's process. A node that was started again has a higher one; connections of an older one are gone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Boot(pub u64);

/// Who owns a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// In which term.
    pub term: Term,
}

/// Whether another node can be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The link is up.
    Connected,
    /// The link is down, and nothing confirms yet that the node is.
    Unreachable,
    /// The link is down for longer than a short break, or gossip or a refused connection confirm it: what its process
    /// held is to be taken for lost. It may come back.
    Gone,
}

/// Another node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// Its life that was last heard of.
    pub boot: Option<Boot>,
    /// Whether it can be spoken to.
    pub reach: Reach,
}

/// Why another node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PeerError {
    /// There is no link to it: nothing was sent.
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    /// Too much waits for it already: nothing was sent.
    #[error("too much waits for node {0}")]
    Busy(NodeId),
    /// It refused, and says why: nothing was done.
    #[error("node {node} refused: {why}")]
    Refused {
        /// Who.
        node: NodeId,
        /// Its words.
        why: String,
    },
    /// It did not answer in time, or the link broke: it may or may not have been done.
    #[error("node {0} did not answer: the outcome is unknown")]
    Unknown(NodeId),
}

/// The other nodes, and who owns which shard.
pub trait Nodes: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeId;
    /// This life of this node.
    fn boot(&self) -> Boot;
    /// Who owns a shard, as far as this node has heard; `None` while nobody is known to.
    fn owner(&self, shard: ShardId) -> Option<Owner>;
    /// Every other node that belongs to the cluster, in the order of ids.
    fn peers(&self) -> Vec<Peer>;
    /// Changes after anything above did.
    fn changes(&self) -> watch::Receiver<u64>;
}
