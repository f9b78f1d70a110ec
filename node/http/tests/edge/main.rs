//! The whole HTTP edge, against a backend of a few maps.

#![expect(
    unreachable_pub,
    clippy::indexing_slicing,
    reason = "one crate of tests: nothing is public, and a missing member is a failed test"
)]

mod api_clients;
mod api_cluster;
mod api_devices;
mod api_events;
mod api_shadows;
mod aws;
mod bounds;
mod described;
mod memory;
mod real;
mod servers;
mod support;
