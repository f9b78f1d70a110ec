//! Snapshots of this node's shards that somebody reads, part by part.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use umbel_cluster::Shards;
use umbel_core::ids::ShardId;

/// Bytes of a part: a few make the link busy, and none keeps it from more urgent things for long.
const PART_BYTES: usize = 512 << 10;
/// Snapshots read at the same time. Each holds an open file; a backup reads one after the other.
const OPEN_MAX: usize = 8;
/// A reader that is silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// A snapshot that waits to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// For asking for its parts.
    pub(crate) ticket: u64,
    /// Last entry of the log that is in it.
    pub(crate) index: u64,
}

/// Bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) bytes: Bytes,
    /// Nothing follows.
    pub(crate) is_last: bool,
}

struct Open {
    reader: Box<dyn Read + Send>,
    offset: u64,
    touched: Instant,
}

/// The snapshots being read.
#[derive(Default)]
pub(crate) struct Cuts {
    open: Mutex<BTreeMap<u64, Open>>,
    tickets: AtomicU64,
}

impl Cuts {
    /// Takes a snapshot of a shard that this node owns.
    pub(super) async fn take(&self, shards: &Shards, shard: ShardId) -> Result<Cut, String> {
        self.forget_silent();
        if self.open.lock().len() >= OPEN_MAX {
            return Err("too many backups at once".to_owned());
        }
        let snapshot = shards.cut(shard).await?;
        let reader = snapshot.open().map_err(|error| error.to_string())?;
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let open = Open {
            reader,
            offset: 0,
            touched: Instant::now(),
        };
        self.open.lock().insert(ticket, open);
        Ok(Cut {
            ticket,
            index: snapshot.mark.index,
        })
    }

    /// The next bytes. They are given once: a reader that lost them begins anew.
    pub(super) async fn part(&self, ticket: u64, offset: u64) -> Result<Part, String> {
        // Out of the table while it is read: no lock waits for a disk.
        let open = self.open.lock().remove(&ticket);
        let mut open = open.ok_or("this snapshot is not there any more")?;
        if open.offset != offset {
            return Err(format!("{offset} is not where the reading goes on"));
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(PART_BYTES);
            let limit = PART_BYTES as u64;
            let read = open.reader.by_ref().take(limit).read_to_end(&mut bytes);
            read.map(|_| (open, bytes))
        });
        let read = read.await.map_err(|panic| panic.to_string())?;
        let (mut open, bytes) = read.map_err(|error| error.to_string())?;
        let is_last = bytes.len() < PART_BYTES;
        if !is_last {
            open.offset += bytes.len() as u64;
            open.touched = Instant::now();
            self.open.lock().insert(ticket, open);
        }
        Ok(Part {
            bytes: bytes.into(),
            is_last,
        })
    }

    fn forget_silent(&self) {
        self.open
            .lock()
            .retain(|_, open| open.touched.elapsed() < SILENCE_MAX);
    }

    #[cfg(test)]
    fn insert(&self, bytes: Vec<u8>) -> u64 {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let open = Open {
            reader: Box::new(std::io::Cursor::new(bytes)),
            offset: 0,
            touched: Instant::now(),
        };
        self.open.lock().insert(ticket, open);
        ticket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_snapshot_is_read_to_its_end_and_then_forgotten() {
        let cuts = Cuts::default();
        for length in [0, 1, PART_BYTES, PART_BYTES * 2 + 7] {
            let bytes: Vec<u8> = (0..length)
                .map(|n| u8::try_from(n % 251).unwrap())
                .collect();
            let ticket = cuts.insert(bytes.clone());
            let mut read: Vec<u8> = Vec::new();
            loop {
                let part = cuts.part(ticket, read.len() as u64).await.unwrap();
                read.extend(&part.bytes);
                if part.is_last {
                    break;
                }
            }
            assert_eq!(read, bytes);
            assert!(cuts.part(ticket, 0).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_reader_at_another_place_begins_anew() {
        let cuts = Cuts::default();
        let ticket = cuts.insert(vec![0; PART_BYTES * 2]);
        cuts.part(ticket, 0).await.unwrap();
        assert!(cuts.part(ticket, 0).await.is_err());
    }
}
