//! Where shards are to be, and the next steps to get them there.
//!
//! [`target()`] says who should hold what, from the map alone; [`next_steps`] compares the map with what was observed and
//! names a few things to do now. Both are total and have no memory: whoever becomes the driver goes on from what it sees,
//! so that an interrupted change is finished by the next one.
//!
//! Laws: every shard has as many replicas as it can (up to three); replicas are spread over zones as evenly as the zones
//! allow; nodes of one zone differ by at most one replica; what is in place stays unless that makes another law hold; a
//! target is its own target. A step never leaves a group with fewer voters than before because somebody is missing, and
//! nobody is given a vote before its copy is complete.

mod balance;
mod group;
mod owners;
mod steps;
mod target;
#[cfg(test)]
mod tests;

pub use steps::{GroupSeen, Limits, NodeSeen, Observed, Step, moving, next_steps};
pub use target::{REPLICAS, Target, VOTERS_MAX, target};
