//! Other people's clients, unmodified.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rows;

use umbel_tests::{Node, eventually, mosquitto_pub, mosquitto_sub, python};

/// Runs a script as a device with a certificate of its own.
fn as_device(node: &Node, script: &str, port: u16, thing: &str, version: &str) {
    let (certificate, key) = node.issue(thing);
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let output = python(
        script,
        &[
            "--host",
            "localhost",
            "--port",
            &port.to_string(),
            "--ca",
            &text(&node.at.ca),
            "--cert",
            &text(&certificate),
            "--key",
            &text(&key),
            "--thing",
            thing,
            "--version",
            version,
        ],
    );
    assert!(output.ends_with("ok\n"), "{output}");
}

#[test]
fn aws_sdk_v2_uses_shadows_over_mqtt_3() {
    let node = Node::start();
    as_device(&node, "aws_v2.py", node.at.mqtts.port(), "sdk-v2-3", "3");
}

#[test]
fn aws_sdk_v2_uses_shadows_over_mqtt_5() {
    let node = Node::start();
    as_device(&node, "aws_v2.py", node.at.mqtts.port(), "sdk-v2-5", "5");
}

#[test]
fn aws_sdk_v1_uses_the_classic_shadow() {
    let node = Node::start();
    as_device(&node, "aws_v1.py", node.at.mqtts.port(), "sdk-v1", "3");
}

#[test]
fn boto3_uses_the_data_plane() {
    let node = Node::start();
    as_device(&node, "boto_data.py", node.at.aws.port(), "boto-thing", "3");
}

fn paho(version: &str) {
    let node = Node::start();
    let port = node.at.mqtt.port().to_string();
    let output = python(
        "paho_client.py",
        &["--host", "127.0.0.1", "--port", &port, "--version", version],
    );
    assert!(output.ends_with("ok\n"), "{output}");
}

#[test]
fn paho_uses_mqtt_3() {
    paho("3");
}

#[test]
fn paho_uses_mqtt_5() {
    paho("5");
}

#[test]
fn mosquitto_clients_change_and_watch_a_shadow() {
    let node = Node::start();
    let delta = mosquitto_sub(
        &node,
        &[
            "-t",
            "$aws/things/lamp/shadow/update/delta",
            "-C",
            "1",
            "-W",
            "30",
            "-V",
            "5",
            "-i",
            "watcher",
        ],
    );
    eventually("the subscriber is connected", || {
        let clients = node.get("/api/v1/clients");
        clients.to_string().contains("watcher").then_some(())
    });
    // Connected is not subscribed: publish until the delta has arrived.
    let update = r#"{"state":{"desired":{"on":true}}}"#;
    eventually("the shadow is updated", || {
        mosquitto_pub(
            &node,
            &[
                "-t",
                "$aws/things/lamp/shadow/update",
                "-m",
                update,
                "-q",
                "1",
            ],
        );
        node.http("GET", "/api/v1/devices/lamp/shadows/$classic", &[], b"")
            .text()
            .contains("true")
            .then_some(())
    });
    mosquitto_pub(
        &node,
        &[
            "-t",
            "$aws/things/lamp/shadow/update",
            "-m",
            update,
            "-q",
            "1",
        ],
    );
    let delta: serde_json::Value = serde_json::from_str(&delta.finish()).unwrap();
    assert_eq!(delta["state"], serde_json::json!({"on": true}));
}
