//! protocol.md row by row, with Paho and HTTPS, each script on a node of its own.

use umbel_tests::{Node, python};

fn hold(script: &str) {
    hold_on(&Node::start(), script);
}

fn hold_on(node: &Node, script: &str) {
    let thing = "thing-a";
    let (certificate, key) = node.issue(thing);
    let output = python(
        script,
        &[
            "--mqtt",
            &node.at.mqtt.to_string(),
            "--mqtts",
            &node.at.mqtts.to_string(),
            "--ws",
            &node.at.ws.to_string(),
            "--aws",
            &node.at.aws.to_string(),
            "--ca",
            node.at.ca.to_str().unwrap(),
            "--cert",
            certificate.to_str().unwrap(),
            "--key",
            key.to_str().unwrap(),
            "--thing",
            thing,
        ],
    );
    assert!(output.ends_with("ok\n"), "{output}");
}

#[test]
fn every_row_of_the_shadow_service_holds() {
    hold("rows_shadow.py");
}

#[test]
fn every_row_of_the_data_plane_holds() {
    hold("rows_rest.py");
}

#[test]
fn every_row_of_the_data_plane_holds_for_an_operator() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.json");
    let all = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}"#;
    std::fs::write(&policy, all).unwrap();
    let node = Node::with(&[("UMBEL__POLICY__DEVICE", policy.to_str().unwrap())]);
    hold_on(&node, "rows_operator.py");
}

#[test]
fn every_row_of_events_and_broker_holds() {
    hold("rows_broker.py");
}

#[test]
fn a_certificate_opens_its_own_devices_topics_and_no_others() {
    hold("rows_access.py");
}
