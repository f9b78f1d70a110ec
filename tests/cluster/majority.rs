//! Two of three are gone.

use serde_json::json;
use umbel_tests::{Cluster, Session, eventually};

/// F5, G1, G10, G12: no quorum is a refusal at once and never a stale success; afterwards everything acknowledged is there.
#[test]
fn f5_without_a_majority_everything_is_refused_and_afterwards_nothing_is_missing() {
    let mut cluster = Cluster::start();
    let devices: Vec<String> = (0..12).map(|n| format!("camera-{n}")).collect();
    let versions: Vec<u64> = devices
        .iter()
        .map(|device| {
            cluster.node(0).updated(device, &json!({ "n": 1 }));
            cluster.node(1).updated(device, &json!({ "n": 2 }))
        })
        .collect();
    cluster.node_mut(1).kill();
    cluster.node_mut(2).kill();
    let (mut reads, mut writes) = (0, 0);
    // Until the last lease is over an owner may still answer reads, and they are right.
    for device in &devices {
        let path = format!("/api/v1/devices/{device}/shadows/$classic");
        eventually("reads are refused", || {
            let answer = cluster.node(0).http("GET", &path, &[], b"").unwrap();
            if answer.status == 200 {
                assert_eq!(answer.json()["desired"]["n"], 2);
                return None;
            }
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
            reads += 1;
            Some(())
        });
        let (status, body) = cluster.node(0).update(device, &json!({ "n": 3 })).unwrap();
        assert_eq!(status, 503, "{body}");
        writes += 1;
    }
    assert!(reads >= 12 && writes >= 12);
    let health = cluster.node(0).http("GET", "/readyz", &[], b"").unwrap();
    assert_eq!(
        health.status,
        503,
        "ready without a quorum: {}",
        health.text()
    );
    // Nobody connects: an epoch could not be promised. MQTT 5 says so.
    let mut session = Session::new("newcomer");
    let code = session.try_open(cluster.node(0).at("mqtt"));
    assert!(code.is_none_or(|code| code >= 0x80), "let in with {code:?}");

    cluster.node_mut(1).start();
    for device in &devices {
        let shadow = cluster.node(0).shadow(device);
        assert!(shadow["desired"]["n"].as_u64() >= Some(2), "{shadow}");
    }
    cluster.node_mut(2).start();
    cluster.settled();
    for (device, version) in devices.iter().zip(versions) {
        for node in cluster.running() {
            let shadow = node.shadow(device);
            // An update that was refused without knowing may have happened, once.
            let now = shadow["version"].as_u64().unwrap();
            assert!(
                now == version || now == version + 1,
                "{shadow} after {version}"
            );
        }
        cluster.node(2).updated(device, &json!({ "n": 4 }));
    }
}

/// G1: everybody dies at once.
#[test]
fn after_all_three_were_killed_everything_acknowledged_is_there() {
    let mut cluster = Cluster::start();
    let versions: Vec<(String, u64)> = (0..12)
        .map(|n| format!("camera-{n}"))
        .map(|device| {
            let version = cluster.node(2).updated(&device, &json!({ "n": 1 }));
            (device, version)
        })
        .collect();
    for n in cluster.indices() {
        cluster.node_mut(n).kill();
    }
    for n in cluster.indices() {
        cluster.node_mut(n).start();
    }
    for (device, version) in versions {
        assert_eq!(cluster.node(0).shadow(&device)["version"], version);
    }
    cluster.settled();
}
