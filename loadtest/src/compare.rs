//! The same work for Umbel and for mosquitto, in one run: memory of idle connections, CPU of connecting, CPU of QoS 1
//! publishes without a subscriber.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    client::{Client, Target},
    process::{Usage, usage},
};

/// Connections of one source address. A port that was used stays taken for a minute after its connection ended, so
/// each wave of each run has addresses of its own, and none needs more ports than an address has.
const CONNECTIONS_PER_ADDRESS: usize = 10_000;
/// Connection attempts under way at once.
const CONNECTING_MAX: usize = 128;
const KEEP_ALIVE: Duration = Duration::from_mins(20);
/// How long a server may take to open its port.
const START_PATIENCE: Duration = Duration::from_mins(1);
const PAYLOAD: usize = 512;

/// `umbel-loadtest compare`
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The umbel program.
    #[arg(long, default_value = "target/release/umbel")]
    umbel: PathBuf,
    /// The mosquitto program.
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// Idle connections.
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// QoS 1 publishes in all.
    #[arg(long, default_value_t = 500_000)]
    publishes: usize,
    /// Clients that publish, each waiting for its PUBACK.
    #[arg(long, default_value_t = 1000)]
    publishers: usize,
    /// Publishes offered per second, by all publishers together; without it each publishes as soon as it may.
    #[arg(long)]
    rate: Option<u32>,
    /// Rest before memory is read, so that what connecting needed is given back.
    #[arg(long, default_value_t = 45)]
    rest_seconds: u64,
    /// Measure only this one.
    #[arg(long, value_enum)]
    only: Option<Subject>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Cost {
    server: &'static str,
    resident_bytes_per_connection: f64,
    cpu_micros_per_connect: f64,
    cpu_seconds_per_million_publishes: f64,
    publishes_per_second: f64,
}

/// Measures both and prints the table.
pub(crate) async fn run(args: CompareArgs) -> Result<()> {
    let mut costs = Vec::new();
    let subjects = [Subject::Umbel, Subject::Mosquitto];
    for subject in subjects
        .into_iter()
        .filter(|one| args.only.is_none_or(|only| only == *one))
    {
        costs.push(
            measure(subject, &args)
                .await
                .with_context(|| format!("{subject:?}"))?,
        );
    }
    println!(
        "{:<10} {:>18} {:>16} {:>22} {:>12}",
        "", "bytes/connection", "µs CPU/connect", "CPU-s/million QoS 1", "publishes/s"
    );
    for cost in &costs {
        println!(
            "{:<10} {:>18.0} {:>16.1} {:>22.2} {:>12.0}",
            cost.server,
            cost.resident_bytes_per_connection,
            cost.cpu_micros_per_connect,
            cost.cpu_seconds_per_million_publishes,
            cost.publishes_per_second
        );
    }
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_vec_pretty(&costs)?)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Umbel,
    Mosquitto,
}

/// A wave of connections: what its clients are called, and which source addresses are theirs.
#[derive(Clone, Copy)]
enum Wave {
    Warm,
    Idle,
    Publishers,
}

impl Wave {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Warm => "warm-",
            Self::Idle => "idle-",
            Self::Publishers => "pub-",
        }
    }

    /// Where the n-th client of the wave comes from: 127.run.wave.n.
    fn source(self, n: usize) -> SocketAddr {
        let [run, ..] = std::process::id().to_le_bytes();
        let nth = u8::try_from(n / CONNECTIONS_PER_ADDRESS).unwrap_or(u8::MAX - 1) + 1;
        SocketAddr::from((Ipv4Addr::new(127, run, self as u8, nth), 0))
    }
}

async fn measure(subject: Subject, args: &CompareArgs) -> Result<Cost> {
    let folder = tempfile::tempdir()?;
    let (mut child, target) = match subject {
        Subject::Umbel => start_umbel(&args.umbel, folder.path()).await?,
        Subject::Mosquitto => start_mosquitto(&args.mosquitto, folder.path()).await?,
    };
    let pid = child.id().context("the server has ended")?;
    let costs = measure_running(subject, args, &target, pid).await;
    child.kill().await?;
    costs
}

async fn measure_running(
    subject: Subject,
    args: &CompareArgs,
    target: &Target,
    pid: u32,
) -> Result<Cost> {
    // A first wave warms allocator and caches of both alike.
    drop(connect_all(target, Wave::Warm, 200).await?);
    sleep(Duration::from_secs(2)).await;
    let fresh = usage(pid)?;
    let idle = connect_all(target, Wave::Idle, args.connections).await?;
    let connected = usage(pid)?;
    sleep(Duration::from_secs(args.rest_seconds)).await;
    let rested = usage(pid)?;
    drop(idle);
    sleep(Duration::from_secs(3)).await;

    let publishers = connect_all(target, Wave::Publishers, args.publishers).await?;
    let (before, after, took) = publish_all(publishers, args, pid).await?;
    let connections = args.connections.max(1) as f64;
    let published = args.publishes as f64;
    Ok(Cost {
        server: match subject {
            Subject::Umbel => "umbel",
            Subject::Mosquitto => "mosquitto",
        },
        resident_bytes_per_connection: rested.resident.saturating_sub(fresh.resident) as f64
            / connections,
        cpu_micros_per_connect: spent(fresh, connected).as_micros() as f64 / connections,
        cpu_seconds_per_million_publishes: spent(before, after).as_secs_f64() / published * 1e6,
        publishes_per_second: published / took.as_secs_f64(),
    })
}

fn spent(before: Usage, after: Usage) -> Duration {
    after.cpu.saturating_sub(before.cpu)
}

async fn connect_all(target: &Target, wave: Wave, count: usize) -> Result<Vec<Client>> {
    let permits = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut tasks = JoinSet::new();
    for n in 0..count {
        let (target, permits, id) = (
            target.clone(),
            Arc::clone(&permits),
            format!("{}{n}", wave.prefix()),
        );
        tasks.spawn(async move {
            let _permit = permits.acquire().await?;
            Client::connect(&target, wave.source(n), &id, KEEP_ALIVE).await
        });
    }
    let mut clients = Vec::with_capacity(count);
    while let Some(client) = tasks.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

/// A closed loop: each client publishes, waits for its PUBACK, and publishes again, at once or when its turn comes.
async fn publish_all(
    publishers: Vec<Client>,
    args: &CompareArgs,
    pid: u32,
) -> Result<(Usage, Usage, Duration)> {
    let count = publishers.len().max(1);
    let each = args.publishes / count;
    let pause = args.rate.map_or(Duration::ZERO, |rate| {
        Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)))
    });
    let payload = Arc::new(vec![b'x'; PAYLOAD]);
    let before = usage(pid)?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, mut client) in publishers.into_iter().enumerate() {
        let payload = Arc::clone(&payload);
        // Turns are spread evenly, or a thousand clients would publish at once and then rest.
        let first = tokio::time::Instant::now() + pause.mul_f64(n as f64 / count as f64);
        tasks.spawn(async move {
            let topic = format!("bench/{n}/data");
            for nth in 0..u32::try_from(each)? {
                if !pause.is_zero() {
                    sleep_until(first + pause * nth).await;
                }
                client.publish_acknowledged(&topic, &payload).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((before, usage(pid)?, began.elapsed()))
}

#[derive(Deserialize)]
struct Endpoints {
    mqtt: SocketAddr,
}

async fn start_umbel(program: &Path, folder: &Path) -> Result<(Child, Target)> {
    let ports = folder.join("ports.json");
    let config = folder.join("umbel.toml");
    fs::write(
        &config,
        format!(
            "[node]\ndata_dir = \"{}\"\n[http]\nbind = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n\
             [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\nidentity = \"anonymous\"\n",
            folder.join("data").display()
        ),
    )?;
    let child = Command::new(program)
        .args(["node", "--config"])
        .arg(&config)
        .arg("--ports-file")
        .arg(&ports)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| program.display().to_string())?;
    let began = Instant::now();
    while began.elapsed() < START_PATIENCE {
        if let Ok(text) = fs::read(&ports)
            && let Ok(endpoints) = serde_json::from_slice::<Endpoints>(&text)
        {
            return Ok((
                child,
                Target {
                    address: endpoints.mqtt,
                    tls: None,
                },
            ));
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("umbel did not open its port");
}

async fn start_mosquitto(program: &Path, folder: &Path) -> Result<(Child, Target)> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let config = folder.join("mosquitto.conf");
    fs::write(
        &config,
        format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n"),
    )?;
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| program.display().to_string())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let began = Instant::now();
    while began.elapsed() < START_PATIENCE {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Ok((child, Target { address, tls: None }));
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("mosquitto did not open its port");
}
