//! The state: rows of every shard, applied from the log, and rebuilt from it when damaged.
//!
//! This file is the promise; `store` keeps it on disk, [`crate::memory::MemoryState`] in memory.

use std::fmt;

use thiserror::Error;
use umbel_core::ids::ShardId;

use crate::{
    snapshot::Snapshot,
    table::{Pairs, ReadError, Table, Write},
};

/// Order-free 128-bit sum over the rows of a shard. Equal rows have equal digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How far a shard is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Index of the last applied entry; 0 before the first.
    pub index: u64,
    /// Digest of the rows then.
    pub digest: Digest,
    /// What the caller wanted to know again: log id, membership. Opaque here.
    pub meta: Vec<u8>,
}

/// Why the state did not do something.
#[derive(Clone, Debug, Error)]
pub enum StateError {
    /// The shard is damaged: it serves nothing until it is restored or dropped.
    #[error("shard {shard} is damaged: {detail}")]
    Damaged {
        /// Which.
        shard: ShardId,
        /// What was found.
        detail: String,
    },
    /// A snapshot does not have the bytes that were written, or belongs to another shard. The state is unchanged.
    #[error("snapshot of shard {shard}: {detail}")]
    Snapshot {
        /// Which.
        shard: ShardId,
        /// What was found.
        detail: String,
    },
    /// The disk is full. The shard may hold part of a batch; applying it again completes it.
    #[error("the disk is full")]
    Full,
    /// The store failed. The shard may hold part of a batch; applying it again completes it.
    #[error("state store: {0}")]
    Io(String),
}

/// What is known about a shard's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Every record was whole when last looked at, and the digest agrees.
    Sound,
    /// Something is wrong, here in words; nothing is served.
    Damaged(String),
}

/// Rows of the shards of one node.
///
/// Law of replay: applying entries again from any index at or below `applied + 1`, in order, yields the rows that
/// applying each once yields. Calls for one shard that change it are made one after the other by the caller.
pub trait State: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Up to `limit` pairs whose key begins with `prefix` and is greater than `after`, in key order.
    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError>;

    /// Applies the writes of the entry at `index` (none is fine) and remembers index and `meta`. Not durable until
    /// [`State::checkpoint`]; after a crash [`State::applied`] says from where to apply again.
    fn apply(
        &self,
        shard: ShardId,
        index: u64,
        meta: &[u8],
        writes: &[Write],
    ) -> Result<(), StateError>;

    /// How far the shard is applied; the default mark for a shard never touched.
    fn applied(&self, shard: ShardId) -> Result<Mark, StateError>;

    /// Makes everything applied so far durable, of all shards, and says how far this shard then was. The caller puts
    /// the mark into the log ([`crate::log::Meta::Checkpoint`]). Slow: tens of milliseconds.
    fn checkpoint(&self, shard: ShardId) -> Result<Mark, StateError>;

    /// Writes the shard's rows to a new snapshot, durable when this returns, which replaces the shard's older one.
    /// The caller keeps `apply` away from the shard meanwhile. Slow: reads the whole shard.
    fn snapshot(&self, shard: ShardId) -> Result<Snapshot, StateError>;

    /// The shard's latest durable snapshot, if there is one; its bytes are checked when it is read.
    fn latest_snapshot(&self, shard: ShardId) -> Result<Option<Snapshot>, StateError>;

    /// Begins to gather the snapshot of that id from elsewhere, or goes on: how many of its bytes are here. Those of
    /// another id are dropped. Nothing gathered outlives the process.
    fn incoming(&self, shard: ShardId, id: u64) -> Result<u64, StateError>;

    /// Adds bytes that follow; others are left alone. How many are here then.
    fn receive(
        &self,
        shard: ShardId,
        id: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StateError>;

    /// Checks every byte of what was gathered and makes it durable, beside the shard's latest snapshot; it is kept until
    /// it is adopted or another one comes. What does not check is dropped.
    fn received(&self, shard: ShardId, id: u64) -> Result<Snapshot, StateError>;

    /// Makes a received snapshot the shard's latest, durably.
    fn adopt(&self, received: &Snapshot) -> Result<Snapshot, StateError>;

    /// Checks a snapshot received from elsewhere and stores it durably as the shard's latest: the above at once, for what
    /// is in memory anyway.
    fn receive_snapshot(&self, shard: ShardId, bytes: &[u8]) -> Result<Snapshot, StateError> {
        let id = u64::from(crc32fast::hash(bytes)) | (1 << 63);
        let here = self.incoming(shard, id)?;
        let from = usize::try_from(here).unwrap_or(usize::MAX);
        self.receive(shard, id, here, bytes.get(from..).unwrap_or_default())?;
        self.adopt(&self.received(shard, id)?)
    }

    /// Replaces the shard's rows by the snapshot's; heals a damaged shard. Checks all bytes before it changes any
    /// row. After a crash in the middle the shard is reported damaged.
    fn restore(&self, snapshot: &Snapshot) -> Result<(), StateError>;

    /// Removes the shard's rows and mark, healing it as an empty one; its snapshot stays.
    fn drop_shard(&self, shard: ShardId) -> Result<(), StateError>;

    /// Removes the shard's rows, mark and snapshot: this node has no part in it any more.
    fn erase(&self, shard: ShardId) -> Result<(), StateError>;

    /// What the start-up check and the scrub know about a shard.
    fn health(&self, shard: ShardId) -> Health;

    /// Shards that serve nothing because they are damaged.
    fn damaged(&self) -> Vec<ShardId>;

    /// Marks a shard as damaged, for a caller that found out (apply impossible, log behind the state).
    fn quarantine(&self, shard: ShardId, detail: &str);

    /// Reads and checks up to `rows_max` rows further along, all shards in turn, so that cold damage is found. True
    /// when a round over all shards was completed.
    fn scrub(&self, rows_max: usize) -> bool;

    /// Bytes on disk (or in memory).
    fn size_bytes(&self) -> u64;
}
