//! The cluster's processes.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    time::sleep,
};

use super::http;
use crate::{
    client::Target,
    process::{Usage, usage},
};

/// How long a node may take to start, and a cluster to have all its copies.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long owners may take to be where they should.
const BALANCED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Each cluster of a run has a port of its own on addresses of its own.
static LINK_PORT: AtomicU16 = AtomicU16::new(7400);

/// How a cluster is made.
pub(super) struct Plan<'a> {
    pub(super) umbel: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) nodes: usize,
    pub(super) shards: u16,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Endpoints {
    mqtt: SocketAddr,
    http: SocketAddr,
}

struct Node {
    child: Child,
    at: Endpoints,
}

/// A cluster that runs; its processes are killed when it is dropped.
pub(super) struct Nodes {
    nodes: Vec<Node>,
}

impl Nodes {
    /// Makes a cluster and waits until it serves with all its copies.
    pub(super) async fn start(plan: &Plan<'_>) -> Result<Self> {
        let umbel =
            fs::canonicalize(plan.umbel).with_context(|| plan.umbel.display().to_string())?;
        let port = LINK_PORT.fetch_add(1, Ordering::Relaxed);
        let mut this = Self { nodes: Vec::new() };
        for n in 0..plan.nodes {
            let config = configure(plan, n, port)?;
            this.enter(&umbel, &config, n, port).await?;
            this.nodes.push(start(&umbel, &config).await?);
        }
        this.whole()
            .await
            .with_context(|| format!("logs are in {}", plan.folder.display()))?;
        this.balanced().await?;
        Ok(this)
    }

    /// `umbel cluster init` for the first, `join` for each other.
    async fn enter(&self, umbel: &Path, config: &Path, n: usize, port: u16) -> Result<()> {
        let mut command = Command::new(umbel);
        command.arg("cluster");
        if n == 0 {
            command.arg("init").arg("--config").arg(config);
        } else {
            let token = self.token(umbel).await?;
            let seed = format!("{}:{port}", loopback(0));
            command.arg("join").arg("--config").arg(config);
            command.args(["--seed", &seed, "--token", &token]);
        }
        run(&mut command).await.map(drop)
    }

    async fn token(&self, umbel: &Path) -> Result<String> {
        let server = format!("http://{}", self.node(0)?.at.http);
        let mut command = Command::new(umbel);
        command.args(["ctl", "--server", &server, "-o", "json", "token", "create"]);
        let began = Instant::now();
        loop {
            let made = run(&mut command).await;
            if let Ok(text) = &made
                && let Some(token) = serde_json::from_str::<Value>(text)?
                    .get("token")
                    .and_then(Value::as_str)
            {
                return Ok(token.to_owned());
            }
            if began.elapsed() > PATIENCE {
                bail!("no token is made: {made:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every shard is served with all its copies, as every node sees it.
    async fn whole(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut seen = Vec::new();
            for node in &mut self.nodes {
                if let Some(status) = node.child.try_wait()? {
                    bail!("a node ended by itself: {status}");
                }
                let cluster = http::get(node.at.http, "/api/v1/cluster").await;
                seen.push(cluster.and_then(|text| Ok(serde_json::from_str::<Value>(&text)?)));
            }
            if seen.iter().all(|one| one.as_ref().is_ok_and(is_whole)) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the cluster is not whole within {PATIENCE:?}: {seen:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every shard is owned where it should be, so that no move is measured; says so if that does not come.
    async fn balanced(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let text = http::get(self.node(0)?.at.http, "/api/v1/cluster/shards").await?;
            let shards: Value = serde_json::from_str(&text)?;
            let shards = shards.get("items").and_then(Value::as_array);
            let shards = shards.context("no list of shards")?;
            if is_balanced(shards, self.nodes.len()) {
                return Ok(());
            }
            if began.elapsed() > BALANCED_WITHIN {
                println!("note: owners are not balanced after {BALANCED_WITHIN:?}");
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn node(&self, n: usize) -> Result<&Node> {
        self.nodes.get(n).context("no such node")
    }

    /// How many nodes there are.
    pub(super) const fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Where a node takes MQTT connections.
    pub(super) fn target(&self, n: usize) -> Result<Target> {
        Ok(Target {
            address: self.node(n)?.at.mqtt,
            tls: None,
        })
    }

    /// What each node needed since its start.
    pub(super) fn usage(&self) -> Result<Vec<Usage>> {
        let of = |node: &Node| usage(node.child.id().context("the node has ended")?);
        self.nodes.iter().map(of).collect()
    }

    /// CPU time of all nodes together since their start.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(self.usage()?.iter().map(|usage| usage.cpu).sum())
    }

    /// A counter of `/metrics`, all its series and all nodes together.
    pub(super) async fn counter(&self, name: &str) -> Result<f64> {
        let mut sum = 0.0;
        for node in &self.nodes {
            let text = http::get(node.at.http, "/metrics").await?;
            let of = |line: &str| -> Option<f64> {
                let rest = line.strip_prefix(name)?;
                rest.starts_with(['{', ' '])
                    .then(|| rest.rsplit(' ').next()?.parse().ok())?
            };
            sum += text.lines().filter_map(of).sum::<f64>();
        }
        Ok(sum)
    }

    /// Kills a node at once (SIGKILL). It is not one of this cluster's nodes any more.
    pub(super) async fn kill(&mut self, n: usize) -> Result<()> {
        if n >= self.nodes.len() {
            bail!("no such node");
        }
        self.nodes.remove(n).child.kill().await?;
        Ok(())
    }

    /// Kills every node.
    pub(super) async fn end(mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.child.kill().await?;
        }
        Ok(())
    }
}

fn is_whole(cluster: &Value) -> bool {
    let number = |key: &str| cluster.get(key).and_then(Value::as_u64);
    let shards = number("shards");
    shards > Some(0)
        && number("shards_served") == shards
        && number("shards_ok") == shards
        && number("nodes_up") == number("nodes")
}

fn is_balanced(shards: &[Value], nodes: usize) -> bool {
    let mut counts = BTreeMap::new();
    for shard in shards {
        let Some(owner) = shard.get("owner").and_then(Value::as_u64) else {
            return false;
        };
        if shard.get("preferred").and_then(Value::as_u64) != Some(owner) {
            return false;
        }
        *counts.entry(owner).or_insert(0_usize) += 1;
    }
    let (most, least) = (counts.values().max(), counts.values().min());
    counts.len() == nodes.min(shards.len())
        && most
            .zip(least)
            .is_some_and(|(most, least)| most - least <= 1)
}

/// An address of this machine that no other run uses: processes differ by their id.
fn loopback(n: usize) -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}", 200 + usize::from(a & 7) * 4 + n)
}

fn configure(plan: &Plan<'_>, n: usize, port: u16) -> Result<PathBuf> {
    let folder = plan.folder.join(format!("node-{n}"));
    fs::create_dir(&folder)?;
    let seeds: Vec<String> = (0..plan.nodes)
        .filter(|other| *other != n)
        .map(|other| format!("\"{}:{port}\"", loopback(other)))
        .collect();
    let config = folder.join("umbel.toml");
    fs::write(
        &config,
        format!(
            "[node]\ndata_dir = \"{}\"\n[http]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             identity = \"anonymous\"\n\
             [cluster]\nbind = \"{}:{port}\"\nseeds = [{}]\nzone = \"zone-{n}\"\nshards = {}\n",
            folder.join("data").display(),
            loopback(n),
            seeds.join(", "),
            plan.shards,
        ),
    )?;
    Ok(config)
}

/// Starts a node and waits until it says where it listens.
async fn start(umbel: &Path, config: &Path) -> Result<Node> {
    let folder = config.parent().context("the configuration's folder")?;
    let ports = folder.join("ports.json");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("node.log"))?;
    let mut child = Command::new(umbel)
        .arg("node")
        .arg("--config")
        .arg(config)
        .arg("--ports-file")
        .arg(&ports)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            bail!("the node ended with {status}; see {}", folder.display());
        }
        if let Ok(text) = fs::read(&ports)
            && let Ok(at) = serde_json::from_slice(&text)
        {
            return Ok(Node { child, at });
        }
        sleep(Duration::from_millis(10)).await;
    }
    bail!("the node did not start within {PATIENCE:?}")
}

/// Runs a command to its good end; what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let done = command.output().await?;
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, error.trim());
    }
    Ok(String::from_utf8(done.stdout)?)
}
