//! Three nodes that are one broker, and lose nothing when one dies: real processes, real sockets, real faults.
//!
//! Every test waits for states. The guarantees (G) and faults (F) of the reliability page are named where they are shown.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod broker;
mod campaign;
mod crowds;
mod days;
mod dev;
mod disks;
mod gateway;
mod gossip;
mod majority;
mod owner;
mod partition;
mod pressure;
mod sessions;
mod slow;
mod support;
