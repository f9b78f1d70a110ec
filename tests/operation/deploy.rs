//! The files of `node/deploy`: checked by the programs that read them, and against a node that runs.

use std::process::Command;

use umbel_tests::{Node, Wire, compare, deploy, eventually, outcome};

#[test]
fn promtool_accepts_configuration_and_rules_and_their_tests_pass() {
    let folder = deploy("prometheus");
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        let done = outcome(promtool.args(arguments).current_dir(&folder), "");
        assert_eq!(
            done.code,
            Some(0),
            "{arguments:?}: {} {}",
            done.out,
            done.error
        );
    }
}

#[test]
fn dashboard_and_alerts_name_only_metrics_and_labels_that_exist() {
    let node = Node::start();
    let device = Wire::connected(node.at.mqtt, "canary", 60);
    drop(device);
    eventually("it is offline", || {
        let device = node.get("/api/v1/devices/canary");
        (device["state"] == "offline").then_some(())
    });
    let json = [("content-type", "application/json")];
    let path = "/api/v1/devices/canary/shadows/$classic";
    let written = node.http("PUT", path, &json, b"{\"desired\":{\"n\":1}}");
    assert_eq!(written.status, 201, "{}", written.text());
    let page = node.http("GET", "/metrics", &[], b"").text();
    // What has not happened yet, or happens in clusters only, is not on this page.
    let (compared, unseen) = compare(&page);
    assert!(compared > 20, "{compared} matchers compared");
    for name in &unseen {
        let may = [
            "umbel_gossip_",
            "umbel_cluster_",
            "umbel_link_",
            "umbel_mqtt_messages_dropped",
            "umbel_http_panics",
            // Measured at checkpoints.
            "umbel_state_size",
        ];
        assert!(
            may.iter().any(|prefix| name.starts_with(prefix)),
            "{name} is on no page"
        );
    }
}
