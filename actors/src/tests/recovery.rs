//! Start with many stored devices.

use std::time::{Duration, Instant};

use umbel_core::{device::Presence, ids::ShardId};
use umbel_storage::{
    ledger::Ledger,
    memory::MemoryLedger,
    table::{Table, Write},
};

use super::{World, client, device, hello, quick};

const DEVICES: usize = 100_000;

/// A ledger in which that many devices were connected when the node died.
async fn crowded() -> MemoryLedger {
    let world = World::new(quick()).await;
    world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    let row = world
        .ledger
        .get(ShardId::of("d", 4), Table::Device, b"d")
        .expect("readable")
        .expect("stored");
    let ledger = MemoryLedger::new(16);
    let mut rows = vec![Vec::new(); 16];
    for number in 0..DEVICES {
        let id = format!("device-{number:06}");
        let shard = ShardId::of(&id, 16);
        rows[usize::from(shard.0)].push(Write::put(Table::Device, id, row.clone()));
    }
    for (shard, writes) in (0..).map(ShardId).zip(rows) {
        let term = ledger.term(shard).expect("owned");
        ledger
            .propose(shard, term, writes)
            .await
            .expect("committed");
    }
    ledger
}

#[tokio::test]
async fn a_hundred_thousand_devices_are_recovered_without_waking_one() {
    let ledger = crowded().await;
    let start = Instant::now();
    let world = World::over(ledger, quick(), std::sync::Arc::default()).await;
    let took = start.elapsed();
    // The budget is 5 s on a release build with a disk; this is a debug build on a busy machine, without one.
    assert!(
        took < Duration::from_mins(1),
        "{DEVICES} connected devices took {took:?}"
    );
    let counts = world.fleet.counts();
    assert_eq!((counts.devices.stale, counts.awake), (DEVICES as u64, 0));
    let view = world
        .fleet
        .device(&device("device-000007"))
        .expect("readable")
        .expect("known");
    assert_eq!(view.record.presence, Presence::Stale);
}
