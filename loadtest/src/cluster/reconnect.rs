//! A node dies, and its devices come back to the others. Nobody may hear that a device is offline that came back or never
//! left; a few that stay away show that whoever listens would have heard.

use std::{
    collections::BTreeMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rumqttc::mqttbytes::{
    QoS,
    v4::{LastWill, Packet},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Common, Folder, conclude,
    devices::{Report, State, WILLS},
    load,
    nodes::{Nodes, Plan},
};
use crate::client::{Client, PATIENCE};

const MIB: f64 = 1_048_576.0;
const PRESENCE: &str = "$aws/events/presence/disconnected";
const NODES: usize = 3;
const LEASES_LOST: &str = "umbel_shard_leases_lost_total";
const ELECTIONS: &str = "umbel_shard_elections_total";
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// `umbel-loadtest cluster reconnect`
#[derive(Args)]
pub(crate) struct ReconnectArgs {
    /// Devices on each node, each with a will.
    #[arg(long, default_value_t = 10_000)]
    devices: usize,
    /// Devices on the node that is killed which do not come back: each is offline once, with one will.
    #[arg(long, default_value_t = 20)]
    leavers: usize,
    /// Shards.
    #[arg(long, default_value_t = 64)]
    shards: u16,
    /// Connections opened each second on each node at first.
    #[arg(long, default_value_t = 400.0)]
    connect_rate: f64,
    /// Keep-alive of the devices in seconds.
    #[arg(long, default_value_t = 300)]
    keep_alive: u64,
    /// Longest wait for all devices to be back.
    #[arg(long, default_value_t = 120)]
    back_within: u64,
    /// How long to listen for what should not come, after all are back and the grace is over.
    #[arg(long, default_value_t = 20)]
    listen_seconds: u64,
    /// `actors.reconnect_grace` of the nodes, in seconds.
    #[arg(long, default_value_t = 30)]
    grace: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Serialize)]
struct Found {
    devices_per_node: usize,
    lost: u64,
    back: usize,
    /// Since the kill, in milliseconds.
    back_50_percent_ms: Option<u64>,
    back_99_percent_ms: Option<u64>,
    back_100_percent_ms: Option<u64>,
    /// Devices of other nodes that lost their connection.
    lost_elsewhere: u64,
    failures: BTreeMap<String, u64>,
    leavers: usize,
    /// As each of the two other nodes told it.
    heard: Vec<Heard>,
    /// On the other nodes, from the kill until all were back: owners that had to stop speaking for a shard although they
    /// lived, and elections.
    leases_lost: f64,
    elections: f64,
    /// CPU of each of the other nodes from the kill until all were back, and memory after it.
    cpu_seconds: Vec<f64>,
    resident_mib: Vec<f64>,
}

/// What a listener heard.
#[derive(Clone, Debug, Default, Serialize)]
struct Heard {
    /// Offline events and wills of devices that came back or never left.
    false_offline: u64,
    false_wills: u64,
    /// Of those that stayed away; what came more than once is counted again.
    leavers_offline: u64,
    leavers_wills: u64,
    /// The first few that should not have come.
    examples: Vec<String>,
}

/// Measures and prints.
pub(super) async fn run(args: ReconnectArgs) -> Result<()> {
    let (folder, before) = (Folder::new(&args.common)?, load()?);
    let mut nodes = Nodes::start(&Plan {
        umbel: &args.common.umbel,
        folder: &folder.part("nodes")?,
        nodes: NODES,
        shards: args.shards,
    })
    .await?;
    let found = measure(&mut nodes, &args).await?;
    nodes.end().await?;
    print(&found);
    conclude(&args.common, before, found)
}

async fn measure(nodes: &mut Nodes, args: &ReconnectArgs) -> Result<Found> {
    let mut fleets = Vec::new();
    for n in 0..NODES {
        fleets.push(Process::start(nodes, args, n)?);
    }
    let patience = Duration::from_secs_f64(args.devices as f64 / args.connect_rate) * 4 + PATIENCE;
    for fleet in &mut fleets {
        fleet.until(args.devices as u64, patience).await?;
    }
    let leavers = leavers(nodes, args.leavers).await?;
    let (mut listeners, mut heard) = (JoinSet::new(), Vec::new());
    for n in 1..NODES {
        let tally = Arc::<Mutex<Heard>>::default();
        heard.push(Arc::clone(&tally));
        listeners.spawn(listen(listener(nodes, n).await?, tally));
    }
    sleep(Duration::from_secs(5)).await;

    let lost_before = states(&mut fleets).await?;
    let cost = kill(nodes, args, &mut fleets).await?;
    drop(leavers);
    let lost_after = states(&mut fleets).await?;
    let report: Report = first(&mut fleets)?.ask("report").await?;
    if let Some(ended) = listeners.try_join_next() {
        ended?.context("a listener was cut off")?;
    }
    let resident = nodes.usage()?;
    // Before the devices end, which is heard, too.
    let said = |tally: &Arc<Mutex<Heard>>| {
        let tally = tally.lock().expect("no one panics while counting");
        tally.clone()
    };
    let heard = heard.iter().map(said).collect();
    for fleet in fleets {
        fleet.end().await?;
    }
    let pairs = lost_before.iter().zip(&lost_after);
    let lost: Vec<u64> = pairs
        .map(|(before, after)| after.lost - before.lost)
        .collect();
    Ok(Found {
        devices_per_node: args.devices,
        lost: lost.first().copied().unwrap_or_default(),
        back: report.back.len(),
        back_50_percent_ms: since(&report, args.devices, 0.5),
        back_99_percent_ms: since(&report, args.devices, 0.99),
        back_100_percent_ms: since(&report, args.devices, 1.0),
        lost_elsewhere: lost.iter().skip(1).sum(),
        failures: report.failures,
        leavers: args.leavers,
        heard,
        leases_lost: cost.leases_lost,
        elections: cost.elections,
        cpu_seconds: cost.cpu_seconds,
        resident_mib: resident
            .iter()
            .map(|usage| usage.resident as f64 / MIB)
            .collect(),
    })
}

fn first(fleets: &mut [Process]) -> Result<&mut Process> {
    fleets.first_mut().context("no fleet")
}

/// What it cost the other nodes until all were back.
struct Cost {
    cpu_seconds: Vec<f64>,
    leases_lost: f64,
    elections: f64,
}

/// Kills the first node, and waits until all its devices are back and nothing more is to be heard of others.
async fn kill(nodes: &mut Nodes, args: &ReconnectArgs, fleets: &mut [Process]) -> Result<Cost> {
    let _: State = first(fleets)?.ask("mark").await?;
    let began = Instant::now();
    nodes.kill(0).await?;
    let before = nodes.usage()?;
    let (leases, elections) = (
        nodes.counter(LEASES_LOST).await?,
        nodes.counter(ELECTIONS).await?,
    );
    println!("killed a node with {} devices", args.devices);
    let within = Duration::from_secs(args.back_within);
    // Those that are not back then are counted as missing.
    let all = first(fleets)?
        .until_back(args.devices as u64, within)
        .await?;
    let after = nodes.usage()?;
    let leases_lost = nodes.counter(LEASES_LOST).await? - leases;
    let elections = nodes.counter(ELECTIONS).await? - elections;
    println!("all back: {all}; listening for what should not come");
    let quiet = Duration::from_secs(args.grace + args.listen_seconds);
    sleep(quiet.saturating_sub(began.elapsed())).await;
    sleep(Duration::from_secs(args.listen_seconds)).await;
    let used = before.iter().zip(&after);
    Ok(Cost {
        cpu_seconds: used
            .map(|(before, after)| after.cpu.saturating_sub(before.cpu).as_secs_f64())
            .collect(),
        leases_lost,
        elections,
    })
}

/// Milliseconds from the kill until this share of all devices was back.
fn since(report: &Report, devices: usize, share: f64) -> Option<u64> {
    let mut back = report.back.clone();
    back.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a small count"
    )]
    let due = (devices as f64 * share).ceil() as usize;
    back.get(due.checked_sub(1)?).copied()
}

async fn states(fleets: &mut [Process]) -> Result<Vec<State>> {
    let mut states = Vec::new();
    for fleet in fleets {
        states.push(fleet.ask("state").await?);
    }
    Ok(states)
}

fn print(found: &Found) {
    let seconds = |millis: Option<u64>| {
        millis.map_or_else(
            || "never".to_owned(),
            |millis| format!("{:.2} s", millis as f64 / 1000.0),
        )
    };
    println!(
        "{} of {} devices of the dead node back (lost: {}): 50 % after {}, 99 % after {}, 100 % after {}",
        found.back,
        found.devices_per_node,
        found.lost,
        seconds(found.back_50_percent_ms),
        seconds(found.back_99_percent_ms),
        seconds(found.back_100_percent_ms),
    );
    println!(
        "devices of other nodes that lost their connection: {}",
        found.lost_elsewhere
    );
    for (n, heard) in found.heard.iter().enumerate() {
        println!(
            "node {}: {} false offline, {} false wills; of {} that stayed away {} offline, {} wills {:?}",
            n + 1,
            heard.false_offline,
            heard.false_wills,
            found.leavers,
            heard.leavers_offline,
            heard.leavers_wills,
            heard.examples,
        );
    }
    println!(
        "other nodes until all were back: {} leases lost, {} elections",
        found.leases_lost, found.elections
    );
    println!(
        "other nodes: CPU until all were back {:.1?} s, resident after it {:.0?} MiB",
        found.cpu_seconds, found.resident_mib
    );
    for (text, count) in &found.failures {
        println!("{count} × {text}");
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Devices on the node that is killed which do not come back.
async fn leavers(nodes: &Nodes, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for n in 0..count {
        let id = format!("leaver-{n:05}");
        let will = LastWill::new(format!("{WILLS}/{id}"), "gone", QoS::AtLeastOnce, false);
        let keep_alive = Duration::from_mins(5);
        let target = nodes.target(0)?;
        clients.push(
            Client::connect_with_will(&target, any_port(), &id, keep_alive, Some(will)).await?,
        );
    }
    Ok(clients)
}

async fn listener(nodes: &Nodes, n: usize) -> Result<Client> {
    let id = format!("listener-{n}");
    let keep_alive = Duration::from_mins(20);
    let mut client = Client::connect(&nodes.target(n)?, any_port(), &id, keep_alive).await?;
    client.subscribe(&format!("{PRESENCE}/+")).await?;
    client.subscribe(&format!("{WILLS}/+")).await?;
    Ok(client)
}

/// Counts until the connection ends, which it should not.
async fn listen(mut client: Client, heard: Arc<Mutex<Heard>>) -> Result<()> {
    loop {
        let Packet::Publish(message) = client.next().await? else {
            continue;
        };
        if message.qos == QoS::AtLeastOnce {
            client.acknowledge(message.pkid).await?;
        }
        let is_offline = message.topic.starts_with(PRESENCE);
        let is_leaver = message.topic.contains("/leaver-");
        let mut heard = heard.lock().expect("no one panics while counting");
        *match (is_offline, is_leaver) {
            (true, true) => &mut heard.leavers_offline,
            (true, false) => &mut heard.false_offline,
            (false, true) => &mut heard.leavers_wills,
            (false, false) => &mut heard.false_wills,
        } += 1;
        if !is_leaver && heard.examples.len() < 5 {
            let text = String::from_utf8_lossy(&message.payload);
            heard.examples.push(format!("{} {text}", message.topic));
        }
    }
}

/// A process that plays the devices of one node.
struct Process {
    child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(nodes: &Nodes, args: &ReconnectArgs, n: usize) -> Result<Self> {
        let others: Vec<String> = (0..NODES)
            .filter(|other| *other != n)
            .map(|other| Ok(nodes.target(other)?.address.to_string()))
            .collect::<Result<_>>()?;
        let mut child = Command::new(env::current_exe()?)
            .args(["cluster", "devices"])
            .args(["--server", &nodes.target(n)?.address.to_string()])
            .args(["--others", &others.join(",")])
            .args(["--devices", &args.devices.to_string()])
            .args(["--prefix", &format!("device-{n}-")])
            .args(["--connect-rate", &args.connect_rate.to_string()])
            .args(["--keep-alive", &args.keep_alive.to_string()])
            .args(["--source", &(10 + n).to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let questions = child.stdin.take().context("its input")?;
        let answers = child.stdout.take().context("its output")?;
        Ok(Self {
            child,
            questions,
            answers: BufReader::new(answers).lines(),
        })
    }

    async fn ask<T: DeserializeOwned>(&mut self, question: &str) -> Result<T> {
        let question = format!("{question}\n");
        self.questions.write_all(question.as_bytes()).await?;
        let answer = timeout(PATIENCE, self.answers.next_line())
            .await
            .context("no answer from a process of devices")??;
        Ok(serde_json::from_str(&answer.context("it has ended")?)?)
    }

    /// Waits until so many are connected.
    async fn until(&mut self, open: u64, within: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let state: State = self.ask("state").await?;
            if state.open >= open {
                return Ok(());
            }
            if began.elapsed() > within {
                let report: Report = self.ask("report").await?;
                bail!("{state:?} after {within:?}: {:?}", report.failures);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until so many have lost their connection and are connected again; whether they are in time.
    async fn until_back(&mut self, devices: u64, within: Duration) -> Result<bool> {
        let began = Instant::now();
        while began.elapsed() < within {
            let state: State = self.ask("state").await?;
            if state.lost >= devices && state.open >= devices {
                return Ok(true);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    async fn end(mut self) -> Result<()> {
        drop(self.questions);
        timeout(PATIENCE, self.child.wait())
            .await
            .context("a process of devices does not end")??;
        Ok(())
    }
}
