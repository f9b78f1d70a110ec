//! Disks that lie: one that went back in time, one that was wiped, one that was damaged.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;
use umbel_tests::{Cluster, Member, eventually, outcome};

/// Long enough for elections and their consequences.
const WATCHED: Duration = Duration::from_secs(12);
/// A service manager starts a node again that ended itself; so often here.
const STARTS_MAX: usize = 6;

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let done = outcome(command.arg("-a").arg(from).arg(to), "");
    assert_eq!(done.code, Some(0), "{}", done.error);
}

/// Keeps a node running for a while, as a service manager would, and looks at what it and another answer meanwhile.
fn watch(cluster: &mut Cluster, odd: usize, devices: &[(String, u64)]) {
    let until = Instant::now() + WATCHED;
    let mut starts = 0;
    while Instant::now() < until {
        if !cluster.node(odd).is_running() && starts < STARTS_MAX {
            starts += 1;
            cluster.node_mut(odd).try_start();
        }
        for (device, version) in devices {
            for node in cluster.running().filter(|node| !node.has_ended()) {
                look(node, device, *version);
            }
        }
        if cluster.node(odd).is_running() && cluster.node(odd).has_ended() {
            cluster.node_mut(odd).kill();
        }
    }
}

/// G1, G4: either no answer, or one that knows of everything acknowledged.
fn look(node: &Member, device: &str, version: u64) {
    let path = format!("/api/v1/devices/{device}/shadows/$classic");
    let Ok(answer) = node.http("GET", &path, &[], b"") else {
        return;
    };
    assert_ne!(
        answer.status,
        404,
        "{device} is forgotten: {}",
        answer.text()
    );
    if answer.status == 200 {
        let shadow = answer.json();
        assert!(
            shadow["version"].as_u64() >= Some(version),
            "{shadow} after {version}"
        );
    }
}

/// Two nodes acknowledge; one of them dies, the other's disk is spoiled; then the spoiled one and the one that knew nothing
/// are alone with each other: together they are a majority, and may not be taken for one.
fn a_majority_that_knows_nothing(spoil: impl FnOnce(&Path, &Path)) {
    let mut cluster = Cluster::start();
    let devices: Vec<String> = (0..12).map(|n| format!("camera-{n}")).collect();
    for device in &devices {
        cluster.node(0).updated(device, &json!({ "n": 1 }));
    }
    let (knows, ignorant, odd) = (0, 1, 2);
    let old = cluster.node(odd).folder().join("old");
    cluster.node_mut(odd).kill();
    copy(&cluster.node(odd).folder().join("data"), &old);
    cluster.node_mut(odd).start();
    cluster.settled();
    cluster.node_mut(ignorant).kill();
    let told: Vec<(String, u64)> = devices
        .iter()
        .map(|device| {
            for n in 2..5 {
                cluster.node(knows).updated(device, &json!({ "n": n }));
            }
            let version = cluster.node(odd).updated(device, &json!({ "n": 5 }));
            (device.clone(), version)
        })
        .collect();
    cluster.node_mut(odd).kill();
    spoil(&cluster.node(odd).folder().join("data"), &old);
    cluster.node_mut(knows).kill();
    cluster.node_mut(ignorant).start();
    watch(&mut cluster, odd, &told);
    // The one that knows comes back: with the one that only missed something it is a majority.
    cluster.node_mut(knows).start();
    for (device, version) in &told {
        eventually("what was acknowledged is there", || {
            let path = format!("/api/v1/devices/{device}/shadows/$classic");
            let shadow = cluster.node(knows).get(&path)?;
            (shadow["version"].as_u64()? >= *version).then_some(())
        });
    }
    watch(&mut cluster, odd, &told);
    for (device, version) in &told {
        let now = cluster.node(ignorant).updated(device, &json!({ "n": 6 }));
        assert!(now > *version);
    }
}

/// F16, G1, G2: a restored copy of a virtual machine's disk.
#[test]
fn f16_a_disk_that_went_back_in_time_votes_nothing_away() {
    a_majority_that_knows_nothing(|data, old| {
        fs::remove_dir_all(data).unwrap();
        copy(old, data);
    });
}

/// F28, G1, G2: an empty disk under an old identity.
#[test]
fn f28_a_wiped_disk_with_an_old_identity_votes_nothing_away() {
    a_majority_that_knows_nothing(|data, _| {
        for entry in fs::read_dir(data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("cluster") {
                fs::remove_dir_all(path).unwrap();
            }
        }
    });
}

/// F14: what one node's state lost is rebuilt from its own log or from the others; no read is wrong meanwhile.
#[test]
fn f14_damaged_state_of_one_node_is_found_and_rebuilt() {
    let mut cluster = Cluster::start();
    let told: Vec<(String, u64)> = (0..12)
        .map(|n| format!("camera-{n}"))
        .map(|device| {
            let version = cluster.node(0).updated(&device, &json!({ "n": 1 }));
            (device, version)
        })
        .collect();
    cluster.node_mut(2).kill();
    let mut files = vec![cluster.node(2).folder().join("data/state")];
    let mut spoiled = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else {
            let mut bytes = fs::read(&path).unwrap();
            for at in (0..bytes.len()).step_by(509) {
                bytes[at] ^= 0x10;
            }
            fs::write(path, bytes).unwrap();
            spoiled += 1;
        }
    }
    assert!(spoiled > 0, "there was nothing to spoil");
    cluster.node_mut(2).start();
    for (device, version) in &told {
        for node in cluster.running() {
            look(node, device, *version);
        }
    }
    cluster.settled();
    cluster.node_mut(0).kill();
    for (device, version) in &told {
        assert_eq!(cluster.node(2).shadow(device)["version"], *version);
    }
}
