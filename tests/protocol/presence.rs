//! Presence has one authority and says why.

use serde_json::Value;
use umbel_tests::{Node, Wire, eventually, framed};

fn view(node: &Node, device: &str, presence: &str) -> Value {
    eventually(format!("{device} is {presence}"), || {
        let answer = node.http("GET", &format!("/api/v1/devices/{device}"), &[], b"");
        let view: Value = serde_json::from_slice(&answer.body).ok()?;
        (view["state"] == presence).then_some(view)
    })
}

#[test]
fn a_closed_socket_is_seen_in_the_api_and_as_an_event() {
    let node = Node::start();
    let mut watcher = Wire::connected(node.at.mqtt, "watcher", 60);
    let topic = b"$aws/events/presence/disconnected/camera-1";
    let length = u8::try_from(topic.len()).expect("a short topic");
    watcher.send(&framed(
        0x82,
        &[&[0, 1, 0, length], &topic[..], &[0]].concat(),
    ));
    // connected is not subscribed: only from here on is an event sure to come
    assert_eq!(watcher.packet().expect("SUBACK"), [0x90, 3, 0, 1, 0]);
    let device = Wire::connected(node.at.mqtt, "camera-1", 60);
    let online = view(&node, "camera-1", "online");
    device.reset();
    let offline = view(&node, "camera-1", "offline");
    assert_eq!(online["epoch"], offline["epoch"]);
    let published = watcher.packet().expect("PUBLISH");
    let body = published.iter().position(|byte| *byte == b'{');
    let event: Value = serde_json::from_slice(&published[body.expect("a body")..]).expect("JSON");
    assert_eq!(event["disconnectReason"], "CONNECTION_LOST", "{event}");
    assert_eq!(event["clientInitiatedDisconnect"], false, "{event}");
}

#[test]
fn a_silent_device_goes_offline_by_its_keep_alive() {
    let node = Node::start();
    let _device = Wire::connected(node.at.mqtt, "camera-1", 1);
    view(&node, "camera-1", "online");
    let offline = view(&node, "camera-1", "offline");
    assert!(
        offline["reason"]
            .to_string()
            .to_lowercase()
            .contains("keep"),
        "{offline}"
    );
}

#[test]
fn each_connection_has_a_higher_epoch_and_the_older_one_is_closed() {
    let node = Node::start();
    let mut first = Wire::connected(node.at.mqtt, "camera-1", 60);
    let before = view(&node, "camera-1", "online")["epoch"].as_u64();
    let _second = Wire::connected(node.at.mqtt, "camera-1", 60);
    assert!(first.closes());
    let after = view(&node, "camera-1", "online")["epoch"].as_u64();
    assert!(before.is_some() && before < after, "{before:?} {after:?}");
}
