//! Backup and restore of a whole cluster.
//!
//! A backup is one file: a manifest, then each shard as a snapshot at one index of its log (a *consistent cut per shard*:
//! what two shards hold need not be of the same moment), then a closing mark. It is read while the cluster works.
//!
//! A restore makes a *new* cluster of one node, with an id, an authority and node numbers of its own: nodes of the old one
//! that turn up again are strangers to it, and cannot be mistaken for members that know better. Others then join it. What is
//! in the backup is devices, shadows, sessions with their subscriptions and waiting messages, and retained messages; what
//! is not is which nodes there were. A session that was connected when the backup was made counts as one whose gateway was
//! lost: its client comes back within the grace, or its will is published.

pub(crate) mod format;
mod restore;
mod save;
pub(crate) mod write;

pub(crate) use restore::restore;
pub(crate) use save::save;
