//! A network of our own: one namespace for each node and one with a bridge between them. The machine's own network and
//! its rules are not touched.

use std::{
    fs::File,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::outcome;

static COUNT: AtomicU32 = AtomicU32::new(0);

fn run(program: &str, arguments: &[&str]) {
    let done = outcome(Command::new(program).args(arguments), "");
    assert_eq!(
        done.code,
        Some(0),
        "{program} {arguments:?}: {} (network namespaces need root, iproute2 and iptables)",
        done.error
    );
}

/// The bridge's namespace; all of it is removed when dropped.
pub(crate) struct Wires {
    name: String,
    nodes: usize,
}

impl Wires {
    /// An empty network.
    pub(crate) fn create() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "partitions are made in network namespaces, which needs root"
        );
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("umbel-{}-{n}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let this = Self { name, nodes: 0 };
        this.inside(&["ip", "link", "add", "bridge", "type", "bridge"]);
        this.inside(&["ip", "link", "set", "bridge", "up"]);
        this
    }

    fn inside(&self, command: &[&str]) {
        run("ip", &[&["netns", "exec", &self.name], command].concat());
    }

    /// A namespace for one more node, wired to the bridge.
    pub(crate) fn plug(&mut self) -> Namespace {
        let n = self.nodes;
        self.nodes += 1;
        let (name, port) = (format!("{}-{n}", self.name), format!("port{n}"));
        run("ip", &["netns", "add", &name]);
        let node = Namespace {
            name,
            address: format!("10.77.0.{}", n + 1),
        };
        self.inside(&[
            "ip", "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &node.name,
        ]);
        self.inside(&["ip", "link", "set", &port, "master", "bridge", "up"]);
        let prefix = format!("{}/24", node.address);
        node.exec(&["ip", "address", "add", &prefix, "dev", "eth0"]);
        node.exec(&["ip", "link", "set", "eth0", "up"]);
        node.exec(&["ip", "link", "set", "lo", "up"]);
        node
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Its interfaces go with it.
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}

/// Where one node lives.
pub(crate) struct Namespace {
    name: String,
    /// Its address for the other nodes.
    pub(crate) address: String,
}

impl Namespace {
    fn exec(&self, command: &[&str]) {
        run("ip", &[&["netns", "exec", &self.name], command].concat());
    }

    /// Does something in this namespace: sockets it opens and programs it starts are in it.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/var/run/netns/{}", self.name)).unwrap();
        let entered = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        // A thread of its own: one that has entered does not come back.
        thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Hears nothing from that address any more; still speaks to it.
    pub(crate) fn go_deaf(&self, to: &str) {
        self.exec(&["iptables", "-w", "-A", "INPUT", "-s", to, "-j", "DROP"]);
    }

    /// Hears no gossip any more, and everything else.
    pub(crate) fn lose_gossip(&self) {
        self.exec(&["iptables", "-w", "-A", "INPUT", "-p", "udp", "-j", "DROP"]);
    }

    /// Whoever is connected to this port vanishes without a word, and hears nothing any more either.
    pub(crate) fn lose_clients(&self, port: u16) {
        let port = port.to_string();
        for end in ["--dport", "--sport"] {
            let rule = ["-i", "lo", "-p", "tcp", end, &port, "-j", "DROP"];
            self.exec(&[&["iptables", "-w", "-A", "INPUT"], &rule[..]].concat());
        }
    }

    /// Hears everybody again.
    pub(crate) fn heal(&self) {
        self.exec(&["iptables", "-w", "-F"]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(
            Command::new("ip")
                .args(["netns", "del", &self.name])
                .output(),
        );
    }
}
