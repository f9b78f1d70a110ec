//! A campaign of malformed packets: many connections send spoiled ones, a neighbour must not notice.
//!
//! Packets of every kind are built valid, for MQTT 3.1.1 and 5, then mutated. Each connection sends a few, before or after
//! a CONNECT, closes its half and reads to the end: so the node has judged everything before it is counted. What the
//! node counted as malformed is printed beside what was sent.

mod neighbour;
mod packets;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rand::{Rng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    neighbour::Neighbour,
    packets::{Version, connect, spoiled, spoiled_connect},
};
use crate::{
    http,
    process::{Launcher, Node},
    seeds::{Concern, stream},
};

/// How long a connection may stay open after its client has said all: more would be a leak.
const END_PATIENCE: Duration = Duration::from_secs(30);
/// How long the gauge of connections may take to come down to the neighbour alone.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// Most rubbish of one connection; the first packet that is malformed ends it.
const BURST_MAX: usize = 4;

/// What to send, and how much of it.
#[derive(Args)]
pub(crate) struct Options {
    /// The umbel program.
    #[arg(long, default_value = "target/release/umbel")]
    umbel: PathBuf,
    /// How many spoiled packets to send.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// Seed of every stream of chance; drawn and printed if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Connections at a time.
    #[arg(long, default_value_t = 32)]
    connections: u16,
    /// By how much the node's memory may grow after the first tenth, in MiB.
    #[arg(long, default_value_t = 64)]
    growth_max: u64,
}

/// What all senders count.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    connections: AtomicU64,
    /// Connections that the node left open.
    stuck: AtomicU64,
}

/// `umbel-chaos rubbish`
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!(
        "rubbish: --seed {seed} --packets {} --connections {}",
        options.packets, options.connections
    );
    let folder = tempfile::Builder::new().prefix("umbel-chaos-").tempdir()?;
    let launcher = Launcher::new(&options.umbel, folder.path(), &folder.path().join("data"))?;
    let node = launcher.start().await?;
    let verdict = campaign(&options, seed, node, folder.path().join("node.log")).await;
    match verdict {
        Ok(()) => {
            println!("rubbish: passed");
            Ok(ExitCode::SUCCESS)
        },
        Err(error) => {
            println!(
                "rubbish: FAILED with --seed {seed}: {error:#}; files in {}",
                folder.keep().display()
            );
            Ok(ExitCode::FAILURE)
        },
    }
}

async fn campaign(options: &Options, seed: u64, mut node: Node, log: PathBuf) -> Result<()> {
    let began = Instant::now();
    let at = node.endpoints;
    let counts = Arc::new(Counts::default());
    let (stop, stopping) = watch::channel(false);
    let neighbour = tokio::spawn(Neighbour::connect(at.mqtt).await?.live(stopping));
    // The first tenth warms caches and pools up; growth is judged from there.
    throw(options, seed, options.packets / 10, at.mqtt, &counts).await?;
    let before = resident_kib(node.id()?)?;
    let rest = options.packets - options.packets / 10;
    throw(options, seed.wrapping_add(1), rest, at.mqtt, &counts).await?;
    let after = resident_kib(node.id()?)?;
    ensure!(
        !neighbour.is_finished(),
        "the neighbour was cut off: {:?}",
        neighbour.await
    );
    let open = settled(at.http).await?;
    stop.send_replace(true);
    let echoes = neighbour.await??;
    let page = http::text(at.http, "/metrics").await?;
    let malformed = sum(&page, "umbel_mqtt_malformed_total");
    println!(
        "sent {} packets in {} connections within {} s; the node counted {malformed} as malformed",
        counts.sent.load(Ordering::Relaxed),
        counts.connections.load(Ordering::Relaxed),
        began.elapsed().as_secs(),
    );
    println!("neighbour: {echoes} messages there and back; connections left: {open}");
    println!(
        "resident: {before} KiB after a tenth, {after} KiB at the end, with {} clients, {} sessions and {} retained \
         messages that the rubbish left behind",
        sum(&page, "umbel_fleet_clients"),
        sum(&page, "umbel_mqtt_sessions"),
        sum(&page, "umbel_mqtt_retained_messages"),
    );
    if let Some(ended) = node.ended()? {
        anyhow::bail!("the node ended with {ended}");
    }
    let log = fs::read_to_string(log)?;
    ensure!(
        !log.contains("panicked"),
        "something panicked; see node.log"
    );
    let stuck = counts.stuck.load(Ordering::Relaxed);
    ensure!(stuck == 0, "{stuck} connections stayed open");
    ensure!(open <= 1.0, "{open} connections are left, one was expected");
    ensure!(
        malformed > 0.0,
        "nothing was malformed: the campaign is void"
    );
    ensure!(
        echoes > 0,
        "the neighbour heard nothing: the campaign is void"
    );
    ensure!(
        after.saturating_sub(before) < options.growth_max << 10,
        "memory grew from {before} to {after} KiB"
    );
    node.kill().await
}

/// Sends `packets` spoiled packets.
async fn throw(
    options: &Options,
    seed: u64,
    packets: u64,
    broker: SocketAddr,
    counts: &Arc<Counts>,
) -> Result<()> {
    let until = counts.sent.load(Ordering::Relaxed) + packets;
    let mut senders = JoinSet::new();
    for n in 0..options.connections {
        let counts = Arc::clone(counts);
        let chance = stream(seed, Concern::Worker(n));
        senders.spawn(async move { send(n, chance, broker, until, &counts).await });
    }
    while let Some(sender) = senders.join_next().await {
        sender??;
    }
    Ok(())
}

async fn send(
    n: u16,
    mut chance: StdRng,
    broker: SocketAddr,
    until: u64,
    counts: &Counts,
) -> Result<()> {
    while counts.sent.load(Ordering::Relaxed) < until {
        let (bytes, rubbish) = words(n, &mut chance);
        let stream = connected(broker, &mut chance)
            .await
            .context("the node takes no connections")?;
        let ended = timeout(END_PATIENCE, say(stream, &bytes)).await;
        if ended.is_err() {
            counts.stuck.fetch_add(1, Ordering::Relaxed);
        }
        counts.sent.fetch_add(rubbish, Ordering::Relaxed);
        counts.connections.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// From one of many addresses of this machine: the ports of a single one would be used up, for everybody.
async fn connected(broker: SocketAddr, chance: &mut StdRng) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 1, chance.random(), chance.random_range(1..255));
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(broker).await
}

/// What one connection says, and how much of it is rubbish.
fn words(n: u16, chance: &mut StdRng) -> (Vec<u8>, u64) {
    let version = if chance.random() {
        Version::V4
    } else {
        Version::V5
    };
    // Half of it before a CONNECT: that costs the node no session, and is what strangers can do.
    if chance.random() {
        return (spoiled_connect(version, chance), 1);
    }
    let mut bytes = connect(version, &format!("rubbish-{n}"));
    let burst = chance.random_range(1..=BURST_MAX);
    for _ in 0..burst {
        bytes.extend(spoiled(version, chance));
    }
    (bytes, burst as u64)
}

/// Says it, closes our half, and reads until the node closes its own. Whether the node closes early is its business.
async fn say(mut stream: TcpStream, bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        // An error means that the node was faster.
        drop(stream.shutdown().await);
    }
    let mut answer = [0; 512];
    while matches!(stream.read(&mut answer).await, Ok(1..)) {}
}

/// The gauge of open connections, once only the neighbour is left or patience ends.
async fn settled(api: SocketAddr) -> Result<f64> {
    let began = Instant::now();
    loop {
        let open = sum(
            &http::text(api, "/metrics").await?,
            "umbel_mqtt_connections",
        );
        if open <= 1.0 || began.elapsed() > SETTLE_PATIENCE {
            return Ok(open);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The sum of all series of one metric.
fn sum(page: &str, name: &str) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the node has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("VmRSS")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_added_and_others_are_not() {
        let page = "# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3\nab 7\n";
        assert!((sum(page, "a") - 5.0).abs() < f64::EPSILON);
        assert!((sum(page, "ab") - 7.0).abs() < f64::EPSILON);
    }
}
