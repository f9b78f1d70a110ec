//! An owner dies, a follower dies, an owner sleeps.

use std::sync::Arc;

use serde_json::json;
use umbel_tests::{Cluster, eventually};

use crate::support::Writer;

/// F1, G1, G2, G3, G4.
#[test]
fn f1_a_killed_owner_loses_nothing_and_its_shards_serve_again() {
    let mut cluster = Arc::new(Cluster::start());
    let owner = 0;
    let devices: Vec<String> = (0..3)
        .map(|n| cluster.name_at(owner, &format!("camera{n}")))
        .collect();
    let others = cluster.others(owner);
    let writers: Vec<Writer> = devices
        .iter()
        .zip(others.iter().cycle())
        .map(|(device, through)| Writer::start(&cluster, *through, device))
        .collect();
    for device in &devices {
        eventually("some updates are told", || {
            (cluster.node(others[0]).shadow(device)["version"].as_u64()? > 5).then_some(())
        });
    }
    // The only way to a member while writers share the cluster: by its process.
    cluster.node(owner).shoot();
    for device in &devices {
        let version = cluster.node(others[0]).shadow(device)["version"].as_u64();
        eventually("updates go on without it", || {
            (cluster.node(others[0]).shadow(device)["version"].as_u64()? > version? + 5)
                .then_some(())
        });
    }
    for (writer, device) in writers.into_iter().zip(&devices) {
        let told = writer.finish();
        for other in &others {
            told.check(cluster.node(*other), device);
        }
    }
    let cluster = Arc::get_mut(&mut cluster).unwrap();
    cluster.node_mut(owner).kill();
    for device in &devices {
        assert_ne!(cluster.owner_of(device), owner);
    }
    cluster.node_mut(owner).start();
    cluster.settled();
}

/// F2: no client of another node sees an error, no election takes place.
#[test]
fn f2_a_killed_follower_is_noticed_by_no_client() {
    let mut cluster = Cluster::start();
    let device = cluster.name_at(0, "camera");
    let term = |cluster: &Cluster| {
        let shards = cluster.shards(0)?;
        let shard = cluster.shard_of(&device);
        shards.iter().find(|s| s["id"] == shard)?["term"].as_u64()
    };
    let before = eventually("the shard has a term", || term(&cluster));
    for n in 1..=20 {
        assert_eq!(
            cluster
                .node(0)
                .update(&device, &json!({ "n": n }))
                .unwrap()
                .0,
            200
        );
    }
    cluster.node_mut(1).kill();
    for n in 21..=200 {
        let (status, body) = cluster.node(0).update(&device, &json!({ "n": n })).unwrap();
        assert_eq!((status, &body["version"]), (200, &json!(n)), "{body}");
    }
    assert_eq!(cluster.owner_of(&device), 0);
    assert_eq!(term(&cluster), Some(before), "there was an election");
}

/// F8: what waited on the sockets of a paused owner is not answered from its memory of better times, and is not applied
/// twice. G2, G4.
#[test]
fn f8_an_owner_that_slept_reads_nothing_stale_and_acknowledges_nothing_twice() {
    let mut cluster = Cluster::start();
    let owner = 0;
    let device = cluster.name_at(owner, "camera");
    assert_eq!(cluster.node(1).updated(&device, &json!({ "n": 1 })), 1);
    let read = format!("/api/v1/devices/{device}/shadows/$classic");
    cluster.node(owner).pause();
    // Its own clock stands still: what it reads afterwards it may not read from its memory of better times.
    let version = cluster.node(1).updated(&device, &json!({ "n": 2 }));
    assert!(version >= 2);
    std::thread::scope(|scope| {
        let (cluster, path, device) = (&cluster, &read, &device);
        // Both are in the queues of its sockets when it wakes.
        let late_read = scope.spawn(move || cluster.node(owner).http("GET", path, &[], b""));
        let late_write =
            scope.spawn(move || cluster.node(owner).update(device, &json!({ "late": true })));
        assert_eq!(cluster.node(2).shadow(device)["desired"]["n"], 2);
        cluster.node(owner).resume();
        let read = late_read.join().unwrap().unwrap();
        if read.status == 200 {
            let text = read.text();
            assert_eq!(read.json()["desired"]["n"], 2, "a stale read: {text}");
        } else {
            assert!(read.status >= 500, "{} {}", read.status, read.text());
        }
        let (status, body) = late_write.join().unwrap().unwrap();
        let shadow = cluster.node(1).shadow(device);
        if status == 200 {
            assert_eq!(shadow["desired"]["late"], true, "{body} {shadow}");
            assert!(body["version"].as_u64().unwrap() > version, "{body}");
        } else {
            assert!(status >= 500, "{status} {body}");
        }
        let after = shadow["version"].as_u64().unwrap();
        assert!(after <= version + 1, "applied twice: {shadow}");
    });
    cluster.settled();
    // Awake again it is a follower or the owner, and agrees with the others either way.
    let version = cluster.node(owner).updated(&device, &json!({ "n": 3 }));
    assert_eq!(cluster.node(1).shadow(&device)["version"], version);
    cluster.node_mut(owner).kill();
    assert_eq!(cluster.node(1).shadow(&device)["version"], version);
}

/// G4: every node answers for every device, and reads what another was told.
#[test]
fn g4_each_node_reads_what_any_node_was_told() {
    let cluster = Cluster::start();
    for n in 0..30_u64 {
        let device = format!("lamp-{}", n % 5);
        let writer = cluster.node(usize::try_from(n % 3).unwrap());
        let version = writer.updated(&device, &json!({ "n": n }));
        for reader in cluster.running() {
            let shadow = reader.shadow(&device);
            assert_eq!(
                (&shadow["version"], &shadow["desired"]["n"]),
                (&json!(version), &json!(n))
            );
        }
    }
    // The list of devices is the whole cluster's.
    for n in 0..5 {
        let path = format!("/api/v1/devices/lamp-{n}");
        let json = [("content-type", "application/json")];
        let registered = cluster
            .node(n % 3)
            .http("PUT", &path, &json, b"{\"type\":\"lamp\"}");
        assert!(registered.unwrap().status < 300, "{path}");
    }
    for node in cluster.running() {
        let page = node.get("/api/v1/devices?limit=100").unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 5, "{page}");
    }
}

/// A stale read is there for whoever asks for it, from any replica, also while nobody owns the shard.
#[test]
fn a_read_may_be_stale_if_it_says_so() {
    let mut cluster = Cluster::start();
    let device = cluster.name_at(0, "camera");
    let version = cluster.node(0).updated(&device, &json!({ "n": 1 }));
    let path = format!("/api/v1/devices/{device}/shadows/$classic?consistency=stale");
    eventually("the replica has it", || {
        (cluster.node(1).get(&path)?["version"] == version).then_some(())
    });
    cluster.node_mut(0).kill();
    cluster.node_mut(2).kill();
    let answer = cluster.node(1).http("GET", &path, &[], b"").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["version"], version);
    let strict = path.replace("?consistency=stale", "");
    eventually("a strict read is refused", || {
        let answer = cluster.node(1).http("GET", &strict, &[], b"").unwrap();
        (answer.status == 503 && answer.header("retry-after").is_some()).then_some(())
    });
}
