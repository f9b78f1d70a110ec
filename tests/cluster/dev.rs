//! `umbel dev --nodes 3`: one command makes a cluster of processes that survives the death of one and leaves nobody behind.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use umbel_tests::{eventually, program, request};

/// The command, killed when dropped; its nodes go with it.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(folder: &Path) -> (Dev, Vec<Value>) {
    let ports = folder.join("ports.json");
    let told = fs::File::create(folder.join("told")).unwrap();
    let child = Command::new(program("umbel"))
        .args([
            "dev",
            "--nodes",
            "3",
            "--devices",
            "3",
            "--any-port",
            "--data",
        ])
        .arg(folder.join("data"))
        .arg("--ports-file")
        .arg(&ports)
        .env("UMBEL__CLUSTER__SHARDS", "6")
        .stdin(Stdio::null())
        .stdout(told)
        .spawn()
        .unwrap();
    let mut dev = Dev(child);
    let nodes = eventually("the nodes say where they listen", || {
        let ended = dev.0.try_wait().unwrap();
        assert!(ended.is_none(), "it ended with {ended:?}");
        let ports: Value = serde_json::from_slice(&fs::read(&ports).ok()?).ok()?;
        ports["nodes"].as_array().cloned()
    });
    (dev, nodes)
}

fn get(node: &Value, path: &str) -> Option<Value> {
    let at: SocketAddr = node["http"].as_str()?.parse().ok()?;
    let answer = request(at, "GET", path, &[], b"").ok()?;
    (answer.status == 200).then(|| answer.json())
}

fn pid(node: &Value) -> Pid {
    let pid = node["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

fn lives(node: &Value) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", node["pid"]));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn is_served(node: &Value, nodes_up: u64) -> Option<()> {
    let cluster = get(node, "/api/v1/cluster")?;
    let served = cluster["shards_served"] == 6 && cluster["nodes_up"] == nodes_up;
    served.then_some(())
}

#[test]
fn one_command_makes_a_cluster_that_survives_a_kill_and_leaves_nobody_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (mut dev, nodes) = start(folder.path());
    assert_eq!(nodes.len(), 3);
    eventually("all copies are in place", || {
        let cluster = get(&nodes[0], "/api/v1/cluster")?;
        (cluster["shards_ok"] == 6 && cluster["nodes_up"] == 3).then_some(())
    });
    eventually("simulated devices are seen from any node", || {
        let devices = get(&nodes[1], "/api/v1/devices?state=online")?;
        (devices["items"].as_array()?.len() == 3).then_some(())
    });
    kill_process(pid(&nodes[2]), Signal::KILL).unwrap();
    eventually("the others go on", || is_served(&nodes[0], 2));
    eventually("its devices are back on the others", || {
        let devices = get(&nodes[0], "/api/v1/devices?state=online")?;
        (devices["items"].as_array()?.len() == 3).then_some(())
    });
    let told = || fs::read_to_string(folder.path().join("told")).unwrap_or_default();
    eventually("it tells how that went", || {
        told().contains("is served again").then_some(())
    });
    let me = Pid::from_raw(i32::try_from(dev.0.id()).unwrap()).unwrap();
    kill_process(me, Signal::TERM).unwrap();
    assert!(dev.0.wait().unwrap().success());
    assert!(!nodes.iter().any(lives), "a node outlived the command");
}

#[test]
fn nodes_end_with_the_command_even_if_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut dev, nodes) = start(folder.path());
    dev.0.kill().unwrap();
    dev.0.wait().unwrap();
    eventually("no node is left", || {
        (!nodes.iter().any(lives)).then_some(())
    });
}
