//! The same over real logs and stores: what is installed from a snapshot is there after a crash, also of an installing
//! that was interrupted.

use std::{path::Path, sync::Arc, time::Duration};

use umbel_cluster::{
    Changed, Config, Shards, begin_life,
    link::{Transport, memory::MemoryNet},
};
use umbel_core::ids::ShardId;
use umbel_storage::{
    Ledger, Table, Write,
    log::{Log, LogOptions},
    state::State,
    store::{StateOptions, StateStore},
};

use crate::world::{SHARD, node, set, until, within};

struct OnDisk {
    shards: Arc<Shards>,
    state: Arc<StateStore>,
}

async fn start(net: &MemoryNet, id: u64, dir: &Path) -> OnDisk {
    let log = LogOptions::new(dir.join("log"), Arc::new(|why| panic!("{why}")));
    // A life before this one may still be letting go of its files.
    let log = Arc::new(until("the log opens", || Log::open(&log).ok()).await);
    let options = StateOptions::new(dir.join("state"), 1);
    let state = Arc::new(until("the state opens", || StateStore::open(&options).ok()).await);
    let mut config = Config::new(node(id), 1);
    let boot = begin_life(log.as_ref()).await.expect("a life begins");
    config.boot = Some(boot);
    config.snapshots.entries = 20;
    config.snapshots.every = Duration::from_millis(20);
    config.snapshots.peer_tail_entries = 4;
    let transport: Arc<dyn Transport> = net.node(node(id), boot);
    let shards = Shards::start(
        config,
        log,
        Arc::clone(&state) as Arc<dyn State>,
        Some(transport),
        Arc::new(|why| panic!("{why}")),
    );
    OnDisk {
        shards: shards.await.expect("shards start"),
        state,
    }
}

/// Writes a key at whoever owns the shard.
async fn put(all: &[&OnDisk], key: &str, value: &str) {
    let owner = || {
        all.iter()
            .find_map(|at| Some((&at.shards, at.shards.term(SHARD)?)))
    };
    let (at, term) = until("owned", owner).await;
    let writes = vec![Write::put(Table::Device, key, value.into())];
    let receipt = at.propose(SHARD, term, writes);
    assert_eq!(within("committed", receipt).await, Ok(()));
}

fn get(at: &Shards, key: &str) -> Option<Vec<u8>> {
    at.get(SHARD, Table::Device, key.as_bytes()).ok().flatten()
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_snapshot_that_came_over_the_net_survives_a_restart() {
    let net = MemoryNet::new();
    let dirs = [1, 2].map(|_| tempfile::tempdir().expect("a directory"));
    let first = start(&net, 1, dirs[0].path()).await;
    first.shards.found().await.expect("founded");
    let large = "x".repeat(60_000);
    for number in 0..50 {
        put(&[&first], &format!("k{number}"), &large).await;
    }
    until("the log is purged", || {
        let status = first.shards.status();
        status.first()?.snapshot.filter(|at| *at > 30)
    })
    .await;
    let second = start(&net, 2, dirs[1].path()).await;
    second.shards.host(SHARD).await.expect("hosted");
    let changed = first.shards.change_members(SHARD, set(&[1, 2]), set(&[]));
    assert_eq!(within("changed", changed).await, Ok(Changed::Done));
    put(&[&first, &second], "end", "1").await;
    until("the second has it", || get(&second.shards, "end")).await;
    assert_eq!(get(&second.shards, "k3").as_deref(), Some(large.as_bytes()));
    let digest = |of: &OnDisk| of.state.applied(SHARD).expect("sound").digest;
    until("both are equal", || {
        (digest(&first) == digest(&second)).then_some(())
    })
    .await;

    net.stop(node(2));
    second.shards.shutdown().await;
    drop(second);
    // Of two voters one is away: nothing can be committed, and that is said.
    until("the lease is over", || {
        first.shards.term(SHARD).is_none().then_some(())
    })
    .await;
    let second = start(&net, 2, dirs[1].path()).await;
    put(&[&first, &second], "end", "2").await;
    until("the second has it", || {
        get(&second.shards, "end").filter(|value| value == b"2")
    })
    .await;
    assert_eq!(get(&second.shards, "k3").as_deref(), Some(large.as_bytes()));
    until("both are equal", || {
        (digest(&first) == digest(&second)).then_some(())
    })
    .await;
    assert_eq!(second.shards.hosted(), [SHARD]);
    assert_eq!(first.shards.hosted(), [SHARD, ShardId::META]);
}
