//! What a sleeping device, a wake and a hot shadow update cost, over a ledger in memory.
//!
//! `cargo run --release -p umbel-actors --example measure -- 200000`

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use umbel_actors::{
    Config, Fleet,
    ports::{BoxFuture, Clock, EvictReason, Outbox},
};
use umbel_core::{
    device::{Connect, Kind},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShardId},
    message::Message,
    shadow::{Origin, Request, ShadowKind, Verb},
    time::{Tick, Timestamp},
};
use umbel_storage::{
    ledger::Ledger,
    memory::MemoryLedger,
    table::{Table, Write},
};

const SHARDS: u16 = 64;
const ROUND: usize = 100_000;
const IN_FLIGHT: usize = 256;

struct RealClock(Instant);

impl Clock for RealClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000) + self.0.elapsed()
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(1) + self.0.elapsed()
    }
}

/// Counts messages and drops them.
#[derive(Default)]
struct Sink(AtomicU64);

impl Outbox for Sink {
    fn publish(&self, _: Arc<Message>) -> BoxFuture<'static, ()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn evict(&self, _: &ClientId, _: SessionEpoch, _: NodeId, _: EvictReason) {}

    fn end_session(&self, _: &ClientId, _: SessionEpoch) {}
}

fn name(number: usize) -> String {
    format!("site-0042-camera-{number:08}-f00d")
}

fn hello() -> Connect {
    Connect {
        kind: Kind::Device,
        protocol: 4,
        clean_start: true,
        expiry: 0,
        keep_alive: 300,
        will: None,
        principal: "certificate".to_owned(),
        ip: "127.0.0.1".to_owned(),
        listener: "measure".to_owned(),
        gateway: NodeId(0),
        gateway_boot: 0,
    }
}

/// Resident bytes, and seconds of CPU, of this process.
fn usage() -> Result<(f64, f64)> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .context("no resident pages")?
        .parse()?;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks = stat
        .split(' ')
        .skip(13)
        .take(2)
        .map(str::parse::<f64>)
        .sum::<Result<f64, _>>()?;
    Ok((pages * 4096.0, ticks / 100.0))
}

/// Runs a step, and says what one of its `count` operations cost.
async fn step(what: &str, count: usize, work: impl Future<Output = Result<()>>) -> Result<()> {
    let (bytes, cpu) = usage()?;
    let start = Instant::now();
    work.await?;
    let (bytes_after, cpu_after) = usage()?;
    let each = f64::from(u32::try_from(count)?);
    println!(
        "{what:<34} {:>9.1} B resident each   {:>6.2} us CPU each   {:>9.0} per second",
        (bytes_after - bytes) / each,
        (cpu_after - cpu) / each * 1e6,
        each / start.elapsed().as_secs_f64(),
    );
    Ok(())
}

async fn connect(fleet: &Fleet, count: usize) -> Result<()> {
    let opened = stream::iter(0..count)
        .map(|number| async move {
            let client = ClientId::parse(&name(number))?;
            fleet
                .connect(&client, hello())
                .await
                .context("refused")
                .map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<_>>()
        .await;
    opened.into_iter().collect()
}

async fn update(fleet: &Fleet, count: usize, devices: usize) -> Result<()> {
    let replies = stream::iter(0..count)
        .map(|number| async move {
            let device = DeviceId::parse(&name(number % devices))?;
            let body =
                format!(r#"{{"state":{{"reported":{{"temperature":{number},"on":true}}}}}}"#);
            let request = Request {
                shadow: ShadowKind::Classic,
                verb: Verb::Update,
                payload: Bytes::from(body),
                origin: Origin::Http,
            };
            fleet
                .shadow(&device, request)
                .await
                .context("refused")
                .map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .collect::<Vec<_>>()
        .await;
    replies.into_iter().collect()
}

#[tokio::main]
async fn main() -> Result<()> {
    let devices = std::env::args()
        .nth(1)
        .map_or(Ok(200_000), |text| text.parse::<usize>())?;
    let ledger = MemoryLedger::new(SHARDS);
    let clock: Arc<dyn Clock> = Arc::new(RealClock(Instant::now()));
    let start = |ledger: &MemoryLedger| {
        let config = Config {
            awake_max: 2 * ROUND,
            ..Config::default()
        };
        let outbox = Arc::<Sink>::default();
        Fleet::start(config, Arc::new(ledger.clone()), outbox, Arc::clone(&clock))
    };

    // One device that came and went serves as the record of all.
    let (fleet, running) = start(&ledger).await?;
    fleet.recover().await;
    let client = ClientId::parse("pattern")?;
    let opened = fleet.connect(&client, hello()).await?;
    let reason = umbel_core::device::DisconnectReason::ClientInitiated;
    fleet
        .disconnect(&client, opened.epoch, reason, None, false)
        .await?;
    running.shutdown(Duration::from_secs(1)).await;
    let shard = ShardId::of("pattern", SHARDS);
    let row = ledger
        .get(shard, Table::Device, b"pattern")?
        .context("no record")?;
    let ledger = MemoryLedger::new(SHARDS);
    for number in 0..devices {
        let id = name(number);
        let shard = ShardId::of(&id, SHARDS);
        let term = ledger.term(shard).context("not owned")?;
        ledger
            .propose(
                shard,
                term,
                vec![Write::put(Table::Device, id, row.clone())],
            )
            .await?;
    }

    let (fleet, running) = start(&ledger).await?;
    step("recovered and asleep", devices, async {
        fleet.recover().await;
        Ok(())
    })
    .await?;
    let round = ROUND.min(devices);
    step(
        "connect (wake, commit, sleep)",
        round,
        connect(&fleet, round),
    )
    .await?;
    step("connect again, warm heap", round, connect(&fleet, round)).await?;
    step(
        "first shadow update (stays awake)",
        round / 4,
        update(&fleet, round / 4, round / 4),
    )
    .await?;
    step(
        "shadow update of an awake device",
        2 * round,
        update(&fleet, 2 * round, round / 4),
    )
    .await?;
    println!("{:?}", fleet.counts());
    running.shutdown(Duration::from_secs(10)).await;
    Ok(())
}
