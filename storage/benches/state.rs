//! What applying, reading, checking and snapshotting cost.
//!
//! `cargo bench -p umbel-storage --bench state [-- rows dir]`

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]
#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]
#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]

use std::{env, time::Instant};

use umbel_core::ids::ShardId;
use umbel_storage::{
    State,
    store::{StateOptions, StateStore},
    table::{Table, Write},
};

const SHARDS: u16 = 64;
const BATCH: u64 = 200;

fn main() {
    let rows = env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(100_000u64);
    let dir = env::args()
        .skip_while(|word| word != "--dir")
        .nth(1)
        .unwrap_or_else(|| ".".into());
    let home = tempfile::tempdir_in(&dir).unwrap();
    let options = StateOptions::new(home.path(), SHARDS);
    let store = StateStore::open(&options).unwrap();
    println!("{rows} rows of 400 bytes in {SHARDS} shards, batches of {BATCH}, in {dir}");

    for round in 0..2u8 {
        let what = if round == 0 { "insert" } else { "overwrite" };
        timed(what, rows, || {
            for batch in 0..rows.div_ceil(BATCH) {
                let shard = shard_of(batch);
                let writes: Vec<_> = (0..BATCH).map(|n| write(batch, n, round)).collect();
                let index = store.applied(shard).unwrap().index + 1;
                store.apply(shard, index, b"meta", &writes).unwrap();
            }
        });
    }
    timed("read", rows, || {
        for batch in 0..rows.div_ceil(BATCH) {
            for n in 0..BATCH {
                let found = store
                    .get(shard_of(batch), Table::Shadow, &key(batch, n))
                    .unwrap();
                assert!(found.is_some());
            }
        }
    });
    timed("scrub", rows, || while !store.scrub(256) {});
    timed("checkpoint", rows, || {
        drop(store.checkpoint(ShardId(0)).unwrap());
    });
    timed("snapshot of all shards", rows, || {
        for shard in 0..SHARDS {
            store.snapshot(ShardId(shard)).unwrap();
        }
    });
    timed("restore of all shards", rows, || {
        for shard in 0..SHARDS {
            let snapshot = store.latest_snapshot(ShardId(shard)).unwrap().unwrap();
            store.restore(&snapshot).unwrap();
        }
    });
    println!(
        "size on disk {} MiB, resident {} MiB",
        store.size_bytes() >> 20,
        resident() >> 20
    );
    timed("close", rows, || drop(store));
    timed("open and check", rows, || {
        let store = StateStore::open(&options).unwrap();
        assert!(store.damaged().is_empty());
    });
}

fn timed(what: &str, rows: u64, run: impl FnOnce()) {
    let (at, used) = (Instant::now(), cpu());
    run();
    let (took, used) = (at.elapsed().as_secs_f64(), cpu() - used);
    println!(
        "{what:>24}: {took:>7.3} s, {:>9.0} rows/s, {:>6.1} us of CPU each",
        rows as f64 / took,
        used * 1e6 / rows as f64
    );
}

/// Seconds of CPU this process used.
fn cpu() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = usage.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields.get(at).unwrap().parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn shard_of(batch: u64) -> ShardId {
    ShardId(u16::try_from(batch % u64::from(SHARDS)).unwrap())
}

fn key(batch: u64, n: u64) -> Vec<u8> {
    // scattered, as device ids are
    let id = (batch * BATCH + n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("device-{id:016x}\0").into_bytes()
}

fn write(batch: u64, n: u64, round: u8) -> Write {
    let mut value = vec![b'a' + round; 400];
    value.splice(0..8, n.to_le_bytes());
    Write::put(Table::Shadow, key(batch, n), value)
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
