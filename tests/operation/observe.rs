//! What a node tells about itself: numbers that do not grow with the fleet, and lines that cannot be forged.

use std::{collections::BTreeSet, process::Command};

use umbel_tests::{Node, Wire, eventually, outcome};

/// Series of the metrics page.
fn series(node: &Node) -> BTreeSet<String> {
    let page = node.http("GET", "/metrics", &[], b"").text();
    page.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
        .collect()
}

fn is_named_well(name: &str, kind: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let counter = name.ends_with("_total");
    name.starts_with("umbel_") && name.chars().all(plain) && counter == (kind == "counter")
}

#[test]
fn metrics_are_named_by_the_convention_and_do_not_grow_with_the_fleet() {
    let node = Node::start();
    // Both ends of a life, so that every kind of series there can be is there.
    let one = Wire::connected(node.at.mqtt, "canary-device-0", 60);
    drop(one);
    eventually("it is offline", || {
        let device = node.get("/api/v1/devices/canary-device-0");
        (device["state"] == "offline").then_some(())
    });
    let before = series(&node);
    let mut fleet: Vec<Wire> = (1..=200)
        .map(|n| Wire::connected(node.at.mqtt, &format!("canary-device-{n}"), 60))
        .collect();
    let late = fleet.split_off(100);
    drop(fleet);
    for n in [1, 100] {
        eventually("the first hundred are offline", || {
            let device = node.get(&format!("/api/v1/devices/canary-device-{n}"));
            (device["state"] == "offline").then_some(())
        });
    }
    let after = series(&node);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "new series: {new:?}");
    let page = node.http("GET", "/metrics", &[], b"").text();
    assert!(!page.contains("canary"), "a device is in the metrics");
    drop(late);
    for line in page.lines() {
        let Some(kind) = line.strip_prefix("# TYPE ") else {
            continue;
        };
        let (name, kind) = kind.split_once(' ').unwrap();
        assert!(is_named_well(name, kind), "{kind} {name}");
        assert!(
            page.contains(&format!("# HELP {name} ")),
            "{name} has no help"
        );
    }
    // Two hundred came and a hundred went; the log does not name them one by one.
    assert!(
        node.log().matches("canary-device").count() < 10,
        "the log names every device"
    );
    assert!(node.log().lines().count() < 60);
}

#[test]
fn no_client_id_can_forge_a_line_of_the_log() {
    let node = Node::with(&[("UMBEL__LOG__LEVEL", "debug,umbel_mqtt=trace")]);
    let forged = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[31m";
    for level in [4, 5] {
        let mut wire = Wire::open(node.at.mqtt);
        wire.send(&umbel_tests::connect_packet(level, forged, 60, 0x02));
        drop(wire.packet());
        wire.reset();
    }
    // One that is let in, kicked by its name.
    let mut odd = Wire::connected(node.at.mqtt, "odd id; <b>", 60);
    let kicked = node.http("DELETE", "/api/v1/clients/odd%20id%3B%20%3Cb%3E", &[], b"");
    assert_eq!(kicked.status, 204, "{}", kicked.text());
    assert!(odd.closes());
    let log = node.log();
    assert!(!log.contains('\u{1b}'), "an escape sequence is in the log");
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_ne!(line["message"], "forged");
    }
    // An operator's terminal is not at the mercy of a name either.
    let server = format!("http://{}", node.at.http);
    let mut list = Command::new(umbel_tests::program("umbel"));
    let shown = outcome(list.args(["ctl", "--server", &server, "clients"]), "");
    assert_eq!(shown.code, Some(0), "{}", shown.error);
    assert!(!shown.out.contains('\u{1b}'));
}
