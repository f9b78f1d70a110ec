//! openraft's state machine over [`State`]: fence, apply, snapshot.
//!
//! `apply` is total. An entry of another owner's term is refused, on every replica alike; an entry that is not
//! understood stops the shard by name, and is never skipped: the replicas that do understand it would go on with
//! other rows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError,
    storage::RaftStateMachine,
};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use umbel_core::ids::ShardId;
use umbel_storage::{
    Operation, Write,
    snapshot::Snapshot,
    state::{Mark, State, StateError},
};

use crate::{
    codec::{self, Batch},
    raft::{
        Damage,
        log_store::Recent,
        types::{
            self, Applied, Entry, Id, Members, Payload, SnapshotBody, StorageError, Types, Verdict,
        },
    },
};

/// Up to this many writes are applied in the task that asks: about what a task switch costs.
const INLINE_WRITES_MAX: usize = 8;
/// Writes of several entries are applied together up to this weight: bounds memory while a log is replayed.
const APPLY_WEIGHT_MAX: usize = 4 << 20;
/// How long an apply waits for room on a full disk before it is made again.
const FULL_RETRY: Duration = Duration::from_millis(250);

type StoredSnapshot = (SnapshotMeta<u64, openraft::EmptyNode>, Snapshot);

/// What a shard's group has applied, shared by openraft's worker, the snapshot keeper and readers of status.
pub(crate) struct Machine {
    shard: ShardId,
    state: Arc<dyn State>,
    recent: Arc<Mutex<Recent>>,
    /// Held while rows change, and while a snapshot needs them not to.
    applied: AsyncMutex<Applied>,
    /// [`types::owner_term`] of the last applied entry.
    applied_term: AtomicU64,
    applied_index: AtomicU64,
    /// Bytes of batches applied since the last snapshot.
    fresh_bytes: AtomicU64,
    snapshot: Mutex<Option<StoredSnapshot>>,
    /// The latest snapshot was taken for openraft, which is about to ask for it.
    prepared: AtomicBool,
    quarantined: Mutex<Option<String>>,
    /// The group has stopped; written under the lock of `applied`.
    closed: AtomicBool,
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
        recent: Arc<Mutex<Recent>>,
        applied: Applied,
        snapshot: Option<Snapshot>,
    ) -> Result<Self, Damage> {
        let snapshot = snapshot
            .map(|snapshot| Ok::<_, Damage>((snapshot_meta(&snapshot.mark)?, snapshot)))
            .transpose()?;
        let machine = Self {
            shard,
            state,
            recent,
            applied_term: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            fresh_bytes: AtomicU64::new(0),
            snapshot: Mutex::new(snapshot),
            prepared: AtomicBool::new(false),
            quarantined: Mutex::new(None),
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
        self.quarantined.lock().clone()
    }

    /// Whether the shard serves nothing.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.quarantined.lock().is_some()
    }

    /// From now on the shard serves nothing. The first reason stays.
    pub(crate) fn quarantine(&self, detail: String) {
        let mut quarantined = self.quarantined.lock();
        if quarantined.is_none() {
            tracing::error!(shard = self.shard.0, %detail, "shard quarantined");
            *quarantined = Some(detail);
        }
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

    /// The next snapshot openraft asks for is the latest one.
    pub(crate) fn prepare(&self) {
        self.prepared.store(true, Ordering::Release);
    }

    fn publish(&self, id: Option<Id>) {
        if let Some(id) = id {
            self.applied_index.store(id.index, Ordering::Release);
            self.applied_term
                .store(types::owner_term(id.leader_id), Ordering::Release);
            self.recent.lock().applied(id.index);
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn State) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || work(state.as_ref()))
            .await
            .unwrap_or_else(|error| Err(StateError::Io(format!("state task ended: {error}"))))
    }

    /// Applies writes and remembers how far; waits while the disk is full.
    async fn write(&self, applied: &Applied, writes: Vec<Write>) -> Result<(), StateError> {
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
                Err(StateError::Full) => tokio::time::sleep(FULL_RETRY).await,
                done => return done,
            }
        }
    }
}

/// The part of a run of entries that is understood and not yet written.
#[derive(Default)]
struct Pending {
    writes: Vec<Write>,
    weight: usize,
}

/// openraft's handle on a [`Machine`].
#[derive(Clone)]
pub(crate) struct StateMachine(pub(crate) Arc<Machine>);

impl StateMachine {
    async fn apply_all(
        &self,
        applied: &mut Applied,
        entries: impl Iterator<Item = Entry> + Send,
    ) -> Result<Vec<Verdict>, Damage> {
        let machine = &self.0;
        let mut verdicts = Vec::new();
        let mut pending = Pending::default();
        let mut stopped = None;
        for entry in entries {
            match understand(&entry) {
                Ok(None) => verdicts.push(Verdict::Fenced),
                Ok(Some(mut writes)) => {
                    pending.weight += codec::weight(&writes);
                    pending.writes.append(&mut writes);
                    verdicts.push(Verdict::Applied);
                },
                Err(damage) => {
                    stopped = Some(damage);
                    break;
                },
            }
            applied.id = Some(entry.log_id);
            match entry.payload {
                EntryPayload::Membership(members) => {
                    applied.members = Members::new(Some(entry.log_id), members);
                },
                EntryPayload::Normal(Payload(bytes)) => {
                    machine
                        .fresh_bytes
                        .fetch_add(bytes.len() as u64, Ordering::Relaxed);
                },
                EntryPayload::Blank => {},
            }
            if pending.weight >= APPLY_WEIGHT_MAX {
                self.flush(applied, std::mem::take(&mut pending)).await?;
            }
        }
        // Also without a write: the state has to know how far it is.
        if !verdicts.is_empty() {
            self.flush(applied, pending).await?;
        }
        stopped.map_or(Ok(verdicts), Err)
    }

    async fn flush(&self, applied: &Applied, pending: Pending) -> Result<(), Damage> {
        let outcome = self.0.write(applied, pending.writes).await;
        outcome.map_err(|error| Damage::new(format!("apply: {error}")))?;
        self.0.publish(applied.id);
        Ok(())
    }

    fn stop(&self, damage: &Damage) -> StorageError {
        self.0.quarantine(damage.to_string());
        StorageIOError::write_state_machine(AnyError::new(damage)).into()
    }
}

/// The writes of an entry: none for Raft's own entries, `None` for a batch of another term.
fn understand(entry: &Entry) -> Result<Option<Vec<Write>>, Damage> {
    let EntryPayload::Normal(Payload(bytes)) = &entry.payload else {
        return Ok(Some(Vec::new()));
    };
    let batch = Batch::decode(bytes)
        .map_err(|error| Damage::new(format!("log entry {}: {error}", entry.log_id.index)))?;
    let ours = batch.term == types::owner_term(entry.log_id.leader_id);
    Ok(ours.then(|| batch.commands.into_iter().flatten().collect()))
}

fn snapshot_meta(mark: &Mark) -> Result<SnapshotMeta<u64, openraft::EmptyNode>, Damage> {
    let applied = Applied::decode(&mark.meta)
        .map_err(|error| Damage::new(format!("snapshot at index {}: {error}", mark.index)))?;
    let snapshot_id = applied.id.map(|id| id.to_string()).unwrap_or_default();
    Ok(SnapshotMeta {
        last_log_id: applied.id,
        last_membership: applied.members,
        snapshot_id,
    })
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<Id>, Members), StorageError> {
        let applied = self.0.applied.lock().await;
        Ok((applied.id, applied.members.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Verdict>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.0.applied.lock().await;
        if self.0.closed.load(Ordering::Acquire) {
            let error = Damage::new("the group has stopped".to_owned());
            return Err(StorageIOError::write_state_machine(AnyError::new(&error)).into());
        }
        let outcome = self.apply_all(&mut applied, entries.into_iter()).await;
        outcome.map_err(|damage| self.stop(&damage))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotBody>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, openraft::EmptyNode>,
        snapshot: Box<SnapshotBody>,
    ) -> Result<(), StorageError> {
        let shard = self.0.shard;
        let Some(received) = snapshot.0 else {
            return Err(self.stop(&Damage::new(
                "a snapshot was installed before it came".into(),
            )));
        };
        let mut applied = self.0.applied.lock().await;
        let installed = self
            .0
            .blocking(move |state| {
                let bytes = received
                    .bytes()
                    .map_err(|error| StateError::Io(error.to_string()))?;
                let stored = state.receive_snapshot(shard, &bytes)?;
                state.restore(&stored)?;
                Ok(stored)
            })
            .await;
        let stored = installed
            .map_err(|error| self.stop(&Damage::new(format!("install a snapshot: {error}"))))?;
        *applied = Applied {
            id: meta.last_log_id,
            members: meta.last_membership.clone(),
        };
        self.0.publish(applied.id);
        self.0.fresh_bytes.store(0, Ordering::Relaxed);
        *self.0.snapshot.lock() = Some((meta.clone(), stored));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::Snapshot<Types>>, StorageError> {
        Ok(self.0.snapshot.lock().clone().map(offered))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    /// Hands out the latest snapshot when it is as new as the state, which is how the keeper does it: it takes the
    /// snapshot first, where a failure is only counted, and then lets openraft know. An error here ends the group.
    async fn build_snapshot(&mut self) -> Result<openraft::Snapshot<Types>, StorageError> {
        let failed = |detail: &str| {
            let error = Damage::new(detail.to_owned());
            StorageError::from(StorageIOError::write_snapshot(None, AnyError::new(&error)))
        };
        if !self.0.prepared.swap(false, Ordering::AcqRel) {
            self.0
                .take_snapshot()
                .await
                .map_err(|error| failed(&error.to_string()))?;
        }
        let latest = self.0.snapshot.lock().clone();
        latest
            .map(offered)
            .ok_or_else(|| failed("the snapshot is gone"))
    }
}

fn offered((meta, snapshot): StoredSnapshot) -> openraft::Snapshot<Types> {
    openraft::Snapshot {
        meta,
        snapshot: Box::new(SnapshotBody(Some(snapshot))),
    }
}
