//! The cluster's processes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{runtime::Handle, sync::watch, time::sleep};

use super::network::{Inside, Network, address};
use crate::{
    http,
    process::{Endpoints, Launcher, Node},
    site::{Site, Sites},
};

/// How long a token may take.
const TOKEN_WITHIN: Duration = Duration::from_secs(30);
/// How long a new cluster may take.
const FORMS_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LINK_PORT: u16 = 7400;

/// How the cluster is made.
pub(super) struct Plan<'a> {
    pub(super) umbel: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) nodes: usize,
    pub(super) shards: u16,
    pub(super) can_be_cut: bool,
}

/// All nodes, running or not.
pub(super) struct Nodes {
    launchers: Vec<Launcher>,
    running: Vec<Option<Node>>,
    places: Vec<watch::Sender<Option<Endpoints>>>,
    /// Numbers that the cluster gave them.
    ids: Vec<u64>,
    inside: Vec<Inside>,
    pub(super) network: Option<Network>,
    pub(super) sites: Sites,
}

/// A shard as the cluster shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) id: u16,
    /// Index of its owner.
    pub(super) owner: Option<usize>,
    pub(super) term: u64,
}

impl Nodes {
    /// Makes a cluster and waits until it serves with all its copies.
    pub(super) async fn start(plan: Plan<'_>) -> Result<Self> {
        let network = if plan.can_be_cut {
            Some(Network::create(plan.nodes).await?)
        } else {
            None
        };
        let (mut launchers, mut inside, mut places, mut sites) = (vec![], vec![], vec![], vec![]);
        for n in 0..plan.nodes {
            launchers.push(launcher(&plan, n, network.as_ref())?);
            if let Some(network) = &network {
                inside.push(Inside::start(&network.namespace(n))?);
            }
            let (place, at) = watch::channel(None);
            places.push(place);
            let runtime = inside
                .get(n)
                .map_or_else(Handle::current, |inside: &Inside| inside.runtime.clone());
            sites.push(Site::new(n, at, runtime));
        }
        let mut this = Self {
            running: launchers.iter().map(|_| None).collect(),
            launchers,
            places,
            ids: Vec::new(),
            inside,
            network,
            sites: Sites::new(sites),
        };
        for n in 0..plan.nodes {
            this.enter(n).await?;
            this.start_node(n).await?;
            let cluster = this.ask(n, "/api/v1/cluster").await?;
            let id = cluster.get("me").and_then(Value::as_u64);
            this.ids
                .push(id.context("the node does not say who it is")?);
        }
        this.whole(FORMS_WITHIN).await?;
        Ok(this)
    }

    /// `umbel cluster init` on the first, `join` on each other.
    async fn enter(&self, n: usize) -> Result<()> {
        let launcher = self.launchers.get(n).context("no such node")?;
        let config = launcher.config();
        let mut command = launcher.command();
        command.arg("cluster");
        if n == 0 {
            command.arg("init").arg("--config").arg(config);
        } else {
            let token = self.token().await?;
            let seed = format!("{}:{LINK_PORT}", self.host(0));
            command.arg("join").arg("--config").arg(config);
            command.args(["--seed", &seed, "--token", &token]);
        }
        run(&mut command).await.map(drop)
    }

    async fn token(&self) -> Result<String> {
        let first = self.launchers.first().context("no node")?;
        let up = self.sites.iter().next().and_then(Site::here);
        let server = format!(
            "http://{}",
            up.context("the first node is down")?.endpoints.http
        );
        let mut command = first.command();
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
            if began.elapsed() > TOKEN_WITHIN {
                bail!("no token is made: {made:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn host(&self, n: usize) -> String {
        if self.network.is_some() {
            address(n)
        } else {
            loopback(n)
        }
    }

    /// Starts a node that does not run.
    pub(super) async fn start_node(&mut self, n: usize) -> Result<()> {
        let launcher = self.launchers.get(n).context("no such node")?;
        let node = launcher.start().await?;
        if let Some(place) = self.places.get(n) {
            place.send_replace(Some(node.endpoints));
        }
        if let Some(running) = self.running.get_mut(n) {
            *running = Some(node);
        }
        Ok(())
    }

    /// A node that runs, from now on hidden from clients.
    pub(super) fn take(&mut self, n: usize) -> Result<Node> {
        if let Some(place) = self.places.get(n) {
            place.send_replace(None);
        }
        let node = self.running.get_mut(n).and_then(Option::take);
        node.with_context(|| format!("node {n} does not run"))
    }

    /// A node that runs.
    pub(super) fn node(&self, n: usize) -> Result<&Node> {
        let node = self.running.get(n).and_then(Option::as_ref);
        node.with_context(|| format!("node {n} does not run"))
    }

    /// Every node by its index.
    pub(super) fn indices(&self) -> std::ops::Range<usize> {
        0..self.launchers.len()
    }

    /// Fails when a node ended that nobody ended.
    pub(super) fn check(&mut self) -> Result<()> {
        for (n, node) in self.running.iter_mut().enumerate() {
            if let Some(node) = node
                && let Some(status) = node.ended()?
            {
                bail!("node {n} ended by itself: {status}");
            }
        }
        Ok(())
    }

    /// The JSON of a GET to one node.
    pub(super) async fn ask(&self, n: usize, path: &'static str) -> Result<Value> {
        let site = self.sites.iter().nth(n).context("no such node")?;
        let up = site.here().context("the node is down")?;
        let server = up.endpoints.http;
        up.run(async move { http::get(server, path).await }).await?
    }

    /// Waits until every shard is served with all its copies, as every node sees it.
    pub(super) async fn whole(&mut self, within: Duration) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let (mut all, mut seen) = (true, String::new());
            for n in self.indices() {
                let cluster = self.ask(n, "/api/v1/cluster").await;
                all &= cluster.as_ref().is_ok_and(is_whole);
                seen = format!("{seen} node {n}: {cluster:?}");
            }
            if all {
                return Ok(began.elapsed());
            }
            self.check()?;
            if began.elapsed() > within {
                bail!("the cluster is not whole within {within:?}:{seen}");
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// All shards, as a node sees them.
    pub(super) async fn shards(&self, witness: usize) -> Result<Vec<Shard>> {
        let answer = self.ask(witness, "/api/v1/cluster/shards").await?;
        let items = answer.get("items").and_then(Value::as_array);
        let shard = |item: &Value| {
            let number = |key: &str| item.get(key).and_then(Value::as_u64);
            let owner = number("owner");
            Some(Shard {
                id: u16::try_from(number("id")?).ok()?,
                owner: self.ids.iter().position(|id| Some(*id) == owner),
                term: number("term").unwrap_or_default(),
            })
        };
        let shards = items.context("no list of shards")?.iter().map(shard);
        shards.collect::<Option<_>>().context("an odd shard")
    }

    /// Kills everything.
    pub(super) async fn end(&mut self) -> Result<()> {
        for node in self.running.iter_mut().filter_map(Option::as_mut) {
            node.kill().await?;
        }
        self.inside.clear();
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

/// An address of this machine that no other run uses: processes differ by their id.
fn loopback(n: usize) -> String {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    format!("127.{}.{b}.{c}", 16 + usize::from(a & 7) * 4 + n)
}

fn launcher(plan: &Plan<'_>, n: usize, network: Option<&Network>) -> Result<Launcher> {
    let folder = plan.folder.join(format!("node-{n}"));
    fs::create_dir_all(&folder)?;
    let host = |n| network.map_or_else(|| loopback(n), |_| address(n));
    let seeds: Vec<String> = (0..plan.nodes)
        .filter(|other| *other != n)
        .map(|other| format!("\"{}:{LINK_PORT}\"", host(other)))
        .collect();
    let more = format!(
        "[cluster]\nbind = \"{}:{LINK_PORT}\"\nseeds = [{}]\nzone = \"zone-{n}\"\nshards = {}\n",
        host(n),
        seeds.join(", "),
        plan.shards
    );
    let namespace = network.map(|network| network.namespace(n));
    Launcher::with(plan.umbel, &folder, &folder.join("data"), &more, namespace)
}

/// Runs a command to its good end; what it printed.
async fn run(command: &mut tokio::process::Command) -> Result<String> {
    let done = command.output().await?;
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, error.trim());
    }
    Ok(String::from_utf8(done.stdout)?)
}
