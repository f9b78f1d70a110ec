//! The broker and its sessions, driven by packets, over a ledger in memory. A crash is a new broker on what the ledger
//! had committed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests look at what they are about"
)]

mod authorize;
mod cluster;
mod cluster_random;
mod cluster_retained;
mod cluster_shared;
mod durable;
mod durable_exactly_once;
mod fleet;
mod hand_over;
mod homes;
mod homes_moving;
mod homes_random;
mod moves;
mod net;
mod outbound;
mod properties;
mod quality;
mod retained;
mod sessions;
mod shared;
mod slow;
mod wire;
mod world;
