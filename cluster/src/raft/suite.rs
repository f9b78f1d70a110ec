//! openraft's own test suite for storage, run on ours: over the twins in memory and over the real stores.

use std::sync::Arc;

use openraft::{
    storage::RaftLogStorage,
    testing::{StoreBuilder, Suite},
};
use tempfile::TempDir;
use tokio::sync::watch;
use umbel_core::ids::ShardId;
use umbel_storage::{
    log::{GroupId, GroupLog, Log, LogOptions},
    memory::{MemoryLog, MemoryState},
    state::State,
    store::{StateOptions, StateStore},
};

use crate::raft::{
    log_store::LogStore,
    machine::Machine,
    state_machine::StateMachine,
    types::{Applied, StorageError, Types},
};

struct Memory;

impl StoreBuilder<Types, LogStore, StateMachine> for Memory {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError> {
        let (log, state) = (Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()));
        let (store, machine) = build(log, state);
        Ok(((), store, machine))
    }
}

fn build(log: Arc<dyn GroupLog>, state: Arc<dyn State>) -> (LogStore, StateMachine) {
    let fatal = Arc::new(|message| panic!("{message}"));
    let store = LogStore::open(GroupId(3), 0, log, fatal).expect("an empty log opens");
    let machine = Machine::new(
        ShardId(3),
        state,
        store.common(),
        Applied::default(),
        None,
        watch::Sender::new(0),
    )
    .expect("machine");
    (store, StateMachine(Arc::new(machine)))
}

struct OnDisk;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().expect("a directory");
        let options = LogOptions::new(dir.path().join("log"), Arc::new(|why| panic!("{why}")));
        let log = Log::open(&options).expect("log opens");
        let options = StateOptions::new(dir.path().join("state"), 4);
        let state = StateStore::open(&options).expect("state opens");
        let (store, machine) = build(Arc::new(log), Arc::new(state));
        Ok((dir, store, machine))
    }
}

#[test]
fn openrafts_suite_passes_on_disk() {
    Suite::test_all(OnDisk).expect("suite");
}

#[test]
fn openrafts_suite_passes_in_memory() {
    Suite::test_all(Memory).expect("suite");
}

#[tokio::test]
async fn a_leadership_of_our_own_does_not_outlive_its_process() {
    let (mut store, _) = build(Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()));
    let own = openraft::Vote::new_committed(7, 0);
    let other = openraft::Vote::new_committed(7, 1);

    store.save_vote(&own).await.expect("saved");
    assert_eq!(
        store.read_vote().await.expect("read"),
        Some(openraft::Vote::new(7, 0))
    );

    store.save_vote(&other).await.expect("saved");
    assert_eq!(store.read_vote().await.expect("read"), Some(other));
}
