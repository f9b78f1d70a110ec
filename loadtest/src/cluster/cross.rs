//! A message whose subscriber is on another node, beside one whose subscriber is on the same.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use rumqttc::mqttbytes::{QoS, v4::Packet};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};

use super::{
    Common, Folder, conclude, load,
    nodes::{Nodes, Plan},
};
use crate::{
    client::{Client, PATIENCE},
    sample::{Latencies, Summary},
};

const KEEP_ALIVE: Duration = Duration::from_mins(15);

/// `umbel-loadtest cluster cross`
#[derive(Args)]
pub(crate) struct CrossArgs {
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Shards.
    #[arg(long, default_value_t = 64)]
    shards: u16,
    /// Pairs of a publisher and a subscriber; each has one message under way at most.
    #[arg(long, default_value_t = 100)]
    pairs: usize,
    /// Messages offered per second in the measurement at a rate, by all pairs together.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Length of each measurement; there are four in a round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds: near and far take turns, so that what else the machine does hits both.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 512)]
    bytes: usize,
    #[command(flatten)]
    common: Common,
}

/// Messages published on the first node, over all rounds.
#[derive(Serialize)]
struct Part {
    subscriber: &'static str,
    offered: Option<u32>,
    messages_per_second: f64,
    latency: Summary,
    /// All nodes, less what they need when they do nothing.
    cpu_micros_per_message: f64,
}

/// Measures and prints the table.
pub(super) async fn run(args: CrossArgs) -> Result<()> {
    let (folder, before) = (Folder::new(&args.common)?, load()?);
    let nodes = Nodes::start(&Plan {
        umbel: &args.common.umbel,
        folder: &folder.part("nodes")?,
        nodes: args.nodes,
        shards: args.shards,
    })
    .await?;
    let mut sides = Vec::new();
    for (name, subscriber) in [("same node", 0), ("other node", 1)] {
        let pairs = connect(&nodes, &args, subscriber).await?;
        let tallies = [None, Some(args.rate)].map(Tally::new);
        sides.push((name, pairs, tallies));
    }
    // At rest: syncs of the connects are over.
    sleep(Duration::from_secs(3)).await;
    let (cpu, began) = (nodes.cpu()?, Instant::now());
    sleep(Duration::from_secs(args.seconds.max(5))).await;
    let idle = nodes.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();

    let payload: Arc<[u8]> = vec![b'x'; args.bytes].into();
    for _ in 0..args.rounds {
        for (_, pairs, tallies) in &mut sides {
            for tally in tallies {
                tally.add(&nodes, pairs, &args, &payload).await?;
            }
        }
    }
    println!(
        "{:<12} {:>9} {:>11} {:>9} {:>9} {:>9} {:>15}",
        "subscriber", "offered", "messages/s", "p50 ms", "p99 ms", "max ms", "µs CPU/message"
    );
    let mut parts = Vec::new();
    for (name, _, tallies) in &sides {
        for tally in tallies {
            let part = tally.part(name, idle);
            print(&part);
            parts.push(part);
        }
    }
    nodes.end().await?;
    conclude(&args.common, before, parts)
}

fn print(part: &Part) {
    println!(
        "{:<12} {:>9} {:>11.0} {:>9.2} {:>9.2} {:>9.2} {:>15.1}",
        part.subscriber,
        part.offered
            .map_or_else(|| "flat out".to_owned(), |rate| rate.to_string()),
        part.messages_per_second,
        part.latency.p50_ms,
        part.latency.p99_ms,
        part.latency.max_ms,
        part.cpu_micros_per_message,
    );
}

struct Pair {
    publisher: Client,
    subscriber: Client,
    topic: String,
}

async fn connect(nodes: &Nodes, args: &CrossArgs, at: usize) -> Result<Vec<Pair>> {
    let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut pairs = Vec::with_capacity(args.pairs);
    for n in 0..args.pairs {
        let topic = format!("cross/{at}/{n}");
        let (from, to) = (format!("from-{at}-{n}"), format!("to-{at}-{n}"));
        let mut subscriber = Client::connect(&nodes.target(at)?, source, &to, KEEP_ALIVE).await?;
        subscriber.subscribe(&topic).await?;
        let publisher = Client::connect(&nodes.target(0)?, source, &from, KEEP_ALIVE).await?;
        pairs.push(Pair {
            publisher,
            subscriber,
            topic,
        });
    }
    Ok(pairs)
}

/// What the rounds of one kind of measurement add up to.
struct Tally {
    offered: Option<u32>,
    latencies: Arc<Latencies>,
    cpu: Duration,
    took: Duration,
}

impl Tally {
    fn new(offered: Option<u32>) -> Self {
        Self {
            offered,
            latencies: Arc::new(Latencies::new()),
            cpu: Duration::ZERO,
            took: Duration::ZERO,
        }
    }

    /// One more round.
    async fn add(
        &mut self,
        nodes: &Nodes,
        pairs: &mut Vec<Pair>,
        args: &CrossArgs,
        payload: &Arc<[u8]>,
    ) -> Result<()> {
        let count = pairs.len().max(1) as f64;
        let pause = self
            .offered
            .map(|rate| Duration::from_secs_f64(count / f64::from(rate.max(1))));
        let span = Duration::from_secs(args.seconds);
        let (cpu, began) = (nodes.cpu()?, Instant::now());
        let mut tasks = JoinSet::new();
        for (n, mut pair) in pairs.drain(..).enumerate() {
            let (latencies, payload) = (Arc::clone(&self.latencies), Arc::clone(payload));
            tasks.spawn(async move {
                let mut due = began + pause.unwrap_or_default().mul_f64(n as f64 / count);
                while due < began + span {
                    sleep_until(due.into()).await;
                    latencies.record(pair.pass(&payload).await? - due);
                    due = pause.map_or_else(Instant::now, |pause| due + pause);
                }
                anyhow::Ok(pair)
            });
        }
        while let Some(pair) = tasks.join_next().await {
            pairs.push(pair??);
        }
        self.took += began.elapsed();
        self.cpu += nodes.cpu()?.saturating_sub(cpu);
        Ok(())
    }

    /// `idle`: seconds of CPU that all nodes need in a second of rest.
    fn part(&self, subscriber: &'static str, idle: f64) -> Part {
        let (latency, took) = (self.latencies.summary(), self.took.as_secs_f64());
        let messages = latency.count.max(1) as f64;
        Part {
            subscriber,
            offered: self.offered,
            messages_per_second: latency.count as f64 / took,
            latency,
            cpu_micros_per_message: (self.cpu.as_secs_f64() - idle * took) * 1e6 / messages,
        }
    }
}

impl Pair {
    /// Publishes a message; when it arrived.
    async fn pass(&mut self, payload: &[u8]) -> Result<Instant> {
        let (acknowledged, arrived) = tokio::join!(
            self.publisher.publish_acknowledged(&self.topic, payload),
            timeout(PATIENCE, hear(&mut self.subscriber)),
        );
        acknowledged?;
        arrived.with_context(|| format!("nothing arrived on {}", self.topic))?
    }
}

async fn hear(subscriber: &mut Client) -> Result<Instant> {
    loop {
        if let Packet::Publish(message) = subscriber.next().await? {
            let arrived = Instant::now();
            if message.qos == QoS::AtLeastOnce {
                subscriber.acknowledge(message.pkid).await?;
            }
            return Ok(arrived);
        }
    }
}
