//! Every rule of the domain, as pure functions and structs.
//!
//! What is deliberately absent: tokio, clocks, sources of randomness, sockets, disks and logging. Time and
//! chance are arguments, so that every node decides the same and every test can replay.

pub mod backoff;
pub mod cluster;
pub mod device;
pub mod ids;
pub mod json;
pub mod message;
pub mod placement;
pub mod policy;
pub mod shadow;
pub mod time;
pub mod topic;
pub mod wheel;
