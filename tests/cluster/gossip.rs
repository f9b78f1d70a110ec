//! Gossip is a hint: it can be forged at, and it can be lost, and nobody's ownership changes.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use umbel_tests::{Cluster, Member, Plan, Session, compare, eventually};

/// Owners and terms.
fn terms(cluster: &Cluster) -> Vec<(Value, Value)> {
    let shards = eventually("the shards are listed", || cluster.shards(0));
    shards
        .iter()
        .map(|shard| (shard["owner"].clone(), shard["term"].clone()))
        .collect()
}

/// Owners and terms once they stay as they are: a new cluster spreads its shards.
fn settled_terms(cluster: &Cluster) -> Vec<(Value, Value)> {
    let mut seen = (terms(cluster), Instant::now());
    eventually("owners stay", || {
        let now = terms(cluster);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (seen.1.elapsed() > Duration::from_secs(8)).then(|| seen.0.clone())
    })
}

/// F29, T32: bytes that nobody sealed change nothing, and are counted.
#[test]
fn f29_forged_gossip_changes_no_owner() {
    let cluster = Cluster::start();
    let before = settled_terms(&cluster);
    let liar = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut packet = vec![1, 0, 0, 0, 1];
    packet.extend([7; 400]);
    for n in 0..2_000_usize {
        for node in cluster.running() {
            let length = 5 + n % 400;
            liar.send_to(&packet[..length], node.link()).unwrap();
        }
    }
    for node in cluster.running() {
        eventually("forged packets are counted", || {
            (node.metric("umbel_gossip_refused_total", "") >= 100.0).then_some(())
        });
        assert!(node.metric("umbel_gossip_members", "alive") >= 2.0);
    }
    assert_eq!(terms(&cluster), before);
    cluster.node(0).updated("lamp", &json!({ "n": 1 }));
}

/// F29: gossip is cut and everything else is not. Everybody is taken for dead by gossip, nobody loses a shard, no client
/// sees an error, no device goes stale. Needs root.
#[test]
fn f29_without_gossip_nobody_loses_anything() {
    let cluster = Cluster::with(Plan {
        can_be_cut: true,
        ..Plan::default()
    });
    let before = settled_terms(&cluster);
    let device = cluster.name_at(1, "stays");
    let _session = cluster.node(0).connect(Session::new(&device));
    let online = cluster.node(2).presence(&device, "online");
    cluster.lose_gossip();
    let mut n = 0;
    eventually("gossip takes everybody for dead", || {
        n += 1;
        let (status, body) = cluster.node(2).update("lamp", &json!({ "n": n })).ok()?;
        assert_eq!(status, 200, "{body}");
        let dead = |node: &Member| node.metric("umbel_gossip_members", "down") >= 2.0;
        cluster.running().all(dead).then_some(())
    });
    assert_eq!(terms(&cluster), before);
    let view = cluster.node(2).presence(&device, "online");
    assert_eq!(view["since"], online["since"]);
    cluster.heal();
    eventually("gossip finds everybody again", || {
        let alive = |node: &Member| node.metric("umbel_gossip_members", "alive") >= 2.0;
        cluster.running().all(alive).then_some(())
    });
    assert_eq!(terms(&cluster), before);
}

/// What dashboard and alerts say of a cluster is what its nodes show.
#[test]
fn dashboard_and_alerts_fit_the_nodes_of_a_cluster() {
    let cluster = Cluster::start();
    cluster.node(0).updated("lamp", &json!({ "n": 1 }));
    let (mut compared, mut unseen) = (0, None);
    for node in cluster.running() {
        let page = node.http("GET", "/metrics", &[], b"").unwrap().text();
        let (more, lacks) = compare(&page);
        compared += more;
        unseen = Some(match unseen {
            None => lacks,
            Some(before) => &before & &lacks,
        });
    }
    assert!(compared > 60, "{compared} matchers compared");
    // Happens to clusters in trouble only.
    let may = [
        "umbel_mqtt_messages_dropped",
        "umbel_http_panics",
        "umbel_state_size",
        "umbel_link_busy",
        "umbel_link_downs",
    ];
    for name in unseen.unwrap() {
        assert!(
            may.iter().any(|prefix| name.starts_with(prefix)),
            "{name} is on no page"
        );
    }
}
