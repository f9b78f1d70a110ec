//! openraft's state machine over [`Machine`]: fence, apply, snapshot.
//!
//! `apply` is total. An entry of another owner's term is refused, on every replica alike; an entry that is not
//! understood stops the shard by name, and is never skipped: the replicas that do understand it would go on with
//! other rows.

use std::sync::{Arc, atomic::Ordering};

use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, SnapshotMeta, StorageIOError,
    storage::RaftStateMachine,
};
use umbel_storage::{Write, crash, state::StateError};

use crate::{
    codec::{self, Batch},
    raft::{
        Damage,
        machine::{Machine, StoredSnapshot},
        types::{
            self, Applied, Entry, Id, Members, Payload, SnapshotBody, StorageError, Types, Verdict,
        },
    },
};

/// Writes of several entries are applied together up to this weight: bounds memory while a log is replayed.
const APPLY_WEIGHT_MAX: usize = 4 << 20;

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
        if let Err(error) = self.0.write(applied, pending.writes).await {
            let damage = Damage::new(format!("apply: {error}"));
            // The log is whole, so this can be mended: the keeper rebuilds shards that the state calls damaged. A
            // full disk is no damage; it ends the waiting only when the group is being stopped.
            if !matches!(error, StateError::Full) {
                self.0.state.quarantine(self.0.shard, &damage.to_string());
            }
            return Err(damage);
        }
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
        crash::point("apply.before");
        let outcome = self.apply_all(&mut applied, entries.into_iter()).await;
        crash::point("apply.after");
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
        let Some(received) = snapshot.0 else {
            return Err(self.stop(&Damage::new(
                "a snapshot was installed before it came".into(),
            )));
        };
        let mut applied = self.0.applied.lock().await;
        crash::point("install.before");
        let installed = self.0.install(received).await;
        crash::point("install.after");
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
