//! The tables of a shard, and a change to one of them.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A table of a shard's state. The number is part of the format on disk and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// Client and device records: key = client id.
    Device = 1,
    /// Shadow documents and tombstones: key = device id, 0, shadow name (empty for classic).
    Shadow = 2,
    /// Subscriptions of persistent sessions: key = client id, 0, filter.
    Subscription = 3,
    /// Messages waiting in persistent sessions: key = client id, 0, sequence number (u64, big endian).
    Queue = 4,
    /// QoS 2 packet ids received and not yet released: key = client id, 0, packet id (u16, big endian).
    Inbound = 5,
    /// Retained messages: key = topic.
    Retained = 6,
    /// What the meta group holds: key = kind of row, then its name (see `cluster`).
    Cluster = 7,
    /// Commands of other nodes that were applied lately: key = request id (see `actors`).
    Applied = 8,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 8] = [
        Self::Device,
        Self::Shadow,
        Self::Subscription,
        Self::Queue,
        Self::Inbound,
        Self::Retained,
        Self::Cluster,
        Self::Applied,
    ];

    /// The table of a number on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == number)
    }
}

/// What to do with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Store this value.
    Put(Vec<u8>),
    /// Remove the key, if it is there.
    Delete,
    /// Remove every key that begins with the write's key.
    DeletePrefix,
}

/// One change to one key. Values are absolute, so that applying a log twice is applying it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// Which key, or prefix.
    pub key: Vec<u8>,
    /// What to do with it.
    pub operation: Operation,
}

impl Write {
    /// Stores a value.
    pub fn put(table: Table, key: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        Self {
            table,
            key: key.into(),
            operation: Operation::Put(value),
        }
    }

    /// Removes a key.
    pub fn delete(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self {
            table,
            key: key.into(),
            operation: Operation::Delete,
        }
    }

    /// Removes every key that begins with `prefix`.
    pub fn delete_prefix(table: Table, prefix: impl Into<Vec<u8>>) -> Self {
        Self {
            table,
            key: prefix.into(),
            operation: Operation::DeletePrefix,
        }
    }
}

/// Keys and values in key order.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Why a read has no answer. The state of a shard is unchanged.
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// A record failed its checksum or does not decode: the shard has to be rebuilt.
    #[error("record of table {table:?} is damaged: {detail}")]
    Damaged {
        /// Where it was found.
        table: Table,
        /// What was found.
        detail: String,
    },
    /// The store could not be read.
    #[error("state store: {0}")]
    Io(String),
}
