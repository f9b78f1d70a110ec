//! What the cluster knows about itself, and every rule for changing it.
//!
//! [`ClusterMap`] is the content of the meta group: who belongs to the cluster, who holds which shard, who may join. A
//! change is a [`Command`]; [`decide()`] turns it into [`Row`]s, or says why not. Who orders commands, stores rows and
//! carries them to other nodes is not known here; neither is who is alive.

mod command;
mod decide;
mod join;
mod map;
mod node;
mod secret;
mod shards;
#[cfg(test)]
mod tests;

pub use command::{Command, Decision, Init, Outcome, Rejected, Request, RequestId};
pub use decide::decide;
pub use map::{
    Assignment, Authority, ClusterId, ClusterIdError, ClusterMap, Counters, GossipKey, Identity,
    Remembered, Row, Settings, Token, TokenHash, TokenUse,
};
pub use node::{Addresses, Node, NodeState, Profile, Roles};
pub use secret::Secret;
