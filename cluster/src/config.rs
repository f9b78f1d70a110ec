//! Settings of the groups of a node. Every bound has its reason beside it.

use std::time::Duration;

use thiserror::Error;
use umbel_core::ids::NodeId;
use umbel_storage::Boot;

use crate::{codec, raft::types::NODE_MAX};

/// Settings of [`crate::Shards`].
#[derive(Clone, Debug)]
pub struct Config {
    /// This node. Below 2^24: its id is part of every owner's term.
    pub node: NodeId,
    /// How many shards the cluster has; fixed when it was created.
    pub shards: u16,
    /// What may wait and what goes together.
    pub limits: Limits,
    /// How often an owner says that it is there.
    pub heartbeat: Duration,
    /// A silent owner is replaced after its lease and a random time from here …
    pub election_min: Duration,
    /// … to here. Also the lease.
    pub election_max: Duration,
    /// An owner's lease is shorter than its followers' promise by this: clocks do not go at the same speed.
    pub lease_margin: Duration,
    /// When the log is replaced by a snapshot.
    pub snapshots: Snapshots,
    /// What a change of members waits for.
    pub changes: Changes,
    /// This life, if [`crate::begin_life`] was called for it already.
    pub boot: Option<Boot>,
}

/// What a change of members, or a transfer, waits for.
#[derive(Clone, Copy, Debug)]
pub struct Changes {
    /// A member counts as caught up when so few entries are missing: it has the rest within a moment.
    pub lag_entries: u64,
    /// How long a new member may take to catch up before the change is given up. It goes on catching up; the change is
    /// asked for again.
    pub catch_up: Duration,
    /// How long each step may take to be committed.
    pub step: Duration,
    /// How long a transfer may take before the owner goes on as before.
    pub transfer: Duration,
}

/// Bounds of the queue and the batches of each shard.
#[expect(
    clippy::struct_field_names,
    reason = "each is a maximum, and says of what"
)]
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands that may wait in a shard. Beyond, the answer is "busy" at once: a longer queue would only make
    /// every answer late.
    pub queue_commands_max: usize,
    /// Bytes that may wait in a shard; 64 shards bound the node's memory at 512 MiB by default.
    pub queue_bytes_max: usize,
    /// Commands in one log entry. One flush serves them all; more add latency and no throughput.
    pub batch_commands_max: usize,
    /// Bytes in one log entry, unless a single command is larger.
    pub batch_bytes_max: usize,
    /// Bytes of one command. More than the largest MQTT message and shadow, so that only a defect meets it.
    pub command_bytes_max: usize,
}

/// When a shard's log is replaced by a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots {
    /// After so many entries.
    pub entries: u64,
    /// After so many bytes of batches: bounds what a restart may have to replay.
    pub bytes: u64,
    /// Entries kept behind the snapshot, for a peer that is a little late. They may be large, and there are many
    /// shards: a later peer gets the snapshot.
    pub tail_entries: u64,
    /// The same where there are peers, to which a few thousand entries are cheaper than a snapshot …
    pub peer_tail_entries: u64,
    /// … but not more bytes than these, estimated from what was applied lately.
    pub peer_tail_bytes: u64,
    /// How often it is looked whether one is due.
    pub every: Duration,
    /// How long after a failure (a full disk, mostly) it is tried again.
    pub retry: Duration,
}

impl Config {
    /// The default settings for a node.
    pub fn new(node: NodeId, shards: u16) -> Self {
        Self {
            node,
            shards,
            limits: Limits::default(),
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(450),
            election_max: Duration::from_millis(900),
            lease_margin: Duration::from_millis(90),
            snapshots: Snapshots::default(),
            changes: Changes::default(),
            boot: None,
        }
    }

    /// How long an owner may speak after the sending of what a majority answered.
    pub(crate) fn lease(&self) -> Duration {
        self.election_max.saturating_sub(self.lease_margin)
    }

    /// Checks what cannot be changed once groups run.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let largest_entry = limits
            .batch_bytes_max
            .saturating_add(limits.command_bytes_max);
        let problem = if self.node.0 > NODE_MAX {
            Some(("node id", "is above 16777215"))
        } else if self.shards == 0 {
            Some(("shards", "is 0"))
        } else if self.election_min <= self.heartbeat || self.election_max <= self.election_min {
            Some((
                "election timeout",
                "must satisfy heartbeat < minimum < maximum",
            ))
        } else if self.lease() < self.heartbeat.saturating_mul(2) {
            Some(("lease", "is shorter than two heartbeats"))
        } else if limits.queue_commands_max == 0 || limits.batch_commands_max == 0 {
            Some(("limits", "allow no command at all"))
        } else if limits.queue_bytes_max < limits.command_bytes_max {
            Some(("queue bytes", "is below the largest command"))
        } else if largest_entry > codec::RECORD_BYTES_MAX / 2 {
            Some((
                "batch bytes plus command bytes",
                "is above what a log entry may hold (16 MiB)",
            ))
        } else {
            None
        };
        problem.map_or(Ok(()), |(setting, what)| Err(ConfigError { setting, what }))
    }
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{setting} {what}")]
pub struct ConfigError {
    setting: &'static str,
    what: &'static str,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_commands_max: 4096,
            queue_bytes_max: 8 << 20,
            batch_commands_max: 1024,
            batch_bytes_max: 1 << 20,
            command_bytes_max: 4 << 20,
        }
    }
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            entries: 20_000,
            bytes: 32 << 20,
            tail_entries: 16,
            peer_tail_entries: 4096,
            peer_tail_bytes: 4 << 20,
            every: Duration::from_secs(1),
            retry: Duration::from_secs(10),
        }
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            lag_entries: 64,
            catch_up: Duration::from_mins(1),
            step: Duration::from_secs(5),
            transfer: Duration::from_secs(2),
        }
    }
}
