//! raft-engine behind the few verbs that are needed of it. Nothing else in the house names it.
//!
//! raft-engine panics when a sync fails (its `LogFileWriter::sync` unwraps `fdatasync`), and may panic on a log whose
//! middle is missing. Every call is therefore made under `catch_unwind`, and a panic is an error that ends the node.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use raft_engine::{
    Command, Config, Engine, Error as EngineError, LogBatch, ReadableSize, RecoveryMode,
    env::FileSystem,
};

use super::{
    GroupId,
    entry::{Entries, Entry},
};
use crate::guard::guarded;

/// Every write is synced, but in the build that chaos has to find guilty.
const SYNC: bool = !cfg!(feature = "plant-ack-early");

/// Region of the node's own values; groups use the numbers from 2 on.
pub(super) const NODE_REGION: u64 = 1;

/// raft-engine's number of a group. The last two groups do not exist: theirs would be the node's own.
pub(super) fn region_of(group: GroupId) -> u64 {
    debug_assert!(group.0 < u64::MAX - 1, "this group cannot be found again");
    group.0.wrapping_add(2)
}

/// The group of a region.
pub(super) fn group_of(region: u64) -> GroupId {
    GroupId(region.wrapping_sub(2))
}

/// Why a write did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WriteFailure {
    /// No room: nothing of the batch was written.
    Full,
    /// Whether the batch is on disk is not known: the node must not go on.
    Fatal(String),
}

/// One write to disk: the changes of many groups, in order.
#[derive(Default)]
pub(super) struct Batch {
    inner: LogBatch,
    pub(super) entries: u64,
}

impl Batch {
    pub(super) fn append(
        &mut self,
        group: GroupId,
        entries: Vec<(u64, Bytes)>,
    ) -> Result<(), String> {
        self.entries += entries.len() as u64;
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(index, data)| Entry::new(index, data))
            .collect();
        self.inner
            .add_entries::<Entries>(region_of(group), &entries)
            .map_err(|error| error.to_string())
    }

    /// Removes the entries below `index`.
    pub(super) fn compact(&mut self, group: GroupId, index: u64) {
        self.inner
            .add_command(region_of(group), Command::Compact { index });
    }

    pub(super) fn clean(&mut self, group: GroupId) {
        self.inner.add_command(region_of(group), Command::Clean);
    }

    pub(super) fn put(&mut self, region: u64, key: u8, value: &[u8]) -> Result<(), String> {
        self.inner
            .put(region, vec![key], value.to_vec())
            .map_err(|error| error.to_string())
    }

    pub(super) fn delete(&mut self, region: u64, key: u8) {
        self.inner.delete(region, vec![key]);
    }
}

/// What the log needs of a store.
pub(super) trait Disk: Send + Sync {
    /// Writes a batch and syncs it; returns bytes written.
    fn write(&self, batch: &mut Batch) -> Result<usize, WriteFailure>;
    /// Indexes of a group's entries.
    fn span(&self, group: GroupId) -> Range<u64>;
    /// A value.
    fn value(&self, region: u64, key: u8) -> Option<Vec<u8>>;
    /// Entries of a range that exists, the first always, further ones up to `bytes_max`.
    fn fetch(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, String>;
    /// Every group that has something.
    fn groups(&self) -> Vec<GroupId>;
    /// Deletes files that nothing needs; says which groups keep old files alive.
    fn clean_up(&self) -> Result<Vec<GroupId>, WriteFailure>;
    /// Bytes on disk.
    fn size_bytes(&self) -> u64;
}

/// Sizes of the engine's files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) file_bytes: u64,
    pub(super) purge_bytes: u64,
}

/// Opens the engine. `absolute` refuses everything unreadable; otherwise an unreadable end is cut off.
pub(super) fn open<F: FileSystem + 'static>(
    dir: &str,
    sizes: Sizes,
    files: Arc<F>,
    absolute: bool,
) -> Result<Box<dyn Disk>, String> {
    let recovery_mode = if absolute {
        RecoveryMode::AbsoluteConsistency
    } else {
        RecoveryMode::TolerateTailCorruption
    };
    let config = Config {
        dir: dir.to_owned(),
        recovery_mode,
        // one thread replays in file order; a log of this size takes well below a second
        recovery_threads: 1,
        target_file_size: ReadableSize(sizes.file_bytes),
        purge_threshold: ReadableSize(sizes.purge_bytes.max(sizes.file_bytes)),
        // a recycled file has old batches behind the torn end; fresh ones have zeros
        enable_log_recycle: false,
        ..Config::default()
    };
    let engine = guarded("opening the log", || {
        Engine::open_with_file_system(config, files)
    })?
    .map_err(|error| error.to_string())?;
    Ok(Box::new(engine))
}

impl<F: FileSystem + 'static> Disk for Engine<F> {
    fn write(&self, batch: &mut Batch) -> Result<usize, WriteFailure> {
        let written = guarded("writing the log", || {
            Self::write(self, &mut batch.inner, SYNC)
        })
        .map_err(WriteFailure::Fatal)?;
        written.map_err(failure_of)
    }

    fn span(&self, group: GroupId) -> Range<u64> {
        let region = region_of(group);
        match (self.first_index(region), self.last_index(region)) {
            (Some(first), Some(last)) => first..last + 1,
            _ => 0..0,
        }
    }

    fn value(&self, region: u64, key: u8) -> Option<Vec<u8>> {
        self.get(region, &[key])
    }

    fn fetch(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, String> {
        let mut entries = Vec::new();
        guarded("reading the log", || {
            self.fetch_entries_to::<Entries>(
                region_of(group),
                range.start,
                range.end,
                Some(bytes_max.max(1)),
                &mut entries,
            )
        })?
        .map_err(|error| error.to_string())?;
        Ok(entries
            .into_iter()
            .map(|entry: Entry| (entry.index, entry.data))
            .collect())
    }

    fn groups(&self) -> Vec<GroupId> {
        let regions = self
            .raft_groups()
            .into_iter()
            .filter(|region| *region != NODE_REGION);
        regions.map(group_of).collect()
    }

    fn clean_up(&self) -> Result<Vec<GroupId>, WriteFailure> {
        let regions = guarded("purging the log", || self.purge_expired_files())
            .map_err(WriteFailure::Fatal)?
            .map_err(failure_of)?;
        let regions = regions.into_iter().filter(|region| *region != NODE_REGION);
        Ok(regions.map(group_of).collect())
    }

    fn size_bytes(&self) -> u64 {
        self.get_used_size() as u64
    }
}

/// raft-engine truncates what it wrote of a batch when it meets a full disk, so nothing of it remains. After any other
/// error that is not known.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn failure_of(error: EngineError) -> WriteFailure {
    let no_room = if let EngineError::Io(error) = &error {
        error.kind() == std::io::ErrorKind::StorageFull
    } else {
        matches!(error, EngineError::TryAgain(_))
    };
    if no_room {
        WriteFailure::Full
    } else {
        WriteFailure::Fatal(error.to_string())
    }
}
