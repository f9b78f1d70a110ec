//! A gateway dies, with and without the owner of its sessions.

use std::time::Duration;

use serde_json::Value;
use umbel_tests::{Cluster, Plan, Session, eventually};

use crate::support::NOTHING_COMES;

const GRACE: &str = "[actors]\nreconnect_grace = \"6s\"\n";

fn cluster() -> Cluster {
    Cluster::with(Plan {
        more: GRACE,
        ..Plan::default()
    })
}

/// A device whose will names it.
fn device(name: &str) -> Session {
    Session::new(name).with_will(&format!("wills/{name}"), name)
}

/// Wills seen until none came for a while.
fn wills(watcher: &mut Session) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(message) = watcher.message(NOTHING_COMES) {
        seen.push(message.payload);
    }
    seen.sort();
    seen
}

/// F3, G6, G7: stale at once; offline and one will after the grace, for those that did not come back and for no others.
#[test]
fn f3_a_killed_gateways_devices_are_stale_then_offline_with_one_will_unless_they_return() {
    let mut cluster = cluster();
    let gateway = 0;
    // Owned elsewhere, so that only the gateway dies.
    let lost = cluster.name_at(1, "lost");
    let back = cluster.name_at(2, "back");
    let stays = cluster.name_at(1, "stays");
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    let _lost = cluster.node(gateway).connect(device(&lost));
    let _back = cluster.node(gateway).connect(device(&back));
    let _stays = cluster.node(2).connect(device(&stays));
    for name in [&lost, &back, &stays] {
        cluster.node(1).presence(name, "online");
    }
    let since = online_since(&cluster, &stays);
    cluster.node_mut(gateway).kill();
    for name in [&lost, &back] {
        cluster.node(1).presence(name, "stale");
    }
    let _again = cluster.node(2).connect(device(&back));
    cluster.node(1).presence(&back, "online");
    let view = cluster.node(1).presence(&lost, "offline");
    assert!(view["reason"].is_string(), "{view}");
    assert_eq!(wills(&mut watcher), std::slice::from_ref(&lost));
    cluster.node(2).presence(&back, "online");
    // G7: nobody who stayed was ever anything but online.
    assert_eq!(online_since(&cluster, &stays), since);
}

/// G6, G7: those that are back before anybody noticed that their gateway is dead: no take-over, no will, nobody offline.
#[test]
fn g6_devices_that_return_before_their_gateways_death_is_noticed_have_no_will() {
    let mut cluster = cluster();
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    let names: Vec<String> = (0..20).map(|n| format!("hasty-{n}")).collect();
    let _before: Vec<Session> = names
        .iter()
        .map(|name| cluster.node(0).connect(device(name)))
        .collect();
    for name in &names {
        cluster.node(1).presence(name, "online");
    }
    cluster.node_mut(0).kill();
    let _after: Vec<Session> = names
        .iter()
        .map(|name| {
            eventually(format!("{name} is let in elsewhere"), || {
                let mut session = device(name);
                let code = session.try_open(cluster.node(2).at("mqtt"))?;
                (code == 0).then_some(session)
            })
        })
        .collect();
    assert_eq!(wills(&mut watcher), Vec::<String>::new());
    for name in &names {
        cluster.node(1).presence(name, "online");
    }
}

fn online_since(cluster: &Cluster, name: &str) -> Value {
    let view = cluster.node(1).presence(name, "online");
    view["since"].clone()
}

/// F4, G6: the will is in replicated state, in neither's memory.
#[test]
fn f4_gateway_and_owner_killed_together_still_give_one_will() {
    let mut cluster = cluster();
    let both = 0;
    let lost = cluster.name_at(both, "lost");
    let back = cluster.name_at(both, "back");
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    let _lost = cluster.node(both).connect(device(&lost));
    let _back = cluster.node(both).connect(device(&back));
    cluster.node(1).presence(&lost, "online");
    cluster.node(1).presence(&back, "online");
    cluster.node_mut(both).kill();
    let _again = eventually("it connects elsewhere", || {
        let mut session = device(&back);
        let code = session.try_open(cluster.node(2).at("mqtt"))?;
        (code == 0).then_some(session)
    });
    cluster.node(1).presence(&lost, "offline");
    assert_eq!(wills(&mut watcher), std::slice::from_ref(&lost));
    cluster.node(1).presence(&back, "online");
    // The dead node comes back and does not say it again.
    cluster.node_mut(both).start();
    cluster.settled();
    assert_eq!(wills(&mut watcher), Vec::<String>::new());
}

/// G6, G7: the owner dies, the gateway and its connections do not: nothing is to be seen of it.
#[test]
fn g7_an_owners_death_is_no_devices_death() {
    let mut cluster = cluster();
    let name = cluster.name_at(0, "stays");
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    let mut stays = cluster.node(2).connect(device(&name));
    let since = {
        let view = cluster.node(1).presence(&name, "online");
        (view["since"].clone(), view["epoch"].clone())
    };
    cluster.node_mut(0).kill();
    let path = format!("/api/v1/devices/{name}");
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let mut answers = 0;
    while std::time::Instant::now() < until {
        if let Some(view) = cluster.node(1).get(&path) {
            assert_eq!(view["state"], "online", "{view}");
            assert_eq!(
                (view["since"].clone(), view["epoch"].clone()),
                since,
                "{view}"
            );
            answers += 1;
        }
    }
    assert!(answers > 10, "{answers} answers");
    assert_eq!(stays.publish("x", "y"), 0);
    assert_eq!(wills(&mut watcher), Vec::<String>::new());
}

/// G6: a farewell through another node than the owner's is a farewell.
#[test]
fn g6_who_says_farewell_has_no_will() {
    let cluster = cluster();
    let name = cluster.name_at(0, "polite");
    let rude = cluster.name_at(0, "rude");
    let mut watcher = cluster.node(1).connect(Session::new("watcher"));
    assert_eq!(watcher.subscribe("wills/#", 1), 1);
    cluster.node(2).connect(device(&name)).disconnect();
    cluster.node(1).presence(&name, "offline");
    cluster.node(2).connect(device(&rude)).reset();
    cluster.node(1).presence(&rude, "offline");
    assert_eq!(wills(&mut watcher), [rude]);
}
