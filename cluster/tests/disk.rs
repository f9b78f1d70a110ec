//! Shards over the real stores: restarts, damage on disk, what a crash leaves.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test finds wrong has to end it; clippy sees only the test functions themselves as tests"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use umbel_cluster::{Config, Shards};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{
    Ledger, Refusal, Table, Write,
    log::{Log, LogOptions},
    store::{StateOptions, StateStore},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("runtime")
}

fn config(shards: u16) -> Config {
    let mut config = Config::new(NodeId(1), shards);
    config.snapshots.every = Duration::from_millis(20);
    config.snapshots.tail_entries = 4;
    config
}

fn log_options(dir: &Path) -> LogOptions {
    LogOptions::new(dir.join("log"), Arc::new(|why| panic!("{why}")))
}

async fn start(dir: &Path, config: Config) -> Arc<Shards> {
    start_with(&log_options(dir), dir, config).await
}

async fn start_with(log: &LogOptions, dir: &Path, config: Config) -> Arc<Shards> {
    let log = Arc::new(Log::open(log).expect("log"));
    let state = StateStore::open(&StateOptions::new(dir.join("state"), config.shards));
    let (state, fatal) = (
        Arc::new(state.expect("state")),
        Arc::new(|why| panic!("{why}")),
    );
    let shards = Shards::start(config, log, state, None, fatal)
        .await
        .expect("shards start");
    timeout(PATIENCE, shards.settled())
        .await
        .expect("every shard has an owner");
    shards
}

fn owned(shards: &Shards, shard: ShardId) -> Term {
    shards.term(shard).expect("owned")
}

async fn put(shards: &Shards, shard: ShardId, key: &str, value: &str) -> Result<(), Refusal> {
    let term = owned(shards, shard);
    shards
        .propose(
            shard,
            term,
            vec![Write::put(Table::Device, key, value.into())],
        )
        .await
}

fn get(shards: &Shards, shard: ShardId, key: &str) -> Option<String> {
    let value = shards
        .get(shard, Table::Device, key.as_bytes())
        .expect("readable");
    value.map(|bytes| String::from_utf8(bytes).expect("text"))
}

/// Runs the shards and lets the process "die": the runtime is dropped with everything in flight.
fn until_killed<T>(dir: &Path, config: Config, work: impl AsyncFnOnce(Arc<Shards>) -> T) -> T {
    let runtime = runtime();
    runtime.block_on(async {
        let shards = start(dir, config).await;
        work(shards).await
    })
}

#[test]
fn a_restart_keeps_everything_acknowledged_and_never_reuses_an_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut end = 0;
    let mut terms = Vec::new();
    for life in 0..5 {
        until_killed(dir.path(), config(4), async |shards| {
            for earlier in 0..life {
                for number in 0..40 {
                    let found = get(&shards, ShardId(3), &format!("{earlier}-{number}"));
                    assert_eq!(
                        found.as_deref(),
                        Some("v"),
                        "life {life}: {earlier}-{number}"
                    );
                }
            }
            for number in 0..40 {
                put(&shards, ShardId(3), &format!("{life}-{number}"), "v")
                    .await
                    .expect("committed");
            }
            let last = shards.status()[3].last_log.expect("entries");
            assert!(last >= end + 40, "index {last} after {end}");
            end = last;
            terms.push(owned(&shards, ShardId(3)));
            // What is in flight when it dies may be there or not, and disturbs nothing.
            for number in 0..20 {
                let term = owned(&shards, ShardId(3));
                let write = Write::put(Table::Device, format!("late-{life}-{number}"), vec![1]);
                drop(shards.propose(ShardId(3), term, vec![write]));
            }
        });
    }
    assert!(
        terms.is_sorted_by(|a, b| a < b),
        "a term is one ownership: {terms:?}"
    );
}

/// How fast is for the benchmark to say, on a machine that does nothing else.
#[test]
fn sixty_four_shards_find_their_owners_without_waiting_for_a_timer() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in ["new", "old"] {
        let mut config = config(64);
        config.heartbeat = PATIENCE;
        config.election_min = 2 * PATIENCE;
        config.election_max = 3 * PATIENCE;
        runtime().block_on(async {
            let shards = start(dir.path(), config).await;
            assert!(shards.status().iter().all(|status| status.term.is_some()));
            shards.shutdown().await;
        });
    }
}

/// Fills a shard until its log has been purged behind a snapshot, and writes a little more.
fn fill(dir: &Path) {
    let mut config = config(2);
    config.snapshots.entries = 20;
    until_killed(dir, config, async |shards| {
        timeout(PATIENCE, async {
            let mut number = 0;
            while shards.status()[1].snapshot.is_none_or(|index| index < 60) {
                put(&shards, ShardId(1), &format!("k{number}"), "v")
                    .await
                    .expect("committed");
                put(&shards, ShardId(0), &format!("k{number}"), "v")
                    .await
                    .expect("committed");
                number += 1;
            }
        })
        .await
        .expect("snapshots are taken");
        put(&shards, ShardId(1), "after", "v")
            .await
            .expect("committed");
        shards.shutdown().await;
    });
}

fn state_files(dir: &TempDir) -> PathBuf {
    dir.path().join("state").join("sled").join("db")
}

/// F14: one byte in every page of the state's file.
#[test]
fn a_damaged_state_is_rebuilt_from_snapshots_and_log() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let mut bytes = fs::read(state_files(&dir)).expect("the state's file");
    for byte in bytes.iter_mut().step_by(512) {
        *byte ^= 0x55;
    }
    fs::write(state_files(&dir), bytes).expect("written");
    until_killed(dir.path(), config(2), async |shards| {
        for key in ["k0", "k7", "after"] {
            assert_eq!(get(&shards, ShardId(1), key).as_deref(), Some("v"), "{key}");
        }
        put(&shards, ShardId(1), "k0", "w")
            .await
            .expect("and goes on");
    });
}

#[test]
fn a_state_that_is_gone_is_rebuilt_from_snapshots_and_log() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    fs::remove_dir_all(dir.path().join("state").join("sled")).expect("removed");
    until_killed(dir.path(), config(2), async |shards| {
        for (shard, key) in [(0, "k0"), (1, "k0"), (1, "after")] {
            assert_eq!(
                get(&shards, ShardId(shard), key).as_deref(),
                Some("v"),
                "{shard} {key}"
            );
        }
    });
}

/// F15: state and snapshot gone, log purged. No silent empty shard; the other one serves.
#[test]
fn a_shard_that_cannot_be_rebuilt_is_named_and_the_others_serve() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let state = dir.path().join("state");
    fs::remove_dir_all(state.join("sled")).expect("removed");
    fs::remove_file(state.join("snapshots").join("shard-00001.snapshot")).expect("removed");
    until_killed(dir.path(), config(2), async |shards| {
        let status = shards.status();
        let why = status[1].quarantined.clone().expect("quarantined");
        assert!(why.contains("there is no snapshot"), "{why}");
        assert!(shards.get(ShardId(1), Table::Device, b"after").is_err());
        let refused = shards.propose(ShardId(1), Term(1), vec![]).await;
        assert_eq!(refused, Err(Refusal::Quarantined));
        assert_eq!(status[0].quarantined, None);
        assert_eq!(get(&shards, ShardId(0), "k0").as_deref(), Some("v"));
    });
}

/// A snapshot with a flipped bit is as good as none, and is named.
#[test]
fn a_damaged_snapshot_is_not_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    fill(dir.path());
    let state = dir.path().join("state");
    fs::remove_dir_all(state.join("sled")).expect("removed");
    let path = state.join("snapshots").join("shard-00001.snapshot");
    let mut bytes = fs::read(&path).expect("snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).expect("written");
    until_killed(dir.path(), config(2), async |shards| {
        let why = shards.status()[1].quarantined.clone().expect("quarantined");
        assert!(why.contains("snapshot of shard 1"), "{why}");
        assert!(shards.term(ShardId(0)).is_some());
    });
}

/// F12, with the free space as the log is told it.
#[test]
fn a_full_disk_refuses_by_name_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let full = Arc::new(AtomicBool::new(false));
    let probed = Arc::clone(&full);
    let mut options = log_options(dir.path());
    options.probe_every = Duration::ZERO;
    options.probe = Some(Arc::new(move || {
        Ok(if probed.load(Ordering::Relaxed) {
            0
        } else {
            1 << 40
        })
    }));
    runtime().block_on(async {
        let shards = start_with(&options, dir.path(), config(2)).await;
        put(&shards, ShardId(0), "a", "1").await.expect("committed");
        full.store(true, Ordering::Relaxed);
        assert_eq!(
            put(&shards, ShardId(0), "a", "2").await,
            Err(Refusal::StorageFull)
        );
        assert_eq!(
            get(&shards, ShardId(0), "a").as_deref(),
            Some("1"),
            "reads go on"
        );
        full.store(false, Ordering::Relaxed);
        put(&shards, ShardId(0), "a", "3")
            .await
            .expect("there is room again");
    });
}
