//! The state on disk: sled for the rows, a file per snapshot.
//!
//! The hot path never flushes: after a crash the state may be behind, and the log is applied again. It may never be
//! *wrong*: every row is sealed, every shard has a digest, and what does not match is not served.

mod apply;
mod check;
mod incoming;
mod open;
mod progress;
mod rows;
mod shard;
mod snapshots;

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use umbel_core::ids::ShardId;

use self::{
    progress::{Intent, Progress},
    rows::{Fault, OWN, Rows, row_key, split},
    shard::{Applied, Pass, Shard},
    snapshots::{Snapshots, failure},
};
use crate::{
    crash, digest,
    guard::guarded,
    metrics::state as names,
    snapshot::{self, Snapshot},
    state::{Health, Mark, State, StateError},
    table::{Pairs, ReadError, Table, Write},
};

/// How to open a [`StateStore`].
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Where the state lives; created when missing. One process at a time.
    pub dir: PathBuf,
    /// How many shards there are: 0 up to this number, itself excluded; beside them there is [`ShardId::META`].
    pub shards: u16,
    /// Memory for sled's page cache.
    pub cache_bytes: u64,
}

impl StateOptions {
    /// The defaults for a directory: 32 MiB of cache.
    pub fn new(dir: impl Into<PathBuf>, shards: u16) -> Self {
        Self {
            dir: dir.into(),
            shards,
            cache_bytes: 32 << 20,
        }
    }
}

/// The [`State`] on disk.
pub struct StateStore {
    rows: Rows,
    /// By number; the last one is [`ShardId::META`].
    shards: Vec<Shard>,
    snapshots: Snapshots,
    /// The shard the scrub is at.
    scrubbing: AtomicUsize,
}

impl fmt::Debug for StateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateStore")
            .field("shards", &self.shards.len())
            .field("snapshots", &self.snapshots)
            .finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens or creates the state and checks every row of every shard. A store that sled cannot open, or panics on, is
    /// renamed to `damaged-<n>` and an empty one takes its place.
    pub fn open(options: &StateOptions) -> Result<Self, StateError> {
        open::open(options)
    }

    fn new(rows: Rows, shards: Vec<Shard>, snapshots: Snapshots) -> Self {
        let store = Self {
            rows,
            shards,
            snapshots,
            scrubbing: AtomicUsize::new(0),
        };
        names::damaged(store.damaged().len());
        store
    }

    fn shard(&self, id: ShardId) -> Result<&Shard, StateError> {
        let last = self.shards.len().saturating_sub(1);
        let at = if id == ShardId::META {
            last
        } else {
            usize::from(id.0)
        };
        // The last one goes by its own name only.
        let shard = (at < last || id == ShardId::META).then(|| self.shards.get(at));
        let shard = shard.flatten();
        shard.ok_or_else(|| StateError::Io(format!("there is no shard {id}")))
    }

    /// The shard at a place of the list.
    fn id_at(&self, at: usize) -> ShardId {
        if at + 1 == self.shards.len() {
            ShardId::META
        } else {
            ShardId(u16::try_from(at).unwrap_or(u16::MAX))
        }
    }

    /// The shard, if it may be believed.
    fn sound(&self, id: ShardId) -> Result<&Shard, StateError> {
        let shard = self.shard(id)?;
        match shard.damage() {
            Some(detail) => Err(StateError::Damaged { shard: id, detail }),
            None => Ok(shard),
        }
    }

    /// Runs a call of sled for a shard. What it finds damaged is damaged from now on; a panic leaves the shard in
    /// doubt.
    fn with_rows<T>(
        &self,
        id: ShardId,
        call: impl FnOnce(&Rows) -> Result<T, Fault>,
    ) -> Result<T, StateError> {
        match guarded("sled", || call(&self.rows)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Fault::Full)) => Err(StateError::Full),
            Ok(Err(Fault::Store(detail))) => Err(StateError::Io(detail)),
            Ok(Err(Fault::Record(detail))) | Err(detail) => {
                self.quarantine(id, &detail);
                Err(StateError::Damaged { shard: id, detail })
            },
        }
    }

    fn read<T>(
        &self,
        id: ShardId,
        table: Table,
        call: impl FnOnce(&Rows) -> Result<T, Fault>,
    ) -> Result<T, ReadError> {
        let outcome = self.sound(id).and_then(|_| self.with_rows(id, call));
        outcome.map_err(|error| match error {
            StateError::Damaged { detail, .. } => ReadError::Damaged { table, detail },
            StateError::Snapshot { .. } | StateError::Full | StateError::Io(_) => {
                ReadError::Io(error.to_string())
            },
        })
    }

    /// Replaces all rows of a shard by what `fill` writes.
    fn rebuild(
        &self,
        id: ShardId,
        applied: &mut Applied,
        mark: Option<&Mark>,
        fill: impl FnOnce(&Rows) -> Result<(), Fault>,
    ) -> Result<(), StateError> {
        let shard = self.shard(id)?;
        self.with_rows(id, |rows| {
            apply::put_progress(rows, id, &Progress::Rebuilding)?;
            check::clear(rows, id)?;
            fill(rows)?;
            match mark {
                Some(mark) => apply::put_progress(rows, id, &Progress::Intent(settled(mark))),
                None => rows.remove(&row_key(id, OWN, &[])),
            }
        })?;
        applied.reset(mark.cloned().unwrap_or_default());
        shard.set_sound();
        names::damaged(self.damaged().len());
        Ok(())
    }

    /// One step of the scrub in one shard; true when the shard is done.
    fn scrub_shard(&self, id: ShardId, shard: &Shard, rows_max: usize) -> Result<bool, StateError> {
        let mut applied = shard.applied.lock();
        let start = || Pass {
            after: row_key(id, OWN, &[]),
            ..Pass::default()
        };
        let mut pass = applied.pass.take().unwrap_or_else(start);
        let page = self.with_rows(id, |rows| {
            rows.scan(&id.0.to_be_bytes(), Some(&pass.after), rows_max)
        })?;
        for (key, value) in &page {
            let (table, row) = split(key);
            pass.sum = pass.sum.plus(digest::of_row(table, row, value));
        }
        names::scrubbed(page.len());
        let done = page.len() < rows_max;
        if let Some((last, _)) = page.into_iter().next_back() {
            pass.after = last;
        }
        if done && pass.sum != applied.mark.digest {
            self.quarantine(id, "scrub: the digest does not match the rows");
        } else if !done {
            applied.pass = Some(pass);
        }
        Ok(done)
    }
}

/// The progress of a shard in which nothing is under way.
fn settled(mark: &Mark) -> Intent {
    Intent {
        index: mark.index,
        meta: mark.meta.clone(),
        index_before: mark.index,
        meta_before: mark.meta.clone(),
        others: mark.digest.0,
        ..Intent::default()
    }
}

impl State for StateStore {
    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(shard, table, |rows| {
            rows.get(&row_key(shard, table as u8, key))
        })
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        let prefix = row_key(shard, table as u8, prefix);
        let after = after.map(|after| row_key(shard, table as u8, after));
        let found = self.read(shard, table, |rows| {
            rows.scan(&prefix, after.as_deref(), limit)
        })?;
        Ok(found
            .into_iter()
            .map(|(key, value)| (split(&key).1.to_vec(), value))
            .collect())
    }

    fn apply(
        &self,
        shard: ShardId,
        index: u64,
        meta: &[u8],
        writes: &[Write],
    ) -> Result<(), StateError> {
        let mut applied = self.sound(shard)?.applied.lock();
        // The last entry again is harmless, and index 0 is a real entry of a log although it is also "none yet".
        if index < applied.mark.index {
            return Ok(());
        }
        crash::point("state.apply.before");
        let changed = self.with_rows(shard, |rows| {
            apply::apply(rows, shard, &mut applied, index, meta, writes)
        })?;
        crash::point("state.apply.after");
        names::applied(changed);
        Ok(())
    }

    fn applied(&self, shard: ShardId) -> Result<Mark, StateError> {
        Ok(self.sound(shard)?.applied.lock().mark.clone())
    }

    fn checkpoint(&self, shard: ShardId) -> Result<Mark, StateError> {
        let mark = self.applied(shard)?;
        crash::point("state.checkpoint.before");
        self.with_rows(shard, Rows::durable)?;
        crash::point("state.checkpoint.after");
        names::size(self.size_bytes());
        Ok(mark)
    }

    fn snapshot(&self, shard: ShardId) -> Result<Snapshot, StateError> {
        let applied = self.sound(shard)?.applied.lock();
        let mark = &applied.mark;
        self.snapshots.replace(shard, mark, |out| {
            let mut writer = snapshot::Writer::begin(out, shard, mark).map_err(failure)?;
            self.with_rows(shard, |rows| {
                check::each_row(rows, shard, |key, value| {
                    let (table, row) = split(key);
                    writer
                        .row(table, row, value)
                        .map_err(|error| Fault::Store(format!("writing a snapshot: {error}")))
                })
            })?;
            let (_, digest) = writer.finish().map_err(failure)?;
            if digest == mark.digest {
                return Ok(());
            }
            // the older snapshot stays: this one would make the damage lasting
            let detail = "snapshot: the digest does not match the rows";
            self.quarantine(shard, detail);
            Err(StateError::Damaged {
                shard,
                detail: detail.to_owned(),
            })
        })
    }

    fn latest_snapshot(&self, shard: ShardId) -> Result<Option<Snapshot>, StateError> {
        self.snapshots.latest(shard)
    }

    fn incoming(&self, shard: ShardId, id: u64) -> Result<u64, StateError> {
        self.snapshots.incoming.begin(shard, id)
    }

    fn receive(
        &self,
        shard: ShardId,
        id: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StateError> {
        self.snapshots.incoming.add(shard, id, offset, bytes)
    }

    fn received(&self, shard: ShardId, id: u64) -> Result<Snapshot, StateError> {
        self.snapshots.incoming.check(shard, id)
    }

    fn adopt(&self, received: &Snapshot) -> Result<Snapshot, StateError> {
        self.snapshots.adopt(received)
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<(), StateError> {
        let id = snapshot.shard;
        let mut applied = self.shard(id)?.applied.lock();
        let open = || snapshot.open().map_err(failure);
        let mark = snapshot::read(&mut open()?, id, |_, _, _| Ok(()))?;
        crash::point("state.restore.before");
        self.rebuild(id, &mut applied, Some(&mark), |rows| {
            let put = |table, key: &[u8], value: &[u8]| {
                let put = rows.put(&row_key(id, table, key), value);
                put.map_err(|fault| StateError::Io(format!("{fault:?}")))
            };
            let read = open().and_then(|mut input| snapshot::read(&mut input, id, put));
            read.map(|_| ())
                .map_err(|error| Fault::Store(error.to_string()))
        })?;
        crash::point("state.restore.after");
        tracing::info!(shard = %id, index = mark.index, "shard restored from its snapshot");
        Ok(())
    }

    fn drop_shard(&self, shard: ShardId) -> Result<(), StateError> {
        let mut applied = self.shard(shard)?.applied.lock();
        self.rebuild(shard, &mut applied, None, |_| Ok(()))
    }

    fn erase(&self, shard: ShardId) -> Result<(), StateError> {
        self.drop_shard(shard)?;
        self.snapshots.remove(shard)
    }

    fn health(&self, shard: ShardId) -> Health {
        self.shard(shard).map_or(Health::Sound, Shard::health)
    }

    fn damaged(&self) -> Vec<ShardId> {
        let shards = self.shards.iter().enumerate();
        shards
            .filter(|(_, shard)| shard.is_damaged())
            .map(|(at, _)| self.id_at(at))
            .collect()
    }

    fn quarantine(&self, shard: ShardId, detail: &str) {
        tracing::error!(%shard, detail, "shard is damaged: nothing of it is served until it is rebuilt");
        if let Ok(shard) = self.shard(shard) {
            shard.set_damaged(detail.to_owned());
        }
        names::damaged(self.damaged().len());
    }

    fn scrub(&self, rows_max: usize) -> bool {
        let at = self.scrubbing.load(Ordering::Relaxed);
        let Some(shard) = self.shards.get(at) else {
            return true;
        };
        let id = self.id_at(at);
        // what is damaged is known already; what fails is reported by those who use it
        let done = shard.is_damaged() || self.scrub_shard(id, shard, rows_max).unwrap_or(true);
        if !done {
            return false;
        }
        let next = (at + 1) % self.shards.len().max(1);
        self.scrubbing.store(next, Ordering::Relaxed);
        next == 0
    }

    fn size_bytes(&self) -> u64 {
        self.rows.size_bytes() + self.snapshots.size_bytes()
    }
}

#[cfg(test)]
mod tests;
