//! Day two: nodes come, go, are restarted and replaced; the whole is backed up and restored.

use std::{fs, io::Write as _, process::Command, sync::Arc};

use serde_json::json;
use umbel_tests::{Cluster, Member, Plan, Running, eventually, program};

use crate::support::Writer;

/// F27, G1: one after the other is restarted under load; with retries nothing fails and nothing is lost.
#[test]
fn f27_a_rolling_restart_under_load_fails_no_request_after_retry() {
    let mut cluster = Cluster::start();
    let devices: Vec<String> = cluster
        .indices()
        .map(|n| cluster.name_at(n, "camera"))
        .collect();
    for n in cluster.indices() {
        let shared = Arc::new(cluster);
        // Clients keep away from the node that is restarted, as a balancer does by its readiness.
        let through = (n + 1) % 3;
        let writers: Vec<Writer> = devices
            .iter()
            .map(|device| Writer::start(&shared, through, device))
            .collect();
        shared.node(n).ask_to_end();
        eventually("it is gone", || shared.node(n).has_ended().then_some(()));
        for device in &devices {
            let seen = shared.node(through).shadow(device)["version"]
                .as_u64()
                .unwrap();
            eventually("updates go on", || {
                (shared.node(through).shadow(device)["version"].as_u64()? > seen + 3).then_some(())
            });
        }
        for (writer, device) in writers.into_iter().zip(&devices) {
            writer.finish().check(shared.node(through), device);
        }
        cluster = Arc::into_inner(shared).unwrap();
        cluster.node_mut(n).kill();
        cluster.node_mut(n).start();
        cluster.settled();
    }
}

/// F28, G12: a fourth node gets its part by itself, and a removed one loses its own, learns of it and ends.
#[test]
fn f28_a_node_is_added_and_another_drained_and_removed_under_load() {
    let mut cluster = Cluster::start();
    let device = cluster.name_at(1, "camera");
    cluster.node(0).updated(&device, &json!({ "n": 0 }));
    let fourth = cluster.add();
    let id = cluster.id(fourth);
    eventually("the new node has copies", || {
        let nodes = cluster.node(0).get("/api/v1/cluster/nodes")?;
        let node = nodes["items"]
            .as_array()?
            .iter()
            .find(|node| node["id"] == id)?
            .clone();
        (node["copies"].as_u64()? > 0 && node["state"] == "up").then_some(())
    });
    cluster.settled();
    let gone = cluster.id(1);
    let shared = Arc::new(cluster);
    let writer = Writer::start(&shared, 2, &device);
    let server = shared.node(0).server();
    let ctl = |arguments: &[&str]| {
        let done = shared
            .node(0)
            .umbel(&[&["ctl", "--server", &server], arguments].concat());
        assert_eq!(
            done.code,
            Some(0),
            "{arguments:?}: {} {}",
            done.out,
            done.error
        );
    };
    ctl(&["drain", &gone.to_string(), "--wait"]);
    // That it is empty is written down a moment later.
    eventually("it is removed", || {
        let gone = gone.to_string();
        let arguments = ["ctl", "--server", &server, "remove", &gone];
        (shared.node(0).umbel(&arguments).code == Some(0)).then_some(())
    });
    let told = writer.finish();
    told.check(shared.node(fourth), &device);
    let mut cluster = Arc::into_inner(shared).unwrap();
    assert_eq!(cluster.node_mut(1).ended(), Some(3), "it learns of it");
    let config = cluster.node(1).config();
    let again = cluster.node(1).umbel(&["node", "--config", &config]);
    assert_eq!(
        again.code,
        Some(3),
        "also at its next start: {}",
        again.error
    );
    assert_eq!(
        again
            .error
            .matches("was removed from the cluster and ends")
            .count(),
        1
    );
    cluster.settled();
    told.check(cluster.node(fourth), &device);
    // Its number is nobody's any more, and it cannot come back under it.
    let nodes = cluster.node(0).get("/api/v1/cluster/nodes").unwrap();
    assert!(
        nodes["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|node| node["id"] != gone),
        "{nodes}"
    );
}

/// F28: a node whose disk is lost is replaced by a new one, with a new number.
#[test]
fn f28_a_lost_node_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::start();
    let device = cluster.name_at(2, "camera");
    let version = cluster.node(0).updated(&device, &json!({ "n": 1 }));
    let lost = cluster.id(2);
    cluster.node_mut(2).kill();
    cluster.node(2).wipe();
    let server = cluster.node(0).server();
    let removed = eventually("it is removed", || {
        let done = cluster.node(0).umbel(&[
            "ctl",
            "--server",
            &server,
            "remove",
            &lost.to_string(),
            "--force",
        ]);
        (done.code == Some(0)).then_some(done)
    });
    assert_eq!(removed.code, Some(0));
    let new = cluster.add();
    assert!(cluster.id(new) > lost);
    cluster.settled();
    assert_eq!(cluster.node(new).shadow(&device)["version"], version);
}

/// T33: a token lets in one node, once; a wrong one lets in nobody.
#[test]
fn a_token_lets_in_one_node_once() {
    let mut cluster = Cluster::with(Plan {
        nodes: 1,
        ..Plan::default()
    });
    let token = cluster.token();
    let (first, second) = (cluster.prepare(), cluster.prepare());
    cluster.join(first, &token);
    let seed = cluster.node(0).link().to_owned();
    let join = |n: usize, token: &str| {
        let node = cluster.node(n);
        let config = node.config();
        node.umbel(&[
            "cluster", "join", "--config", &config, "--seed", &seed, "--token", token,
        ])
    };
    for token in [token.as_str(), "umbel-rubbish", ""] {
        let refused = join(second, token);
        assert_ne!(
            refused.code,
            Some(0),
            "{token:?} let it in: {}",
            refused.out
        );
        assert!(!refused.error.is_empty());
    }
    // What was refused leaves nothing behind that would keep the right token from working.
    let token = cluster.token();
    cluster.join(second, &token);
}

/// A backup of the whole cluster, taken under load, restored into an empty one.
#[test]
fn a_backup_of_the_cluster_is_restored_into_a_new_one() {
    let cluster = Cluster::start();
    let before: Vec<(String, u64)> = (0..20)
        .map(|n| format!("camera-{n}"))
        .map(|device| {
            let version = cluster.node(0).updated(&device, &json!({ "n": 1 }));
            (device, version)
        })
        .collect();
    let done = cluster
        .node(1)
        .mosquitto_pub(&["-t", "site/state", "-m", "dark", "-r", "-q", "1"]);
    assert_eq!(done.code, Some(0), "{}", done.error);
    let shared = Arc::new(cluster);
    let writer = Writer::start(&shared, 2, "busy");
    let file = shared
        .node(0)
        .folder()
        .join("all.backup")
        .display()
        .to_string();
    let server = shared.node(0).server();
    let made = shared
        .node(0)
        .umbel(&["backup", "--server", &server, "--out", &file]);
    assert_eq!(made.code, Some(0), "{} {}", made.out, made.error);
    writer.finish();

    let mut new = Cluster::prepared(Plan {
        nodes: 1,
        ..Plan::default()
    });
    let first = new.prepare();
    let config = new.node(first).config();
    a_restore_is_killed(new.node_mut(first), &file);
    let restored = new
        .node(first)
        .umbel(&["restore", "--config", &config, "--in", &file]);
    assert_eq!(
        restored.code,
        Some(0),
        "{} {}",
        restored.out,
        restored.error
    );
    new.node_mut(first).start();
    for (device, version) in &before {
        assert_eq!(new.node(first).shadow(device)["version"], *version);
    }
    assert!(new.node(first).shadow("busy")["version"].as_u64().is_some());
    // And it grows again.
    new.add();
    new.settled();
    let retained = new
        .node(1)
        .mosquitto_sub(&["-t", "site/+", "-C", "1", "-W", "30"])
        .finish();
    assert_eq!(retained, "dark\n");
}

/// Lets a restore die in the middle: what it leaves is no node's data, and no backup goes into it.
fn a_restore_is_killed(node: &mut Member, file: &str) {
    let (config, pipe) = (node.config(), node.folder().join("half.backup"));
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut command = Command::new(program("umbel"));
    command.args(["restore", "--config", &config, "--in"]);
    let half = node.inside(|| Running::start(command.arg(&pipe)));
    let backup = fs::read(file).unwrap();
    let mut into = fs::File::options().write(true).open(&pipe).unwrap();
    into.write_all(&backup[..backup.len() / 2]).unwrap();
    let log = node.folder().join("data").join("log");
    eventually("the restore has begun", || log.exists().then_some(()));
    drop(half);
    let again = node.umbel(&["restore", "--config", &config, "--in", file]);
    assert!(
        again.error.contains("did not come to its end"),
        "{}",
        again.error
    );
    node.try_start();
    assert!(!node.is_running(), "it starts with half the data");
    node.wipe();
}
