//! What a node has too little of: readers that read (F26), files (F18).

use std::time::Duration;

use serde_json::json;
use umbel_tests::{Cluster, PATIENCE, Session, Wire, connect_packet, eventually};

const DROPPED: &str = "umbel_mqtt_messages_dropped_total";
const MIB: f64 = 1024.0 * 1024.0;
/// Messages that fit into a reader's queue (1 MiB by default), so that one that reads loses none.
const PORTION: usize = 64;
const PAYLOAD: usize = 8 * 1024;

/// Publishes portions through node 0, and has them read elsewhere before the next.
fn flood(cluster: &Cluster, reader: &mut Session, portions: usize) {
    let line = "x".repeat(PAYLOAD);
    let lines = vec![line; PORTION].join("\n") + "\n";
    for portion in 0..portions {
        let arguments = ["-t", "flood/1", "-q", "1", "-l"];
        let done = cluster.node(0).mosquitto_lines(&arguments, &lines);
        assert_eq!(
            done.code,
            Some(0),
            "the publisher is held up: {}",
            done.error
        );
        for n in 0..PORTION {
            let message = reader.message(PATIENCE);
            let length = message.map(|message| message.payload.len());
            assert_eq!(length, Some(PAYLOAD), "message {n} of portion {portion}");
        }
    }
}

fn memory(cluster: &Cluster) -> Vec<f64> {
    let of = |n| cluster.node(n).metric("umbel_process_resident_bytes", "");
    cluster.indices().map(of).collect()
}

/// F26, G9, G11: two readers on another node than the publisher stop reading, one with a session that lasts and its home on
/// a third node. What waits for them is bounded and counted; publisher and other readers lose nothing.
#[test]
fn f26_slow_subscribers_elsewhere_cost_nobody_messages_or_memory() {
    let cluster = Cluster::start();
    let mut reader = cluster.node(1).connect(Session::new("reader"));
    assert_eq!(reader.subscribe("flood/#", 1), 1);
    flood(&cluster, &mut reader, 8);
    let before = memory(&cluster);
    let lasting = cluster.name_at(1, "lasting");
    let mut slow = [
        cluster.node(2).connect(Session::new("slow")),
        cluster.node(2).connect(Session::new(&lasting).durable(600)),
    ];
    for slow in &mut slow {
        assert_eq!(slow.subscribe("flood/#", 1), 1);
    }
    let portions = 48;
    flood(&cluster, &mut reader, portions);
    for (n, (after, before)) in memory(&cluster).iter().zip(before).enumerate() {
        let more = after - before;
        assert!(
            more < 24.0 * MIB,
            "node {n} took {} MiB for messages that nobody reads",
            more / MIB
        );
    }
    eventually("what was dropped is counted", || {
        let dropped = |n| cluster.node(n).metric(DROPPED, "");
        (dropped(1) > 0.0 && dropped(2) > 0.0).then_some(())
    });
    // It reads again: what was kept comes, and then what is new.
    let [_, mut lasting] = slow;
    let mut kept = 0;
    while lasting.message(Duration::from_secs(2)).is_some() {
        kept += 1;
    }
    assert!(kept > 0 && kept < portions * PORTION, "{kept}");
    flood(&cluster, &mut reader, 1);
    assert!(lasting.message(PATIENCE).is_some());
}

/// F18: a crowd wants more connections than the node may have files. Peers, log and API have theirs.
#[test]
fn f18_a_crowd_beyond_the_file_limit_takes_no_file_from_peers_log_and_api() {
    const FILES: u64 = 400;
    let mut cluster = Cluster::start();
    let crowded = 2;
    cluster.node_mut(crowded).terminate();
    cluster.node_mut(crowded).limit_files(FILES);
    cluster.node_mut(crowded).start();
    cluster.settled();
    let door = cluster.node(crowded).at("mqtt");
    let mut neighbour = Wire::connected(door, "neighbour", 600);
    let _crowd: Vec<Wire> = (0..2 * FILES)
        .map(|n| {
            let mut wire = Wire::open(door);
            wire.send(&connect_packet(5, &format!("crowd-{n}"), 600, 0x02));
            wire
        })
        .collect();
    eventually("some are refused", || {
        let node = cluster.node(crowded);
        (node.metric("umbel_mqtt_refused_total", "connection_limit") > 0.0).then_some(())
    });
    // A peer comes back: that takes new sockets on both sides, and snapshots or logs take files.
    cluster.node_mut(0).terminate();
    let device = cluster.name_at(crowded, "lamp");
    let version = cluster.node(crowded).updated(&device, &json!({ "n": 1 }));
    cluster.node_mut(0).start();
    cluster.settled();
    assert_eq!(cluster.node(0).shadow(&device)["version"], version);
    neighbour.send(&[0xc0, 0]);
    assert_eq!(neighbour.packet().unwrap(), [0xd0, 0]);
    let node = cluster.node(crowded);
    let exhausted = node.metric("umbel_mqtt_accept_exhausted_total", "");
    assert!(exhausted < 1.0, "it ran out of files {exhausted} times");
    assert!(!node.log().contains("Too many open files"));
}
