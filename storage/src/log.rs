//! The log: entries and small metadata of many Raft groups, believed after a restart.
//!
//! [`GroupLog`] is the promise; [`Log`] keeps it on disk, [`crate::memory::MemoryLog`] in memory. Entries are opaque
//! bytes at consecutive indexes. The store checks no Raft rule but one: a group's log has no holes.

mod believed;
mod disk;
mod entry;
mod files;
mod high_water;
mod open;
mod pulse;
mod queue;
mod reader;
mod rewritten;
mod view;
mod writer;

use std::{fmt, ops::Range, time::Duration};

use bytes::Bytes;
use thiserror::Error;

pub use believed::{Log, LogOptions};
pub use open::OpenError;
pub use queue::Fatal;
pub(crate) use view::gap;

/// A Raft group of this node. The shard groups use their shard's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A small value kept beside a group's entries. The number is part of the format on disk and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Meta {
    /// The vote.
    Vote = 1,
    /// The log id of the last purged entry; written by [`GroupLog::purge`].
    Purged = 2,
    /// The log id up to which the group committed.
    Committed = 3,
    /// What the state store had made durable when it was last asked (a [`crate::state::Mark`]).
    Checkpoint = 4,
    /// Of the node, not of a group: how often its process was started.
    Lives = 5,
    /// Why the group may not vote yet.
    Probation = 6,
    /// Of the node, not of a group: the newest life it met of each other node.
    Met = 7,
}

impl Meta {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Vote,
        Self::Purged,
        Self::Committed,
        Self::Checkpoint,
        Self::Lives,
        Self::Probation,
        Self::Met,
    ];
}

/// Why the log did not do something.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// The disk is full: nothing of the request was written, and nothing of later ones that were under way.
    #[error("the disk is full")]
    Full,
    /// The log failed for good and the node is stopping: the request may or may not be on disk.
    #[error("the log failed: {0}")]
    Failed(String),
    /// An entry or value on disk does not have the bytes that were written.
    #[error("the log of group {group} is damaged: {detail}")]
    Damaged {
        /// Whose.
        group: GroupId,
        /// What was found.
        detail: String,
    },
    /// The request breaks the order of indexes: nothing was written.
    #[error("group {group}: index {index} does not follow {last}")]
    Gap {
        /// Whose.
        group: GroupId,
        /// The index given.
        index: u64,
        /// The last index before.
        last: u64,
    },
}

/// How fast the log is made durable, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// How long a sync takes on average; nothing if there was none lately.
    pub usual: Duration,
    /// Whether syncs have been slow for so long that others should own the shards.
    pub is_slow: bool,
}

/// Called once, from the log's own thread, when a request is on disk or failed. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Entries and metadata of the groups of one node.
///
/// Requests of all groups form one queue; a request is durable when its `done` is called with `Ok`, and then all
/// requests made before it are too. Reads see requests at once, durable or not. After a crash a group's log is what
/// was durable, plus possibly some of what was requested later, in order, without holes.
pub trait GroupLog: Send + Sync + 'static {
    /// The indexes present: `first..last + 1`; empty (`start == end`) when the group has no entry.
    fn range(&self, group: GroupId) -> Range<u64>;

    /// Entries of a range, from its start on, without holes. Ends early when the log ends or once `bytes_max` is
    /// reached, but not before the first entry.
    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, LogError>;

    /// Appends entries with consecutive indexes. They have to follow the last index; an empty log begins anywhere.
    /// Blocks only when the queue of the whole node is full.
    fn append(&self, group: GroupId, entries: Vec<(u64, Bytes)>, done: Done);

    /// Removes the entries from index `since` on, itself included.
    fn truncate(&self, group: GroupId, since: u64, done: Done);

    /// Removes the entries up to `upto`, itself included, and sets [`Meta::Purged`], both or none.
    fn purge(&self, group: GroupId, upto: u64, purged: Bytes, done: Done);

    /// The value last set.
    fn meta(&self, group: GroupId, key: Meta) -> Option<Bytes>;

    /// Sets a value.
    fn set_meta(&self, group: GroupId, key: Meta, value: Bytes, done: Done);

    /// Removes everything of a group.
    fn remove(&self, group: GroupId, done: Done);

    /// Whether new proposals should be made: [`LogError::Full`] while free space is below the reserve, which is
    /// kept for votes and for what is already under way, [`LogError::Failed`] once the log failed. Cheap; a full
    /// disk recovers by itself.
    fn admit(&self) -> Result<(), LogError>;

    /// How fast requests become durable. Cheap; has to be asked now and then to notice a sync that does not end.
    fn pace(&self) -> Pace;

    /// Groups that hold back disk space and should snapshot and purge.
    fn wants_purge(&self) -> Vec<GroupId>;
}

#[cfg(test)]
mod tests;
