//! A cluster of real processes, on loopback or each in a network namespace of its own.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;
use umbel_core::ids::ShardId;

use crate::{Authority, Member, eventually, netns::Wires};

/// The link's port: addresses differ instead, so that no port has to be guessed.
const LINK_PORT: u16 = 7400;
/// How devices with certificates come in.
const DOORS: &str = r#"
[tls]
ca = "@/ca.pem"
certificate = "@/server.pem"
key = "@/server.key"

[[listener]]
name = "mqtts"
kind = "tls"
bind = "127.0.0.1:0"
identity = "certificate"
"#;
static COUNT: AtomicU16 = AtomicU16::new(0);

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes at the start.
    pub nodes: usize,
    /// Shards: few, so that a busy machine starts and moves them quickly.
    pub shards: u16,
    /// Each node in a network namespace of its own, so that it can be cut off. Needs root.
    pub can_be_cut: bool,
    /// Device certificates from an authority of the test's own, and a TLS listener `mqtts`.
    pub has_certificates: bool,
    /// TOML for every node, tables of its own.
    pub more: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 3,
            shards: 6,
            can_be_cut: false,
            has_certificates: false,
            more: "",
        }
    }
}

/// A cluster; its processes are killed and its networks removed when dropped.
pub struct Cluster {
    nodes: Vec<Member>,
    plan: Plan,
    wires: Option<Wires>,
    authority: Option<Authority>,
    folder: TempDir,
    number: u16,
}

impl Cluster {
    /// Three nodes that serve.
    pub fn start() -> Self {
        Self::with(Plan::default())
    }

    /// A cluster that serves with all its copies in place.
    pub fn with(plan: Plan) -> Self {
        let nodes = plan.nodes;
        let mut this = Self::prepared(plan);
        let first = this.prepare();
        let config = this.nodes[first].config();
        let made = this.nodes[first].umbel(&["cluster", "init", "--config", &config]);
        assert_eq!(
            made.code,
            Some(0),
            "cluster init: {} {}",
            made.out,
            made.error
        );
        this.nodes[first].start();
        for _ in 1..nodes {
            this.add();
        }
        this.settled();
        this
    }

    /// No node yet: for who starts them in another way.
    pub fn prepared(plan: Plan) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            nodes: Vec::new(),
            wires: plan.can_be_cut.then(Wires::create),
            authority: plan
                .has_certificates
                .then(|| Authority::create(folder.path())),
            folder,
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            plan,
        }
    }

    /// A folder and a configuration for one more node, which is not started; its index.
    pub fn prepare(&mut self) -> usize {
        let n = self.nodes.len();
        let folder = self.folder.path().join(format!("node-{n}"));
        fs::create_dir(&folder).unwrap();
        let namespace = self.wires.as_mut().map(Wires::plug);
        let host = match &namespace {
            Some(namespace) => namespace.address.clone(),
            None => self.loopback(n),
        };
        let link = format!("{host}:{LINK_PORT}");
        let seeds: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("\"{}\"", node.link()))
            .collect();
        let text = format!(
            "[node]\ndata_dir = \"{}\"\n[http]\nbind = \"127.0.0.1:0\"\n\
             [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
             identity = \"anonymous\"\n\
             [cluster]\nbind = \"{link}\"\nseeds = [{}]\nzone = \"zone-{n}\"\nshards = {}\n{}",
            folder.join("data").display(),
            seeds.join(", "),
            self.plan.shards,
            self.plan.more,
        );
        let doors = if self.authority.is_some() {
            let ca = self.folder.path().join("ca").display().to_string();
            DOORS.replace('@', &ca)
        } else {
            String::new()
        };
        fs::write(folder.join("umbel.toml"), text + "\n" + &doors).unwrap();
        self.nodes.push(Member::new(folder, namespace, link));
        n
    }

    /// An address of this machine that no other test uses: test processes differ by their id.
    fn loopback(&self, n: usize) -> String {
        let [_, a, b, c] = std::process::id().to_be_bytes();
        let node = u16::try_from(n).unwrap() + self.number * 16;
        assert!(node < 64, "more clusters or nodes in a test than addresses");
        // 127.0.0.1 itself is everybody's.
        format!("127.{}.{b}.{c}", 64 + u16::from(a & 1) * 64 + node)
    }

    /// Makes a token on a node that runs.
    pub fn token(&self) -> String {
        let node = self.running().next().unwrap();
        let server = node.server();
        eventually("a token is made", || {
            let made = node.umbel(&["ctl", "--server", &server, "-o", "json", "token", "create"]);
            let token: Value = serde_json::from_str(&made.out).ok()?;
            token["token"].as_str().map(str::to_owned)
        })
    }

    /// Joins one more node and starts it; its index.
    pub fn add(&mut self) -> usize {
        let token = self.token();
        let n = self.prepare();
        self.join(n, &token);
        self.nodes[n].start();
        n
    }

    /// Makes a prepared node part of the cluster.
    pub fn join(&self, n: usize, token: &str) {
        let seed = self.running().next().unwrap().link().to_owned();
        let config = self.nodes[n].config();
        let node = &self.nodes[n];
        let arguments = [
            "cluster", "join", "--config", &config, "--seed", &seed, "--token", token,
        ];
        let done = node.umbel(&arguments);
        assert_eq!(
            done.code,
            Some(0),
            "cluster join: {} {}",
            done.out,
            done.error
        );
    }

    /// Issues a certificate; the folder of `name.pem`, `name.key` and `ca.pem`.
    pub fn issue(&self, name: &str) -> PathBuf {
        self.authority.as_ref().unwrap().issue(name);
        self.folder.path().join("ca")
    }

    /// A node by its index.
    pub fn node(&self, n: usize) -> &Member {
        &self.nodes[n]
    }

    /// A node by its index, to be started or killed.
    pub fn node_mut(&mut self, n: usize) -> &mut Member {
        &mut self.nodes[n]
    }

    /// Nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    /// Indices of all nodes.
    pub fn indices(&self) -> std::ops::Range<usize> {
        0..self.nodes.len()
    }

    /// The number the cluster gave a node.
    pub fn id(&self, n: usize) -> u64 {
        eventually(format!("node {n} says who it is"), || {
            self.nodes[n].get("/api/v1/cluster")?["me"].as_u64()
        })
    }

    /// Waits until every node that runs says that every shard is served, by its preferred owner and with all its copies:
    /// nothing will change by itself from here.
    pub fn settled(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            if node.is_running() {
                eventually(format!("node {n} sees all shards settled"), || {
                    let cluster = node.get("/api/v1/cluster")?;
                    let shards = cluster["shards"].as_u64()?;
                    let all = shards == u64::from(self.plan.shards)
                        && cluster["shards_served"] == shards
                        && cluster["shards_ok"] == shards
                        && self.is_at_home(n);
                    let ready = node.http("GET", "/readyz", &[], b"").ok()?.status == 200;
                    (all && ready).then_some(())
                });
            }
        }
    }

    /// Whether every shard is where it is to stay.
    fn is_at_home(&self, seen_by: usize) -> bool {
        self.shards(seen_by).is_some_and(|shards| {
            let at_home = |shard: &Value| shard["owner"] == shard["preferred"];
            shards.iter().all(at_home)
        })
    }

    /// Shards as a node sees them.
    pub fn shards(&self, seen_by: usize) -> Option<Vec<Value>> {
        let shards = self.nodes[seen_by].get("/api/v1/cluster/shards")?;
        shards["items"].as_array().cloned()
    }

    /// The shard of a device, client or topic.
    pub fn shard_of(&self, key: &str) -> u16 {
        ShardId::of(key, self.plan.shards).0
    }

    /// Index of the node that owns a device, client or topic.
    pub fn owner_of(&self, key: &str) -> usize {
        let shard = self.shard_of(key);
        let witness = self.nodes.iter().position(Member::is_running).unwrap();
        let id = eventually(format!("the shard of {key} has an owner"), || {
            let shards = self.shards(witness)?;
            let shard = shards.iter().find(|s| s["id"] == shard)?;
            shard["owner"].as_u64()
        });
        self.index_of(id)
    }

    /// Index of the node with this number.
    pub fn index_of(&self, id: u64) -> usize {
        let mut all = self.indices();
        all.find(|n| self.nodes[*n].is_running() && self.id(*n) == id)
            .unwrap()
    }

    /// A name whose shard is owned by this node.
    pub fn name_at(&self, n: usize, prefix: &str) -> String {
        let names = (0..1000).map(|i| format!("{prefix}-{i}"));
        names
            .into_iter()
            .find(|name| self.owner_of(name) == n)
            .unwrap()
    }

    /// The other nodes.
    pub fn others(&self, n: usize) -> Vec<usize> {
        self.indices().filter(|other| *other != n).collect()
    }

    /// Cuts a node off from the others, both ways.
    pub fn cut_off(&self, n: usize) {
        for other in self.others(n) {
            self.deafen(n, other);
            self.deafen(other, n);
        }
    }

    /// One node hears nothing from another any more; the other direction is whole.
    pub fn deafen(&self, deaf: usize, to: usize) {
        let to = self.nodes[to].namespace.as_ref().unwrap();
        self.nodes[deaf]
            .namespace
            .as_ref()
            .unwrap()
            .go_deaf(&to.address);
    }

    /// All gossip is lost, and nothing else.
    pub fn lose_gossip(&self) {
        for namespace in self.nodes.iter().filter_map(|node| node.namespace.as_ref()) {
            namespace.lose_gossip();
        }
    }

    /// All clients of a node's plain listener vanish: no farewell, no end of the connection, and nothing reaches them.
    pub fn lose_clients(&self, n: usize) {
        let node = &self.nodes[n];
        let namespace = node.namespace.as_ref().unwrap();
        namespace.lose_clients(node.at("mqtt").port());
    }

    /// Everybody hears everybody.
    pub fn heal(&self) {
        for namespace in self.nodes.iter().filter_map(|node| node.namespace.as_ref()) {
            namespace.heal();
        }
    }
}
