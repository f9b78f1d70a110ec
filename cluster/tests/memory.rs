//! Shards over the twins in memory: order, fence, refusals, restarts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use umbel_cluster::{Config, Role, Shards, StartError};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{
    Ledger, Refusal, Table, Write,
    log::{GroupId, GroupLog},
    memory::{MemoryLog, MemoryState},
    state::State,
};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Disk {
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
    fatal: Arc<Mutex<Vec<String>>>,
}

impl Disk {
    fn new() -> Self {
        Self {
            log: Arc::new(MemoryLog::new()),
            state: Arc::new(MemoryState::new()),
            ..Self::default()
        }
    }

    async fn try_start(&self, config: Config) -> Result<Arc<Shards>, StartError> {
        let fatal = Arc::clone(&self.fatal);
        let (log, state) = (Arc::clone(&self.log), Arc::clone(&self.state));
        let fatal = Arc::new(move |message| fatal.lock().expect("lock").push(message));
        Shards::start(config, log, state, None, fatal).await
    }

    async fn start(&self, config: Config) -> Arc<Shards> {
        let shards = self.try_start(config).await.expect("shards start");
        timeout(PATIENCE, shards.settled())
            .await
            .expect("every shard has an owner");
        shards
    }
}

fn config(shards: u16) -> Config {
    Config::new(NodeId(1), shards)
}

fn put(key: &str, value: &str) -> Vec<Write> {
    vec![Write::put(Table::Device, key, value.into())]
}

fn get(shards: &Shards, shard: ShardId, key: &str) -> Option<String> {
    let value = shards
        .get(shard, Table::Device, key.as_bytes())
        .expect("readable");
    value.map(|bytes| String::from_utf8(bytes).expect("text"))
}

fn owned(shards: &Shards, shard: ShardId) -> Term {
    shards.term(shard).expect("owned")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_means_that_a_read_sees_the_write() {
    let shards = Disk::new().start(config(4)).await;
    let shard = ShardId(2);
    let term = owned(&shards, shard);
    shards
        .propose(shard, term, put("a", "1"))
        .await
        .expect("committed");
    assert_eq!(get(&shards, shard, "a").as_deref(), Some("1"));
    assert_eq!(
        get(&shards, ShardId(1), "a"),
        None,
        "another shard has rows of its own"
    );
    shards.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_one_task_are_applied_in_their_order() {
    let shards = Disk::new().start(config(2)).await;
    let shard = ShardId(0);
    let term = owned(&shards, shard);
    let receipts: Vec<_> = (0..3000)
        .map(|number| shards.propose(shard, term, put("k", &number.to_string())))
        .collect();
    for receipt in receipts {
        receipt.await.expect("committed");
    }
    assert_eq!(get(&shards, shard, "k").as_deref(), Some("2999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_shards_have_owners_in_a_second() {
    let disk = Disk::new();
    let begun = Instant::now();
    let shards = disk.start(config(64)).await;
    let first = begun.elapsed();
    assert!(first < Duration::from_secs(1), "took {first:?}");
    assert!(shards.status().iter().all(|status| status.term.is_some()));
    shards.shutdown().await;

    let begun = Instant::now();
    disk.start(config(64)).await;
    let again = begun.elapsed();
    assert!(again < Duration::from_secs(1), "took {again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_busy_at_once_and_recovers() {
    let disk = Disk::new();
    let mut config = config(1);
    config.limits.queue_commands_max = 8;
    let shards = disk.start(config).await;
    let term = owned(&shards, ShardId(0));
    disk.log.hold();
    // One entry gets under way, and then the queue fills.
    let mut receipts = Vec::new();
    let refused = loop {
        let mut receipt = shards.propose(ShardId(0), term, put("k", "v"));
        match timeout(Duration::ZERO, &mut receipt).await {
            Ok(outcome) => break outcome,
            Err(_) => receipts.push(receipt),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, Err(Refusal::Busy));
    assert!(receipts.len() <= 16, "bounded: {}", receipts.len());
    disk.log.release();
    for receipt in receipts {
        receipt.await.expect("what was accepted is committed");
    }
    shards
        .propose(ShardId(0), term, put("k", "v"))
        .await
        .expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_by_name_keeps_reads_and_recovers() {
    let disk = Disk::new();
    let shards = disk.start(config(1)).await;
    let term = owned(&shards, ShardId(0));
    shards
        .propose(ShardId(0), term, put("a", "1"))
        .await
        .expect("committed");
    disk.log.set_full(true);
    let refused = shards.propose(ShardId(0), term, put("a", "2")).await;
    assert_eq!(refused, Err(Refusal::StorageFull));
    assert_eq!(get(&shards, ShardId(0), "a").as_deref(), Some("1"));
    disk.log.set_full(false);
    shards
        .propose(ShardId(0), term, put("a", "3"))
        .await
        .expect("without a restart");
    assert_eq!(shards.term(ShardId(0)), Some(term), "without a new owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_is_refused_with_its_reason() {
    let shards = Disk::new().start(config(1)).await;
    let shard = ShardId(0);
    let term = owned(&shards, shard);
    let large = vec![Write::put(Table::Device, "k", vec![0; 4 << 20])];
    assert_eq!(
        shards.propose(shard, term, large).await,
        Err(Refusal::TooLarge)
    );
    assert_eq!(
        shards.propose(shard, Term(term.0 - 1), put("k", "")).await,
        Err(Refusal::NotOwner)
    );
    assert_eq!(
        shards.propose(ShardId(1), term, put("k", "")).await,
        Err(Refusal::NotOwner)
    );
    assert!(shards.get(ShardId(1), Table::Device, b"k").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_what_waits_and_takes_no_more() {
    let disk = Disk::new();
    let shards = disk.start(config(2)).await;
    let term = owned(&shards, ShardId(1));
    let receipts: Vec<_> = (0..100)
        .map(|n| shards.propose(ShardId(1), term, put(&format!("{n}"), "v")))
        .collect();
    shards.shutdown().await;
    for receipt in receipts {
        receipt.await.expect("served before the stop");
    }
    let late = shards.propose(ShardId(1), term, put("late", "v")).await;
    assert_eq!(late, Err(Refusal::Unknown));
    shards.shutdown().await;

    let shards = disk.start(config(2)).await;
    assert_eq!(get(&shards, ShardId(1), "99").as_deref(), Some("v"));
    assert_eq!(get(&shards, ShardId(1), "late"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_found_damaged_while_running_are_rebuilt() {
    let disk = Disk::new();
    let mut config = config(2);
    config.snapshots.every = Duration::from_millis(10);
    let shards = disk.start(config).await;
    let (sound, broken) = (ShardId(0), ShardId(1));
    let term = owned(&shards, broken);
    shards
        .propose(broken, term, put("a", "1"))
        .await
        .expect("committed");

    disk.state.quarantine(broken, "a bit fell over");
    let again = eventually(|| shards.term(broken).filter(|again| *again != term)).await;
    assert!(again > term, "a rebuilt shard has another owner's term");
    assert_eq!(get(&shards, broken, "a").as_deref(), Some("1"));
    shards
        .propose(broken, again, put("a", "2"))
        .await
        .expect("committed");
    assert_eq!(
        shards.propose(broken, term, put("a", "3")).await,
        Err(Refusal::NotOwner)
    );
    assert!(shards.term(sound).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_cannot_start_is_named_and_the_others_serve() {
    let disk = Disk::new();
    disk.start(config(3)).await.shutdown().await;
    let newer = vec![(disk.log.range(GroupId(1)).end, vec![9].into())];
    disk.log.append(GroupId(1), newer, Box::new(drop));

    let shards = disk.start(config(3)).await;
    let status = shards.status();
    let why = status[1].quarantined.as_deref().expect("quarantined");
    assert!(why.contains("format 9"), "{why}");
    assert_eq!(status[1].role, Role::Stopped);
    let refused = shards.propose(ShardId(1), Term(1), put("k", "v")).await;
    assert_eq!(refused, Err(Refusal::Quarantined));
    assert!(
        shards.get(ShardId(1), Table::Device, b"k").is_err(),
        "never served"
    );
    for shard in [ShardId(0), ShardId(2)] {
        let term = owned(&shards, shard);
        shards
            .propose(shard, term, put("k", "v"))
            .await
            .expect("committed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_busy_shard_is_replaced_by_snapshots() {
    let disk = Disk::new();
    let mut config = config(1);
    config.snapshots.every = Duration::from_millis(5);
    config.snapshots.entries = 20;
    config.snapshots.tail_entries = 4;
    let shards = disk.start(config).await;
    let term = owned(&shards, ShardId(0));
    eventually_async(|| async {
        shards
            .propose(ShardId(0), term, put("k", "v"))
            .await
            .expect("committed");
        (disk.log.range(GroupId(0)).start > 40).then_some(())
    })
    .await;
    let status = shards.status().remove(0);
    assert!(
        status.snapshot.is_some_and(|index| index > 40),
        "{status:?}"
    );
}

async fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    eventually_async(|| std::future::ready(condition())).await
}

async fn eventually_async<T, F: Future<Output = Option<T>>>(mut condition: impl FnMut() -> F) -> T {
    timeout(PATIENCE, async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_node_or_another_number_of_shards_is_refused() {
    let disk = Disk::new();
    disk.start(config(2)).await.shutdown().await;
    for (wrong, stands) in [
        (
            Config::new(NodeId(1), 3),
            "node 1 of a cluster with 3 shards",
        ),
        (
            Config::new(NodeId(2), 2),
            "node 2 of a cluster with 2 shards",
        ),
    ] {
        let refused = disk
            .try_start(wrong)
            .await
            .err()
            .expect("refused")
            .to_string();
        assert!(
            refused.contains("belongs to node 1 of a cluster with 2 shards"),
            "{refused}"
        );
        assert!(refused.contains(stands), "{refused}");
    }
    disk.start(config(2)).await;
}
