//! `umbel ctl` against a node, and against none.

use serde_json::{Value, json};
use umbel_tests::{Node, Outcome, Wire, umbel};

fn ctl(node: &Node, arguments: &[&str]) -> Outcome {
    let server = format!("http://{}", node.at.http);
    umbel(&[&["ctl", "--server", &server], arguments].concat())
}

fn done(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.out
}

#[test]
fn an_operator_sees_and_changes_a_fleet() {
    let node = Node::start();
    let mut lamp = Wire::connected(node.at.mqtt, "lamp", 60);

    let status = done(ctl(&node, &["status"]));
    for check in ["shards", "storage", "state"] {
        assert!(status.contains(check), "{status}");
    }
    let devices = done(ctl(&node, &["devices"]));
    assert!(
        devices.starts_with("ID") && devices.contains("lamp  online"),
        "{devices}"
    );
    let devices: Value =
        serde_json::from_str(&done(ctl(&node, &["devices", "-o", "json"]))).unwrap();
    assert_eq!(devices["items"][0]["id"], "lamp");
    let device = done(ctl(&node, &["device", "lamp"]));
    assert!(device.contains("127.0.0.1"), "{device}");

    done(ctl(
        &node,
        &["shadow", "set", "lamp", "--desired", r#"{"on":true}"#],
    ));
    let shadow: Value =
        serde_json::from_str(&done(ctl(&node, &["shadow", "get", "lamp", "-o", "json"]))).unwrap();
    assert_eq!(shadow["desired"], json!({"on": true}));
    let stale = ctl(
        &node,
        &[
            "shadow",
            "set",
            "lamp",
            "--desired",
            "{}",
            "--if-version",
            "9",
        ],
    );
    assert_eq!(stale.code, Some(3), "{stale:?}");
    let named = ctl(&node, &["shadow", "get", "lamp", "config"]);
    assert_eq!(named.code, Some(3), "{named:?}");

    let clients = done(ctl(&node, &["clients"]));
    assert!(clients.contains("lamp"), "{clients}");
    done(ctl(&node, &["kick", "lamp"]));
    assert!(lamp.closes());
    assert_eq!(ctl(&node, &["kick", "nobody"]).code, Some(3));
    assert_eq!(
        ctl(&node, &["shadow", "set", "lamp", "--desired", "on"]).code,
        Some(2)
    );
    assert_eq!(ctl(&node, &["devices", "--state", "asleep"]).code, Some(2));
}

#[test]
fn without_a_node_it_says_whom_it_asked() {
    let dead = umbel(&["ctl", "--server", "http://127.0.0.1:1", "status"]);
    assert_eq!(dead.code, Some(1));
    assert!(dead.error.contains("http://127.0.0.1:1"), "{}", dead.error);
    assert!(dead.error.contains("refused"), "{}", dead.error);
    let short = umbel(&["ctl", "--server", "127.0.0.1:1", "status"]);
    assert_eq!(short.code, Some(1), "{short:?}");
    assert!(short.error.contains("http://127.0.0.1:1"), "{short:?}");
    let odd = umbel(&["ctl", "--server", "https://localhost:8443", "status"]);
    assert_eq!(odd.code, Some(2), "{odd:?}");
}
