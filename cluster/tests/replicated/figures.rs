//! Measurements, run by hand: `cargo nextest run -p umbel-cluster --test replicated --run-ignored only --no-capture`.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbel_cluster::link::{Limits, Timing, memory::MemoryNet};
use umbel_core::ids::ShardId;

use crate::world::{SHARD, World, node, until};

const KILLS: usize = 60;
const SHARDS: u16 = 16;

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[at]
}

async fn spread(world: &World) {
    for shard in (0..world.shards).map(ShardId) {
        let (owner, _) = world.served(shard).await;
        let to = u64::from(shard.0) % 3 + 1;
        if owner != to {
            drop(world.at(owner).shards.transfer(shard, node(to)).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn failover() {
    let net = MemoryNet::with(Limits::default(), Timing::default());
    let mut world = World::over(net, 3, SHARDS, |_| {}).await;
    let mut took = Vec::new();
    for kill in 0..KILLS {
        spread(&world).await;
        world.put(SHARD, "a", &kill.to_string()).await;
        let (owner, _) = world.served(SHARD).await;
        let shards: Vec<ShardId> = (0..SHARDS)
            .map(ShardId)
            .filter(|shard| world.server(*shard).is_some_and(|(id, _)| id == owner))
            .collect();
        let begun = Instant::now();
        world.kill(owner).await;
        for shard in shards {
            world.put(shard, "after", &kill.to_string()).await;
            took.push(begun.elapsed());
        }
        world.boot(owner).await;
        world.has(owner, SHARD, "after", &kill.to_string()).await;
    }
    took.sort_unstable();
    println!(
        "{} failovers in {KILLS} kills: p50 {:?} p90 {:?} p99 {:?} max {:?}",
        took.len(),
        percentile(&took, 50),
        percentile(&took, 90),
        percentile(&took, 99),
        took.last()
    );
}

/// What this process has used: user and system time, in hundredths of a second.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes"]
async fn idle() {
    for shards in [16, 64, 256] {
        let net = MemoryNet::with(Limits::default(), Timing::default());
        let world = World::over(net, 3, shards, |_| {}).await;
        spread(&world).await;
        sleep(Duration::from_secs(3)).await;
        let (before, begun) = (cpu(), Instant::now());
        sleep(Duration::from_secs(15)).await;
        let used = cpu().saturating_sub(before);
        let percent = used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
        println!(
            "{shards} shards, three nodes in one process, idle: {percent:.2} % of a core in all"
        );
        let transfers = {
            let mut gaps = Vec::new();
            for round in 0..30_u64 {
                let (owner, _) = world.served(SHARD).await;
                let to = (owner + round) % 3 + 1;
                if to == owner {
                    continue;
                }
                let begun = Instant::now();
                drop(world.at(owner).shards.transfer(SHARD, node(to)).await);
                until("served", || world.server(SHARD).filter(|(id, _)| *id == to)).await;
                gaps.push(begun.elapsed());
            }
            gaps.sort_unstable();
            gaps
        };
        println!(
            "transfers: p50 {:?} max {:?}",
            percentile(&transfers, 50),
            transfers.last()
        );
    }
}
