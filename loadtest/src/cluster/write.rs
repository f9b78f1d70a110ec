//! Shadow updates: a cluster beside a cluster of one, as many as go and at a rate.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use rumqttc::mqttbytes::{QoS, v4::Packet};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep_until, timeout},
};

use super::{
    Common, Folder, conclude, load,
    nodes::{Nodes, Plan},
};
use crate::{
    client::{Client, PATIENCE},
    sample::{Latencies, Summary},
};

/// Connection attempts under way at once.
const CONNECTING_MAX: usize = 64;
const KEEP_ALIVE: Duration = Duration::from_mins(15);
const FLUSHES: &str = "umbel_log_flushes_total";

/// `umbel-loadtest cluster write`
#[derive(Args)]
pub(crate) struct WriteArgs {
    /// Sizes of the clusters, measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    nodes: Vec<usize>,
    /// Shards.
    #[arg(long, default_value_t = 64)]
    shards: u16,
    /// Devices, spread over the nodes; each has one update under way at most.
    #[arg(long, default_value_t = 1500)]
    devices: usize,
    /// Updates offered per second in the second part, by all devices together.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Length of each part.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Updates flat out before anything is measured, so that every device is known and awake.
    #[arg(long, default_value_t = 5)]
    warm_seconds: u64,
    /// Bytes of the reported value.
    #[arg(long, default_value_t = 200)]
    report_bytes: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Part {
    nodes: usize,
    offered: Option<u32>,
    updates_per_second: f64,
    rejected: u64,
    latency: Summary,
    cpu_micros_per_update: f64,
    syncs_per_second_and_node: f64,
}

/// Measures and prints the table.
pub(super) async fn run(args: WriteArgs) -> Result<()> {
    let (folder, before) = (Folder::new(&args.common)?, load()?);
    let mut parts = Vec::new();
    println!(
        "{:<6} {:>9} {:>10} {:>9} {:>9} {:>9} {:>14} {:>13} {:>9}",
        "nodes",
        "offered",
        "updates/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "µs CPU/update",
        "syncs/s,node",
        "rejected"
    );
    for count in args.nodes.iter().copied() {
        let nodes = Nodes::start(&Plan {
            umbel: &args.common.umbel,
            folder: &folder.part(&format!("nodes-{count}"))?,
            nodes: count,
            shards: args.shards,
        })
        .await?;
        let mut devices = connect(&nodes, args.devices).await?;
        let warm = Work::new(&args, None, args.warm_seconds);
        devices = warm.run(devices).await?;
        for offered in [None, Some(args.rate)] {
            let part;
            (devices, part) = measure(&nodes, devices, &args, offered).await?;
            print(&part);
            parts.push(part);
        }
        drop(devices);
        nodes.end().await?;
    }
    conclude(&args.common, before, parts)
}

fn print(part: &Part) {
    println!(
        "{:<6} {:>9} {:>10.0} {:>9.1} {:>9.1} {:>9.1} {:>14.0} {:>13.0} {:>9}",
        part.nodes,
        part.offered
            .map_or_else(|| "flat out".to_owned(), |rate| rate.to_string()),
        part.updates_per_second,
        part.latency.p50_ms,
        part.latency.p99_ms,
        part.latency.max_ms,
        part.cpu_micros_per_update,
        part.syncs_per_second_and_node,
        part.rejected,
    );
}

struct Device {
    client: Client,
    id: String,
    count: u64,
}

/// Devices in turn on every node; each hears what becomes of its updates.
async fn connect(nodes: &Nodes, count: usize) -> Result<Vec<Device>> {
    let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let target = nodes.target(n % nodes.count())?;
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire().await?;
            let id = format!("writer-{n:05}");
            let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut client = Client::connect(&target, source, &id, KEEP_ALIVE).await?;
            let results = format!("$aws/things/{id}/shadow/update/+");
            client.subscribe(&results).await?;
            anyhow::Ok(Device {
                client,
                id,
                count: 0,
            })
        });
    }
    let mut devices = Vec::with_capacity(count);
    while let Some(device) = tasks.join_next().await {
        devices.push(device??);
    }
    Ok(devices)
}

async fn measure(
    nodes: &Nodes,
    devices: Vec<Device>,
    args: &WriteArgs,
    offered: Option<u32>,
) -> Result<(Vec<Device>, Part)> {
    let work = Work::new(args, offered, args.seconds);
    let (cpu, flushes) = (nodes.cpu()?, nodes.counter(FLUSHES).await?);
    let began = Instant::now();
    let devices = work.run(devices).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu = nodes.cpu()?.saturating_sub(cpu);
    let flushes = nodes.counter(FLUSHES).await? - flushes;
    let latency = work.latencies.summary();
    let updates = latency.count.max(1) as f64;
    let part = Part {
        nodes: nodes.count(),
        offered,
        updates_per_second: latency.count as f64 / took,
        rejected: work.rejected.load(Ordering::Relaxed),
        latency,
        cpu_micros_per_update: cpu.as_secs_f64() * 1e6 / updates,
        syncs_per_second_and_node: flushes / took / nodes.count().max(1) as f64,
    };
    Ok((devices, part))
}

/// One stretch of updates.
struct Work {
    span: Duration,
    /// Pause between two updates of a device; none: as soon as it may.
    pause: Option<Duration>,
    filling: String,
    latencies: Latencies,
    rejected: AtomicU64,
}

impl Work {
    fn new(args: &WriteArgs, offered: Option<u32>, seconds: u64) -> Arc<Self> {
        let pause = |rate: u32| args.devices as f64 / f64::from(rate.max(1));
        Arc::new(Self {
            span: Duration::from_secs(seconds),
            pause: offered.map(|rate| Duration::from_secs_f64(pause(rate))),
            filling: "x".repeat(args.report_bytes),
            latencies: Latencies::new(),
            rejected: AtomicU64::new(0),
        })
    }

    /// Lets all devices update until the time is up, and gives them back.
    async fn run(self: &Arc<Self>, devices: Vec<Device>) -> Result<Vec<Device>> {
        let count = devices.len();
        let mut tasks = JoinSet::new();
        for (n, mut device) in devices.into_iter().enumerate() {
            let work = Arc::clone(self);
            tasks.spawn(async move {
                work.play(&mut device, n as f64 / count.max(1) as f64)
                    .await?;
                anyhow::Ok(device)
            });
        }
        let mut devices = Vec::with_capacity(count);
        while let Some(device) = tasks.join_next().await {
            devices.push(device??);
        }
        Ok(devices)
    }

    /// Latency counts from when an update was due: one that had to wait for the one before it waited, too.
    async fn play(&self, device: &mut Device, turn: f64) -> Result<()> {
        let end = Instant::now() + self.span;
        let mut due = Instant::now() + self.pause.unwrap_or_default().mul_f64(turn);
        while due < end {
            sleep_until(due.into()).await;
            if self.update(device).await? {
                self.latencies.record(due.elapsed());
            } else {
                self.rejected.fetch_add(1, Ordering::Relaxed);
            }
            due = self.pause.map_or_else(Instant::now, |pause| due + pause);
        }
        Ok(())
    }

    /// Whether the update was accepted.
    async fn update(&self, device: &mut Device) -> Result<bool> {
        device.count += 1;
        let topic = format!("$aws/things/{}/shadow/update", device.id);
        let (count, filling) = (device.count, &self.filling);
        let body =
            format!(r#"{{"state":{{"reported":{{"count":{count},"filling":"{filling}"}}}}}}"#);
        let client = &mut device.client;
        client
            .publish(&topic, QoS::AtLeastOnce, body.as_bytes())
            .await?;
        loop {
            let packet = timeout(PATIENCE, client.next())
                .await
                .with_context(|| format!("{}: no answer to an update", device.id))??;
            let Packet::Publish(message) = packet else {
                continue;
            };
            if message.qos == QoS::AtLeastOnce {
                client.acknowledge(message.pkid).await?;
            }
            if message.topic.ends_with("/accepted") {
                return Ok(true);
            } else if message.topic.ends_with("/rejected") {
                return Ok(false);
            }
        }
    }
}
