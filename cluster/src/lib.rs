//! An ordered, durable log for each shard, and who owns it.
//!
//! [`Shards`] keeps the promise of [`umbel_storage::Ledger`] with one Raft group per shard. A command's way:
//! [`Shards::propose`](umbel_storage::Ledger::propose) → bounded queue of the shard → batcher (one log entry in
//! flight, many commands in it) → openraft → log of a majority → state → receipt.
//!
//! A node that is alone is the only voter of every shard. With peers ([`link`]) it has the replicas it is told to have;
//! the leader of a shard's group owns it, and serves while a majority answers it. [`Owners`] says who that is,
//! everywhere.
//!
//! Deliberately absent: MQTT, HTTP, sessions, actors, and any idea of what a row means.

mod batcher;
mod clock;
mod codec;
mod conductor;
pub mod config;
pub mod control;
pub mod gossip;
mod hosted;
mod identity;
mod keeper;
pub mod link;
mod lives;
pub mod meta;
pub mod metrics;
mod owners;
mod queue;
mod raft;
mod shard;
mod shards;
pub mod status;
mod vital;
pub mod wire;

pub use config::{Config, ConfigError};
pub use control::Control;
pub use identity::{Identity, begin_life, life};
pub use owners::Owners;
pub use shards::{ChangeError, Changed, Members, Shards, StartError};
pub use status::{Health, Role, ShardStatus};
