//! What a shard's group has applied, and the only way its rows change.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::SnapshotMeta;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use umbel_core::ids::ShardId;
use umbel_storage::{
    Operation, Write,
    snapshot::Snapshot,
    state::{Mark, State, StateError},
};

use crate::raft::{
    Damage,
    recent::Common,
    types::{self, Applied, Id},
};

/// Up to this many writes are applied in the task that asks: about what a task switch costs.
const INLINE_WRITES_MAX: usize = 8;
/// How long an apply waits for room on a full disk before it is made again.
const FULL_RETRY: Duration = Duration::from_millis(250);

/// A snapshot and what openraft knows it by.
pub(super) type StoredSnapshot = (SnapshotMeta<u64, openraft::EmptyNode>, Snapshot);

/// What a shard's group has applied, shared by openraft's worker, the snapshot keeper and readers of status.
pub(crate) struct Machine {
    pub(super) shard: ShardId,
    pub(super) state: Arc<dyn State>,
    common: Arc<Common>,
    /// Held while rows change, and while a snapshot needs them not to.
    pub(super) applied: AsyncMutex<Applied>,
    /// [`types::owner_term`] of the last applied entry.
    applied_term: AtomicU64,
    applied_index: AtomicU64,
    /// Told how far the state is; outlives the group.
    told: watch::Sender<u64>,
    /// Bytes of batches applied since the last snapshot.
    pub(super) fresh_bytes: AtomicU64,
    pub(super) snapshot: Mutex<Option<StoredSnapshot>>,
    /// The latest snapshot was taken for openraft, which is about to ask for it.
    pub(super) prepared: AtomicBool,
    quarantined: OnceLock<String>,
    /// The group has stopped; written under the lock of `applied`.
    pub(super) closed: AtomicBool,
}

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Index of the last applied entry.
    pub(crate) applied: u64,
    /// Index of the last entry in the latest snapshot.
    pub(crate) snapshot: Option<u64>,
    /// Bytes of batches applied since.
    pub(crate) fresh_bytes: u64,
}

impl Machine {
    /// A machine that stands where recovery found the state.
    pub(crate) fn new(
        shard: ShardId,
        state: Arc<dyn State>,
        common: Arc<Common>,
        applied: Applied,
        snapshot: Option<Snapshot>,
        told: watch::Sender<u64>,
    ) -> Result<Self, Damage> {
        let snapshot = snapshot
            .map(|snapshot| Ok::<_, Damage>((snapshot_meta(&snapshot.mark)?, snapshot)))
            .transpose()?;
        let machine = Self {
            shard,
            state,
            common,
            applied_term: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            told,
            fresh_bytes: AtomicU64::new(0),
            snapshot: Mutex::new(snapshot),
            prepared: AtomicBool::new(false),
            quarantined: OnceLock::new(),
            closed: AtomicBool::new(false),
            applied: AsyncMutex::new(Applied::default()),
        };
        machine.publish(applied.id);
        Ok(Self {
            applied: AsyncMutex::new(applied),
            ..machine
        })
    }

    /// The owner's term of the last applied entry; 0 before the first.
    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    /// How far this shard is.
    pub(crate) fn progress(&self) -> Progress {
        let snapshot = self.snapshot.lock();
        Progress {
            applied: self.applied_index.load(Ordering::Acquire),
            snapshot: snapshot
                .as_ref()
                .and_then(|(meta, _)| meta.last_log_id)
                .map(|id| id.index),
            fresh_bytes: self.fresh_bytes.load(Ordering::Relaxed),
        }
    }

    /// Why the shard serves nothing, if so.
    pub(crate) fn quarantined(&self) -> Option<String> {
        self.quarantined.get().cloned()
    }

    /// Whether the shard serves nothing.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.get().is_some()
    }

    /// From now on the shard serves nothing. The first reason stays.
    pub(crate) fn quarantine(&self, detail: String) {
        if self.quarantined.get().is_none() {
            tracing::error!(shard = self.shard.0, %detail, "shard quarantined");
        }
        self.quarantined.get_or_init(|| detail);
    }

    /// Waits for an apply that is under way and allows no other: openraft's worker may outlive its group for a
    /// moment, and whoever stops a group is about to change the rows.
    pub(crate) async fn close(&self) {
        let applied = self.applied.lock().await;
        self.closed.store(true, Ordering::Release);
        drop(applied);
    }

    /// Makes the state durable and writes a snapshot of it. Applies wait meanwhile, reads do not.
    ///
    /// Returns the mark that a restart may expect to find at least.
    pub(crate) async fn take_snapshot(&self) -> Result<Mark, StateError> {
        let shard = self.shard;
        // Without the lock: this syncs the rows of all shards and may take long.
        let mark = self.blocking(move |state| state.checkpoint(shard)).await?;
        let applied = self.applied.lock().await;
        let snapshot = self.blocking(move |state| state.snapshot(shard)).await?;
        let meta = snapshot_meta(&snapshot.mark)
            .map_err(|damage| StateError::Io(format!("a snapshot just written: {damage}")))?;
        self.fresh_bytes.store(0, Ordering::Relaxed);
        *self.snapshot.lock() = Some((meta, snapshot));
        drop(applied);
        Ok(mark)
    }

    /// Makes a received snapshot the latest and its rows the shard's; waits while the disk is full. A crash in between is
    /// made good by [`super::recover`].
    pub(super) async fn install(&self, received: Snapshot) -> Result<Snapshot, StateError> {
        let stored = self.blocking(move |state| state.adopt(&received)).await?;
        loop {
            let snapshot = stored.clone();
            match self.blocking(move |state| state.restore(&snapshot)).await {
                Ok(()) => return Ok(stored),
                Err(StateError::Full) if !self.common.stopping.load(Ordering::Acquire) => {
                    tokio::time::sleep(FULL_RETRY).await;
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// The latest snapshot.
    pub(crate) fn latest_snapshot(&self) -> Option<Snapshot> {
        let latest = self.snapshot.lock();
        latest.as_ref().map(|(_, snapshot)| snapshot.clone())
    }

    /// The next snapshot openraft asks for is the latest one.
    pub(crate) fn prepare(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    pub(super) fn publish(&self, id: Option<Id>) {
        if let Some(id) = id {
            self.applied_index.store(id.index, Ordering::Release);
            self.applied_term
                .store(types::owner_term(id.leader_id), Ordering::Release);
            self.common.recent.lock().applied(id.index);
            self.told.send_replace(id.index);
        }
    }

    /// The shard.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn State) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || work(state.as_ref()))
            .await
            .unwrap_or_else(|error| Err(StateError::Io(format!("state task ended: {error}"))))
    }

    /// Applies writes and remembers how far; waits while the disk is full.
    pub(super) async fn write(
        &self,
        applied: &Applied,
        writes: Vec<Write>,
    ) -> Result<(), StateError> {
        let index = applied.id.map_or(0, |id| id.index);
        let meta = applied
            .encode()
            .map_err(|error| StateError::Io(error.to_string()))?;
        let shard = self.shard;
        let small = writes.len() <= INLINE_WRITES_MAX
            && writes
                .iter()
                .all(|write| write.operation != Operation::DeletePrefix);
        let work = Arc::new((meta, writes));
        loop {
            let outcome = if small {
                self.state.apply(shard, index, &work.0, &work.1)
            } else {
                let work = Arc::clone(&work);
                self.blocking(move |state| state.apply(shard, index, &work.0, &work.1))
                    .await
            };
            match outcome {
                Err(StateError::Full) if !self.common.stopping.load(Ordering::Acquire) => {
                    tokio::time::sleep(FULL_RETRY).await;
                },
                done => return done,
            }
        }
    }
}

/// What openraft knows a snapshot by.
pub(super) fn snapshot_meta(mark: &Mark) -> Result<SnapshotMeta<u64, openraft::EmptyNode>, Damage> {
    let applied = Applied::decode(&mark.meta)
        .map_err(|error| Damage::new(format!("snapshot at index {}: {error}", mark.index)))?;
    let snapshot_id = applied.id.map(|id| id.to_string()).unwrap_or_default();
    Ok(SnapshotMeta {
        last_log_id: applied.id,
        last_membership: applied.members,
        snapshot_id,
    })
}
