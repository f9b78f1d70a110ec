//! One supervised actor per device; order per device; bounded work.
//!
//! Every device and application has an actor by name, which is awake only while there is work. A command goes
//! from [`Fleet`] through admission to the shard, whose table knows the sleeping; the actor it wakes lets
//! `core::device` decide, makes the decision durable through the shard's ledger, adopts it, and only then tells
//! subscribers, the feed and the asker. Start reading at `device.rs`, then `decide.rs`.
//!
//! In a cluster a device's actor lives on the owner of its shard. [`Realm`] is the face of them all: it sends each verb
//! to the owner ([`remote`]), compares the connections of this node with what owners recorded, and tells them of ends.
//! `ownership.rs` follows shards that come and go, `roll.rs` finds out who was lost with a gateway.
//!
//! Deliberately absent: sockets, MQTT packets, HTTP, openraft, and any decision about the domain.

mod admission;
mod adopt;
mod alarms;
mod applied;
mod census;
mod common;
mod config;
mod decide;
mod device;
mod dispatch;
mod feed;
mod fleet;
mod lives;
pub mod metrics;
mod ownership;
mod phantom;
pub mod ports;
mod query;
mod realm;
mod records;
mod recover;
mod refused;
mod registry;
pub mod remote;
mod roll;
mod running;
mod shard;
mod slot;
pub mod supervise;
mod supervisor;
mod take_overs;
mod timer;
mod troubles;
mod view;

#[cfg(test)]
mod tests;

pub use census::ByPresence;
pub use config::{Config, FailPoint};
pub use feed::{Delivery, Events, FleetEvent, FleetEventKind};
pub use fleet::{Counts, Fleet, Opened, Pulse};
pub use query::{Filter, NamedPage, PAGE_MAX, Page};
pub use realm::{Realm, Rounds, Timing};
pub use recover::Recovered;
pub use refused::Refused;
pub use registry::EditError;
pub use running::{Running, StartError};
pub use take_overs::TakeOvers;
pub use troubles::Quarantined;
pub use view::DeviceView;
