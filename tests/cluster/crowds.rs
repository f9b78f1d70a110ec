//! Devices that vanish without a word (F23), and devices that come and go all the time (F25).

use serde_json::Value;
use umbel_tests::{Cluster, Plan, Session, eventually};

use crate::support::NOTHING_COMES;

/// F23, G6, G7: no FIN, no reset, nothing gets through any more in either direction.
#[test]
fn f23_half_open_devices_are_offline_by_their_keep_alive_with_one_will_each() {
    let cluster = Cluster::with(Plan {
        can_be_cut: true,
        more: "[actors]\nreconnect_grace = \"1s\"\n",
        ..Plan::default()
    });
    let gateway = 0;
    let files = || cluster.node(gateway).metric("umbel_process_open_files", "");
    let before = files();
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    // Owned by every node: their owner learns of it from the gateway.
    let names: Vec<String> = (0..9).map(|n| format!("vanished-{n}")).collect();
    let _gone: Vec<Session> = names
        .iter()
        .map(|name| {
            let device = Session::new(name).keep_alive(3);
            let device = device.with_will(&format!("wills/{name}"), name);
            cluster.node(gateway).connect(device)
        })
        .collect();
    let stays = cluster.node(2).connect(Session::new("stays"));
    for name in &names {
        cluster.node(1).presence(name, "online");
    }
    let since = cluster.node(1).presence("stays", "online")["since"].clone();
    cluster.lose_clients(gateway);
    for name in &names {
        let view = cluster.node(1).presence(name, "offline");
        let reason = view["reason"].to_string().to_lowercase();
        assert!(reason.contains("keep"), "{view}");
    }
    let mut wills = Vec::new();
    while let Some(will) = watcher.message(NOTHING_COMES) {
        wills.push(will.payload);
    }
    wills.sort();
    assert_eq!(wills, names, "one will each");
    // Nobody will ever answer the farewell: the sockets are given up all the same.
    eventually("no socket is left of them", || {
        (files() <= before + 3.0).then_some(())
    });
    assert_eq!(cluster.node(1).presence("stays", "online")["since"], since);
    drop(stays);
}

/// What the API says of a device, asked where it is not connected.
fn view(cluster: &Cluster, name: &str) -> Value {
    eventually(format!("{name} is known"), || {
        cluster.node(2).get(&format!("/api/v1/devices/{name}"))
    })
}

fn lines(cluster: &Cluster) -> usize {
    let of = |n| cluster.node(n).log().lines().count();
    cluster.indices().map(of).sum()
}

/// F25: they are marked, say no more than one event each way, write no log, and nobody else notices.
#[test]
fn f25_flapping_devices_are_marked_and_harm_nobody() {
    const BREAKS: usize = 8;
    let cluster = Cluster::start();
    let quiet: Vec<String> = (0..30).map(|n| format!("quiet-{n}")).collect();
    let mut sessions: Vec<Session> = quiet
        .iter()
        .enumerate()
        .map(|(n, name)| cluster.node(n % 3).connect(Session::new(name)))
        .collect();
    let before: Vec<Value> = quiet.iter().map(|name| view(&cluster, name)).collect();
    let mut watcher = cluster.node(2).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("$aws/events/presence/#", 1), 1);
    let logged = lines(&cluster);
    let flapping = ["flaps-0", "flaps-1", "flaps-2"];
    for n in 0..BREAKS {
        for name in flapping {
            let node = cluster.node(n % 2);
            let session = eventually(format!("{name} is let in"), || {
                let mut session = Session::new(name);
                let code = session.try_open(node.at("mqtt"))?;
                (code == 0).then_some(session)
            });
            session.reset();
        }
    }
    for name in flapping {
        eventually(format!("{name} is called flapping"), || {
            (view(&cluster, name)["flapping"] == true).then_some(())
        });
        cluster.node(2).presence(name, "offline");
    }
    let mut events = 0;
    while let Some(event) = watcher.message(NOTHING_COMES) {
        events += usize::from(event.topic.contains("flaps"));
    }
    let most = 2 * BREAKS * flapping.len();
    assert!(
        (1..=most).contains(&events),
        "{events} events, {most} at most"
    );
    let more = lines(&cluster) - logged;
    assert!(more < BREAKS, "{more} lines of log");
    for ((name, session), before) in quiet.iter().zip(&mut sessions).zip(before) {
        session.ping();
        let after = view(&cluster, name);
        assert_eq!(after["flapping"], false);
        for what in ["state", "since", "epoch"] {
            assert_eq!(after[what], before[what], "{name}: {what}");
        }
    }
}
