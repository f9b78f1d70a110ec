//! Shards over the twins in memory: order, fence, refusals, restarts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, timeout};
use umbel_cluster::{Config, Shards};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{
    Ledger, Table, Write,
    memory::{MemoryLog, MemoryState},
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

    async fn start(&self, config: Config) -> Arc<Shards> {
        let fatal = Arc::clone(&self.fatal);
        let shards = Shards::start(
            config,
            Arc::clone(&self.log) as _,
            Arc::clone(&self.state) as _,
            Arc::new(move |message| fatal.lock().expect("lock").push(message)),
        )
        .await
        .expect("shards start");
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
