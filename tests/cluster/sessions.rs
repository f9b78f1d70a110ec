//! Sessions that follow their client, and are its only one.

use std::time::Duration;

use umbel_tests::{Cluster, Message, PATIENCE, Session, eventually};

use crate::support::NOTHING_COMES;

fn payloads(session: &mut Session, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let Message { payload, .. } = session
            .message(PATIENCE)
            .unwrap_or_else(|| panic!("{count} messages are due, {all:?} came"));
        all.push(payload);
    }
    all
}

/// G8: one live session per client id in the whole cluster; the newer wins, the older is told why.
#[test]
fn g8_a_client_that_connects_elsewhere_ends_its_older_connection_with_0x8e() {
    let cluster = Cluster::start();
    for owner in cluster.indices() {
        let name = cluster.name_at(owner, "twin");
        let mut older = cluster.node(0).connect(Session::new(&name));
        let mut newer = cluster.node(1).connect(Session::new(&name));
        assert_eq!(older.end(), Some(0x8e));
        let mut newest = cluster.node(2).connect(Session::new(&name));
        assert_eq!(newer.end(), Some(0x8e));
        assert_eq!(newest.publish("x", "y"), 0);
        let view = cluster.node(0).presence(&name, "online");
        assert_eq!(view["state"], "online");
    }
}

/// G1: subscriptions and queue are where the client is, whichever node it was at and whoever died.
#[test]
fn a_durable_session_follows_its_client_to_any_node_and_past_its_owners_death() {
    let mut cluster = Cluster::start();
    let name = cluster.name_at(0, "reader");
    let mut reader = cluster.node(1).connect(Session::new(&name).durable(600));
    assert!(!reader.was_present);
    assert_eq!(reader.subscribe("work/#", 1), 1);
    let mut writer = cluster.node(2).connect(Session::new("writer"));
    assert_eq!(writer.publish("work/1", "1"), 0);
    assert_eq!(payloads(&mut reader, 1), ["1"]);
    reader.ping();
    reader.reset();
    for n in 2..=4 {
        assert_eq!(writer.publish("work/x", &n.to_string()), 0);
    }
    let mut reader = cluster.node(2).connect(Session::new(&name).durable(600));
    assert!(reader.was_present);
    assert_eq!(payloads(&mut reader, 3), ["2", "3", "4"]);
    reader.ping();
    reader.reset();
    for n in 5..=8 {
        assert_eq!(writer.publish("work/x", &n.to_string()), 0);
    }
    cluster.node_mut(0).kill();
    let mut reader = eventually("it is let in without the owner", || {
        let mut session = Session::new(&name).durable(600);
        (session.try_open(cluster.node(1).at("mqtt"))? == 0).then_some(session)
    });
    assert!(reader.was_present);
    let mut rest = Vec::new();
    while rest.len() < 4 {
        // an acknowledgement of a moment ago may have died with the owner: QoS 1 sends again
        rest.extend(payloads(&mut reader, 1));
        rest.retain(|payload| !["1", "2", "3", "4"].contains(&payload.as_str()));
    }
    assert_eq!(rest, ["5", "6", "7", "8"]);
    assert_eq!(reader.message(NOTHING_COMES), None);
}

/// A connected durable session whose home dies: its gateway attaches to the next one, nothing is lost, the connection
/// stays.
#[test]
fn a_connected_durable_session_survives_the_death_of_its_home() {
    let mut cluster = Cluster::start();
    let name = cluster.name_at(0, "reader");
    let mut reader = cluster.node(1).connect(Session::new(&name).durable(600));
    assert_eq!(reader.subscribe("work/#", 1), 1);
    let mut writer = cluster.node(2).connect(Session::new("writer"));
    assert_eq!(writer.publish("work/1", "before"), 0);
    assert_eq!(payloads(&mut reader, 1), ["before"]);
    cluster.node_mut(0).kill();
    eventually("a publish is acknowledged", || {
        (writer.publish("work/1", "after") == 0).then_some(())
    });
    assert_eq!(payloads(&mut reader, 1), ["after"]);
    assert_eq!(writer.publish("work/1", "later"), 0);
    let mut rest = Vec::new();
    while let Some(message) = reader.message(Duration::from_secs(5)) {
        rest.push(message.payload);
    }
    // A publish that was refused may have happened.
    rest.retain(|payload| payload != "after");
    assert_eq!(rest, ["later"]);
}

/// Retained messages are the cluster's.
#[test]
fn a_retained_message_is_found_at_every_node_and_after_its_owners_death() {
    let mut cluster = Cluster::start();
    let topic = cluster.name_at(0, "site");
    let topic = format!("{topic}/state");
    let owner = cluster.owner_of(&topic);
    let done = cluster
        .node(1)
        .mosquitto_pub(&["-t", &topic, "-m", "dark", "-q", "1", "-r"]);
    assert_eq!(done.code, Some(0), "{}", done.error);
    let retained = |cluster: &Cluster, n: usize, filter: &str| {
        let mut session = cluster
            .node(n)
            .connect(Session::new(&format!("reader-{n}")));
        session.subscribe(filter, 1);
        session
            .message(PATIENCE)
            .map(|message| (message.payload, message.retain))
    };
    for n in cluster.indices() {
        for filter in [&topic, "+/state", "#"] {
            assert_eq!(
                retained(&cluster, n, filter),
                Some(("dark".to_owned(), true)),
                "{filter}"
            );
        }
    }
    cluster.node_mut(owner).kill();
    let others = cluster.others(owner);
    for n in others {
        eventually("it is there again", || {
            let mut session = cluster.node(n).connect(Session::new(&format!("late-{n}")));
            session.subscribe(&topic, 1);
            session
                .message(NOTHING_COMES)
                .filter(|m| m.payload == "dark")
        });
    }
}
