//! Networks that break, in namespaces of their own. Needs root.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use umbel_tests::{Cluster, PATIENCE, Plan, eventually};

use crate::support::Writer;

fn cluster() -> Cluster {
    Cluster::with(Plan {
        can_be_cut: true,
        ..Plan::default()
    })
}

/// Two election timeouts of the default settings, and room for a busy machine.
const REFUSES_WITHIN: Duration = Duration::from_secs(6);

/// F9, G2, G12: an owner cut off from the others refuses; the others go on; healed, all are one again within 30 s.
#[test]
fn f9_a_minority_refuses_the_majority_serves_and_it_heals_by_itself() {
    let cluster = Arc::new(cluster());
    let alone = 0;
    let device = cluster.name_at(alone, "camera");
    let elsewhere = cluster.name_at(1, "camera");
    cluster.node(alone).updated(&device, &json!({ "n": 0 }));
    let writer = Writer::start(&cluster, 1, &device);
    cluster.cut_off(alone);
    let cut = Instant::now();
    for device in [&device, &elsewhere] {
        let path = format!("/api/v1/devices/{device}/shadows/$classic");
        eventually("the minority refuses to read", || {
            let answer = cluster.node(alone).http("GET", &path, &[], b"").unwrap();
            (answer.status == 503).then_some(())
        });
    }
    assert!(
        cut.elapsed() < REFUSES_WITHIN,
        "refused after {:?}",
        cut.elapsed()
    );
    let (status, body) = cluster
        .node(alone)
        .update(&device, &json!({ "wrong": true }))
        .unwrap();
    assert_eq!(status, 503, "{body}");
    let seen = cluster.node(2).shadow(&device)["version"].as_u64().unwrap();
    eventually("the majority goes on", || {
        (cluster.node(2).shadow(&device)["version"].as_u64()? > seen + 5).then_some(())
    });
    cluster.heal();
    let healed = Instant::now();
    cluster.settled();
    assert!(healed.elapsed() < PATIENCE);
    let told = writer.finish();
    for node in cluster.running() {
        told.check(node, &device);
        assert_eq!(node.shadow(&device)["desired"]["wrong"], json!(null));
    }
}

/// F9: everybody alone. Nobody serves; all is well after.
#[test]
fn f9_when_everybody_is_alone_nobody_serves_and_all_is_well_afterwards() {
    let cluster = cluster();
    let device = "camera";
    let version = cluster.node(0).updated(device, &json!({ "n": 1 }));
    for n in cluster.indices() {
        cluster.cut_off(n);
    }
    let path = format!("/api/v1/devices/{device}/shadows/$classic");
    for node in cluster.running() {
        eventually("nobody reads", || {
            let answer = node.http("GET", &path, &[], b"").unwrap();
            (answer.status == 503).then_some(())
        });
    }
    cluster.heal();
    cluster.settled();
    for node in cluster.running() {
        assert_eq!(node.shadow(device)["version"], version);
    }
}

/// F10, G2: an owner that cannot hear steps down, one that cannot be heard is replaced; never two.
#[test]
fn f10_a_one_way_partition_leaves_one_owner_that_serves() {
    let cluster = Arc::new(cluster());
    for (deaf, mute) in [(true, false), (false, true)] {
        let odd = 0;
        let device = cluster.name_at(odd, if deaf { "deaf" } else { "mute" });
        cluster.node(odd).updated(&device, &json!({ "n": 0 }));
        let writer = Writer::start(&cluster, 1, &device);
        for other in cluster.others(odd) {
            if deaf {
                cluster.deafen(odd, other);
            }
            if mute {
                cluster.deafen(other, odd);
            }
        }
        eventually("somebody else owns it", || {
            (owner_seen_by(&cluster, 1, &device)? != cluster.id(odd)).then_some(())
        });
        let seen = cluster.node(2).shadow(&device)["version"].as_u64().unwrap();
        eventually("updates go on", || {
            (cluster.node(2).shadow(&device)["version"].as_u64()? > seen + 3).then_some(())
        });
        cluster.heal();
        cluster.settled();
        let told = writer.finish();
        for node in cluster.running() {
            told.check(node, &device);
        }
    }
}

fn owner_seen_by(cluster: &Cluster, witness: usize, device: &str) -> Option<u64> {
    let shard = cluster.shard_of(device);
    let shards = cluster.shards(witness)?;
    shards.iter().find(|s| s["id"] == shard)?["owner"].as_u64()
}

/// G7, G12: a gateway that was cut off and comes back within the grace: its devices were never offline.
#[test]
fn g7_devices_of_a_gateway_that_was_cut_off_for_a_moment_are_never_offline() {
    let cluster = cluster();
    let name = cluster.name_at(1, "stays");
    let _device = cluster.node(0).connect(umbel_tests::Session::new(&name));
    let before = cluster.node(1).presence(&name, "online");
    cluster.cut_off(0);
    cluster.node(1).presence(&name, "stale");
    cluster.heal();
    let after = cluster.node(1).presence(&name, "online");
    assert_eq!(before["epoch"], after["epoch"], "{before} {after}");
}
