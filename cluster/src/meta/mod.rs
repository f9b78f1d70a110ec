//! What the cluster knows about itself: kept in the meta group, readable on every node, changed by its leader.
//!
//! [`Meta`] is the face. Every node holds a copy of the meta group (five of them vote) and reads the
//! [`ClusterMap`](umbel_core::cluster::ClusterMap) from it. A command's way: [`Meta::command`] → the node that leads the
//! group → [`decide`](umbel_core::cluster::decide), one command after the other → rows through the group's log → the map
//! of every node. The leader also drives: it compares the map with what the nodes say they hold, and orders what is missing.
//!
//! Deliberately absent: how groups work (they are reached through [`Groups`]), and every rule (they are in `core`).

mod certificates;
mod command;
mod desk;
mod driver;
mod groups;
mod identity;
mod join;
mod rows;
mod service;
mod shard_groups;
mod view;
mod words;

pub use certificates::CertificateError;
pub use desk::JoinDesk;
pub use groups::{Groups, Members};
pub use identity::{ClusterIdentity, Founding, IdentityError};
pub use join::{JoinError, JoinToken, JoinTokenError, join};
pub use rows::RowError;
pub use service::{Clock, Meta, MetaConfig, MetaError};
pub use shard_groups::ShardGroups;
