//! What was acknowledged survives. The long campaigns are `umbel-chaos kill` and `umbel-chaos powercut`; these are short
//! ones with a fixed seed, and the cases a campaign would meet too rarely.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use serde_json::{Value, json};
use umbel_tests::{Node, Wire, eventually, mosquitto_pub, mosquitto_sub, program};

fn campaign(fault: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program("umbel-chaos"))
        .arg(fault)
        .arg("--umbel")
        .arg(program("umbel"))
        .arg("--folder")
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed_again_and_again() {
    campaign("kill", &["--cycles", "12", "--seed", "7"]);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut_again_and_again() {
    campaign(
        "powercut",
        &["--cycles", "6", "--seed", "7", "--control-cycles", "3"],
    );
}

#[test]
fn versions_go_on_after_a_kill() {
    let mut node = Node::start();
    let path = "/api/v1/devices/lamp/shadows/$classic";
    for n in 1..=3 {
        let body = json!({"state": {"desired": {"n": n}}}).to_string();
        mosquitto_pub(
            &node,
            &[
                "-t",
                "$aws/things/lamp/shadow/update",
                "-m",
                &body,
                "-q",
                "1",
            ],
        );
    }
    node.kill();
    node.restart();
    let shadow = node.get(path);
    assert_eq!(shadow["version"], 3, "{shadow}");
    assert_eq!(shadow["desired"]["n"], 3, "{shadow}");
}

#[test]
fn messages_for_an_absent_session_survive_a_kill() {
    let mut node = Node::start();
    let session = [
        "-i", "reader", "-c", "-q", "1", "-t", "work/#", "-V", "5", "-x", "3600", "-W", "30",
    ];
    mosquitto_sub(&node, &[&session[..], &["-E"]].concat()).finish();
    for n in 0..5 {
        mosquitto_pub(&node, &["-t", "work/x", "-m", &n.to_string(), "-q", "1"]);
    }
    node.restart();
    let received = mosquitto_sub(&node, &[&session[..], &["-C", "5"]].concat()).finish();
    assert_eq!(received, "0\n1\n2\n3\n4\n");
}

#[test]
fn a_retained_message_survives_a_kill() {
    let mut node = Node::start();
    mosquitto_pub(
        &node,
        &["-t", "site/7/state", "-m", "dark", "-q", "1", "-r"],
    );
    node.restart();
    let got = mosquitto_sub(&node, &["-t", "site/+/state", "-C", "1", "-W", "30"]).finish();
    assert_eq!(got, "dark\n");
}

#[test]
fn a_device_whose_node_was_killed_is_stale_then_offline_and_its_will_is_sent_once() {
    let mut node = Node::with(&[("UMBEL__ACTORS__RECONNECT_GRACE", "2s")]);
    let _device = Wire::connected(node.at.mqtt, "camera-1", 60);
    eventually("the device is online", || {
        presence(&node, "camera-1", "online")
    });
    node.restart();
    eventually("the device is stale, then offline", || {
        presence(&node, "camera-1", "offline")
    });
    let view = node.get("/api/v1/devices/camera-1");
    assert!(view["reason"].is_string(), "{view}");
}

fn presence(node: &Node, device: &str, wanted: &str) -> Option<Value> {
    let answer = node.http("GET", &format!("/api/v1/devices/{device}"), &[], b"");
    let view: Value = serde_json::from_slice(&answer.body).ok()?;
    (view["state"] == wanted).then_some(view)
}

#[test]
fn a_node_that_is_asked_to_end_drains_and_ends_well() {
    let mut node = Node::start();
    let mut device = Wire::connected(node.at.mqtt, "camera-1", 60);
    assert_eq!(node.terminate(), Some(0), "{}", node.log());
    assert!(device.closes());
}
