//! A network of our own: one namespace for each node and one with a bridge between them. The machine's own network and
//! its rules are not touched.

use std::{fs::File, os::fd::AsFd, sync::mpsc, thread};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::{process::Command, runtime::Handle, sync::oneshot};

use super::weather::{QUEUE, Relay, Weather};

/// The bridge and the nodes' namespaces; removed when dropped.
pub(super) struct Network {
    name: String,
    nodes: usize,
}

async fn ip(arguments: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(arguments).output().await?;
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        bail!("ip {arguments:?}: {}", error.trim());
    }
    Ok(())
}

impl Network {
    /// Namespaces for so many nodes, wired to one bridge.
    pub(super) async fn create(nodes: usize) -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "partitions are made in network namespaces, which needs root; `--faults` chooses others"
        );
        let this = Self {
            name: format!("umbel-chaos-{}", std::process::id()),
            nodes,
        };
        let hub = &this.name;
        ip(&["netns", "add", hub]).await?;
        this.exec(hub, &["ip", "link", "add", "bridge", "type", "bridge"])
            .await?;
        this.exec(hub, &["ip", "link", "set", "bridge", "up"])
            .await?;
        for n in 0..nodes {
            this.plug(n).await?;
        }
        Ok(this)
    }

    async fn plug(&self, n: usize) -> Result<()> {
        let (hub, node, port) = (&self.name, self.namespace(n), format!("port{n}"));
        ip(&["netns", "add", &node]).await?;
        let wire = [
            "ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &node,
        ];
        self.exec(hub, &wire).await?;
        let up = ["ip", "link", "set", &port, "master", "bridge", "up"];
        self.exec(hub, &up).await?;
        let prefix = format!("{}/24", address(n));
        let inside: [&[&str]; 3] = [
            &["ip", "address", "add", &prefix, "dev", "eth0"],
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "link", "set", "lo", "up"],
        ];
        for command in inside {
            self.exec(&node, command).await?;
        }
        Ok(())
    }

    /// Name of a node's namespace.
    pub(super) fn namespace(&self, n: usize) -> String {
        format!("{}-{n}", self.name)
    }

    async fn exec(&self, namespace: &str, command: &[&str]) -> Result<()> {
        ip(&[&["netns", "exec", namespace], command].concat()).await
    }

    /// One node hears nothing from another any more; the other direction is whole.
    pub(super) async fn deafen(&self, deaf: usize, to: usize) -> Result<()> {
        let from = address(to);
        let rule = ["iptables", "-w", "-A", "INPUT", "-s", &from, "-j", "DROP"];
        self.exec(&self.namespace(deaf), &rule).await
    }

    /// Everybody hears everybody.
    pub(super) async fn heal(&self) -> Result<()> {
        for n in 0..self.nodes {
            self.exec(&self.namespace(n), &["iptables", "-w", "-F"])
                .await?;
            let copies = ["iptables", "-w", "-t", "mangle", "-F"];
            self.exec(&self.namespace(n), &copies).await?;
        }
        Ok(())
    }

    /// The same weather on the wires of all nodes, until [`Self::heal`] and the relays' end.
    pub(super) async fn blow(&self, weather: Weather, seed: u64) -> Result<Vec<Relay>> {
        let mut relays = Vec::new();
        for n in 0..self.nodes {
            let namespace = self.namespace(n);
            relays.push(Relay::start(&namespace, weather, seed ^ n as u64)?);
            let others = "10.78.0.0/24";
            let queue = QUEUE.to_string();
            let held = ["-A", "OUTPUT", "-d", others, "-j", "NFQUEUE", "--queue-num"];
            let held = [&["iptables", "-w"], &held[..], &[&queue]].concat();
            self.exec(&namespace, &held).await?;
            let twice = weather.twice.to_string();
            for other in (0..self.nodes).filter(|other| *other != n) {
                let other = address(other);
                let copy = [
                    "iptables",
                    "-w",
                    "-t",
                    "mangle",
                    "-A",
                    "OUTPUT",
                    "-d",
                    &other,
                    "-m",
                    "statistic",
                    "--mode",
                    "random",
                    "--probability",
                    &twice,
                    "-j",
                    "TEE",
                    "--gateway",
                    &other,
                ];
                self.exec(&namespace, &copy).await?;
            }
        }
        Ok(relays)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut names: Vec<String> = (0..self.nodes).map(|n| self.namespace(n)).collect();
        names.push(self.name.clone());
        for name in names {
            // What was never made cannot be removed.
            let done = std::process::Command::new("ip")
                .args(["netns", "del", &name])
                .output();
            drop(done);
        }
    }
}

/// A node's address for the others.
pub(super) fn address(n: usize) -> String {
    format!("10.78.0.{}", n + 1)
}

/// A runtime whose sockets are in a namespace; ends when dropped.
pub(super) struct Inside {
    /// Where to spawn.
    pub(super) runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl Inside {
    /// Starts a thread in that namespace.
    pub(super) fn start(namespace: &str) -> Result<Self> {
        let file = File::open(format!("/var/run/netns/{namespace}")).context("namespace")?;
        let (end, ended) = oneshot::channel();
        let (started, handle) = mpsc::channel();
        thread::spawn(move || {
            let entered = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                anyhow::Ok(runtime.enable_all().build()?)
            };
            let runtime = entered();
            let told = runtime.as_ref().map(|runtime| runtime.handle().clone());
            let told = started.send(told.map_err(ToString::to_string));
            if let (Ok(()), Ok(runtime)) = (told, runtime) {
                // Ends when the other side is dropped.
                drop(runtime.block_on(ended));
            }
        });
        let runtime = handle.recv()?.map_err(anyhow::Error::msg)?;
        Ok(Self { runtime, _end: end })
    }
}
