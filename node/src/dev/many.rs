//! `umbel dev --nodes N`: a cluster of real processes on this machine, made on the spot.
//!
//! Each node is this same program with an ordinary configuration file and folder of its own, made part of the cluster as any
//! other: with `cluster init` and `cluster join`. A node ends when its standard input does, and that is a pipe from here:
//! whatever happens to this process, no child outlives it.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use umbel_cluster::meta::ClusterIdentity;

use super::Files;
use crate::{
    cli::DevArgs,
    config,
    ctl::client::{Client, Method},
    membership,
};

/// Between the ports of two nodes.
const STEP: u16 = 100;
/// The link of the first node.
const LINK_PORT: u16 = 7400;
/// How long a node may take to answer for the first time.
const START_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the nodes may take to end.
const END_WITHIN: Duration = Duration::from_secs(35);

/// Where a node listens, as it wrote it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Ports {
    pub(super) http: SocketAddr,
    pub(super) mqtt: SocketAddr,
}

/// A node of the cluster.
pub(super) struct Member {
    /// Its number in the cluster.
    pub(super) id: u64,
    pub(super) at: Ports,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
    /// Everything it wrote about where it listens.
    written: Value,
    pub(super) child: Child,
}

impl Member {
    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(super) fn client(&self) -> Result<Client> {
        Ok(Client::new(&format!("http://{}", self.at.http))?)
    }
}

/// Makes what is missing, starts every node, and returns when all of them serve.
pub(super) async fn start(args: &DevArgs, files: &Files) -> Result<Vec<Member>> {
    let folder = std::path::absolute(&args.data)?;
    let count = usize::from(args.nodes);
    let sites = (0..count).map(|n| Site::prepare(&folder, n, args.any_port));
    let sites = sites.collect::<Result<Vec<_>>>()?;
    let seeds: Vec<_> = sites.iter().map(|site| site.link.to_string()).collect();
    let mut members: Vec<Member> = Vec::with_capacity(count);
    // All that belong to the cluster go first: a majority of them is needed before anybody else is let in.
    let (known, new): (Vec<_>, Vec<_>) = sites.iter().partition(|site| site.is_member());
    for site in &sites {
        site.configure(files, &seeds, args.any_port)?;
    }
    for site in known {
        members.push(site.start().await?);
    }
    for site in new {
        let loaded = config::load(Some(&site.config()), std::env::vars())?;
        if let Some(first) = members.first() {
            let token = token(first).await?;
            membership::join(&loaded.config, &seeds, &token).await?;
        } else {
            membership::init(&loaded.config).await?;
        }
        members.push(site.start().await?);
    }
    for member in &members {
        serving(member).await?;
    }
    Ok(members)
}

/// Writes where every node listens, beside what a single node writes.
pub(super) fn ports_json(members: &[Member], ca: &Path) -> Value {
    let nodes: Vec<_> = members
        .iter()
        .map(|member| {
            let about = json!({
                "node": member.id,
                "pid": member.pid(),
                "config": member.config,
                "log": member.log,
            });
            merged(&member.written, about)
        })
        .collect();
    let first = members.first();
    let first = first.map_or(Value::Null, |first| first.written.clone());
    merged(&first, json!({ "ca": ca, "nodes": nodes }))
}

/// The members of both.
fn merged(one: &Value, other: Value) -> Value {
    let mut all = one.as_object().cloned().unwrap_or_default();
    if let Value::Object(other) = other {
        all.extend(other);
    }
    Value::Object(all)
}

/// Ends every node that still runs, and waits.
pub(super) async fn end(members: Vec<Member>) {
    let mut children: Vec<_> = members.into_iter().map(|member| member.child).collect();
    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in &mut children {
        if tokio::time::timeout(END_WITHIN, child.wait())
            .await
            .is_err()
        {
            tracing::warn!("a node did not end in time and is killed");
            drop(child.kill().await);
        }
    }
}

/// Where a node lives.
struct Site {
    n: u16,
    folder: PathBuf,
    link: SocketAddr,
}

impl Site {
    /// The `n`th node's folder and link address. The port stays over restarts: the others know it.
    fn prepare(folder: &Path, n: usize, any_port: bool) -> Result<Self> {
        let folder = folder.join(format!("node-{}", n + 1));
        let shown = || folder.display().to_string();
        fs::create_dir_all(&folder).with_context(shown)?;
        let n = u16::try_from(n)?;
        let note = folder.join("link-port");
        let kept = fs::read_to_string(&note).ok();
        let kept = kept.and_then(|text| text.trim().parse::<u16>().ok());
        let port = match kept {
            Some(port) => port,
            None if any_port => TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            None => LINK_PORT + n * STEP,
        };
        fs::write(&note, port.to_string()).with_context(shown)?;
        let link = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { n, folder, link })
    }

    fn config(&self) -> PathBuf {
        self.folder.join("umbel.toml")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn is_member(&self) -> bool {
        ClusterIdentity::load(&self.data()).is_ok_and(|found| found.is_some())
    }

    fn configure(&self, files: &Files, seeds: &[String], any_port: bool) -> Result<()> {
        let others = seeds.iter().filter(|seed| **seed != self.link.to_string());
        let others: Vec<_> = others.map(|seed| format!("\"{seed}\"")).collect();
        let (link, zone, others) = (self.link, self.n + 1, others.join(", "));
        let cluster =
            format!("[cluster]\nbind = \"{link}\"\nseeds = [{others}]\nzone = \"zone-{zone}\"\n\n");
        let ports = (!any_port).then_some(self.n * STEP);
        let text = super::configuration(&self.data(), &files.authority, ports, &cluster);
        let path = self.config();
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// Starts the process and waits until it says where it listens.
    async fn start(&self) -> Result<Member> {
        let log_path = self.folder.join("node.log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        let ports = self.folder.join("ports.json");
        // What an earlier run wrote would be believed.
        drop(fs::remove_file(&ports));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["node", "--until-eof", "--config"])
            .arg(self.config())
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let began = Instant::now();
        let written: Value = loop {
            if let Some(ended) = child.try_wait()? {
                let last = last_line(&log_path);
                bail!(
                    "node {} ended with {ended}: {last} ({})",
                    self.n + 1,
                    log_path.display()
                );
            }
            let written = fs::read(&ports).ok();
            if let Some(written) = written.and_then(|text| serde_json::from_slice(&text).ok()) {
                break written;
            }
            if began.elapsed() > START_WITHIN {
                bail!(
                    "node {} does not start; see {}",
                    self.n + 1,
                    log_path.display()
                );
            }
            sleep(LOOK_EVERY).await;
        };
        let identity = ClusterIdentity::load(&self.data())?;
        let identity = identity.context("the node forgot its cluster")?;
        Ok(Member {
            id: identity.node.0,
            at: serde_json::from_value(written.clone())?,
            config: self.config(),
            log: log_path,
            written,
            child,
        })
    }
}

fn last_line(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or_default().to_owned()
}

/// A token, as soon as the cluster can decide about one.
async fn token(first: &Member) -> Result<String> {
    let client = first.client()?;
    let began = Instant::now();
    loop {
        let body = Some(json!({}));
        let path = ["api", "v1", "cluster", "tokens"];
        match client.send(Method::POST, &path, &[], body, None).await {
            Ok(made) => return Ok(text(&made, "token")),
            Err(error) if began.elapsed() > START_WITHIN => return Err(error.into()),
            Err(_not_yet) => sleep(LOOK_EVERY).await,
        }
    }
}

fn text(value: &Value, name: &str) -> String {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

/// Waits until a node is ready.
async fn serving(member: &Member) -> Result<()> {
    let client = member.client()?;
    let began = Instant::now();
    loop {
        let reply = client.ask(Method::GET, &["readyz"], &[], None, None).await;
        match reply {
            Ok(reply) if reply.status == 200 => return Ok(()),
            _ if began.elapsed() > START_WITHIN => {
                bail!(
                    "node {} is not ready; see {}",
                    member.id,
                    member.log.display()
                )
            },
            _ => sleep(LOOK_EVERY).await,
        }
    }
}
