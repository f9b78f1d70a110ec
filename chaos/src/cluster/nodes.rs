//! The cluster's processes.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{runtime::Handle, sync::watch, time::sleep};

use super::{
    clocks::Clock,
    network::{Inside, Network},
    plan::Plan,
};
use crate::{
    disk::Disk,
    http,
    process::{Endpoints, Launcher, Node},
    site::{Site, Sites},
};

/// How long a new cluster may take.
const FORMS_WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// All nodes, running or not.
pub(super) struct Nodes {
    pub(super) launchers: Vec<Launcher>,
    pub(super) running: Vec<Option<Node>>,
    places: Vec<watch::Sender<Option<Endpoints>>>,
    /// Numbers that the cluster gave them.
    pub(super) ids: Vec<u64>,
    inside: Vec<Inside>,
    pub(super) folder: PathBuf,
    clocks: Vec<Clock>,
    pub(super) network: Option<Network>,
    pub(super) disks: Vec<Disk>,
    pub(super) sites: Sites,
}

/// A shard as the cluster shows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    pub(super) id: u16,
    /// Index of its owner.
    pub(super) owner: Option<usize>,
    /// Where it is to be in quiet times.
    preferred: Option<usize>,
    pub(super) term: u64,
}

impl Shard {
    /// Whether nothing will move it by itself.
    pub(super) fn is_at_home(&self) -> bool {
        self.owner.is_some() && self.owner == self.preferred
    }

    /// Whether it has the same owner in the same term.
    pub(super) fn is_owned_as(&self, other: &Self) -> bool {
        (self.id, self.owner, self.term) == (other.id, other.owner, other.term)
    }
}

impl Nodes {
    /// Makes a cluster and waits until it serves with all its copies.
    pub(super) async fn start(plan: Plan<'_>) -> Result<Self> {
        let network = if plan.has(|kind| kind.needs_network()) {
            Some(Network::create(plan.nodes).await?)
        } else {
            None
        };
        let (mut launchers, mut inside, mut places, mut sites) = (vec![], vec![], vec![], vec![]);
        let (mut disks, mut clocks) = (vec![], vec![]);
        for n in 0..plan.nodes {
            let equipped = plan.equip(n, network.as_ref())?;
            launchers.push(equipped.launcher);
            disks.extend(equipped.disk);
            clocks.extend(equipped.clock);
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
            folder: plan.folder.to_owned(),
            clocks,
            network,
            disks,
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

    /// A node's wall clock.
    pub(super) fn clock(&self, n: usize) -> Result<&Clock> {
        self.clocks.get(n).context("the clocks cannot be moved")
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
            let node = |key: &str| self.ids.iter().position(|id| Some(*id) == number(key));
            Some(Shard {
                id: u16::try_from(number("id")?).ok()?,
                owner: node("owner"),
                preferred: node("preferred"),
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
