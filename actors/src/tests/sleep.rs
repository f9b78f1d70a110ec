//! Awake only while there is work; nothing is lost on the way to sleep or from it.

use std::{mem::size_of, sync::Arc, time::Duration};

use futures_util::future::join_all;
use umbel_core::shadow::{Reply, Verb};

use super::{World, a_while, client, device, eventually, hello, quick, request, version};
use crate::{Config, Refused, slot::Slot};

const UPDATE: &str = r#"{"state":{"reported":{"n":1}}}"#;

#[tokio::test]
async fn a_storm_of_connections_leaves_nobody_awake() {
    let world = World::new(quick()).await;
    let ids: Vec<_> = (0..1_000)
        .map(|number| client(&format!("d{number}")))
        .collect();
    let opened = join_all(ids.iter().map(|id| world.fleet.connect(id, hello(None)))).await;
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!(world.fleet.counts().awake, 0);
    assert_eq!(world.fleet.counts().devices.online, 1_000);
}

#[tokio::test]
async fn a_heartbeat_wakes_nobody_and_is_seen() {
    let world = World::new(quick()).await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    world.clock.advance(Duration::from_secs(50));
    let seen = crate::ports::Clock::wall(world.clock.as_ref());
    world.fleet.touch(
        &opened.pulse,
        crate::ports::Clock::tick(world.clock.as_ref()),
    );
    world.clock.advance(Duration::from_secs(5));
    let view = world
        .fleet
        .device(&device("d"))
        .expect("readable")
        .expect("known");
    assert_eq!(
        (view.last_seen, world.fleet.counts().awake),
        (Some(seen), 0)
    );
}

#[tokio::test]
async fn an_actor_holds_its_shadow_hot_and_sleeps_when_nobody_asks() {
    let world = World::new(quick()).await;
    world.update("d", UPDATE).await.expect("served");
    assert_eq!(world.fleet.counts().awake, 1);
    world.clock.advance(Duration::from_secs(20));
    world.update("d", UPDATE).await.expect("served");
    world.clock.advance(Duration::from_secs(20));
    a_while().await;
    assert_eq!(world.fleet.counts().awake, 1, "it was used 20 seconds ago");
    world.clock.advance(Duration::from_secs(11));
    eventually("it sleeps", || world.fleet.counts().awake == 0).await;
    assert_eq!(
        version(&world.update("d", UPDATE).await.expect("served")),
        3
    );
}

#[tokio::test]
async fn asking_for_what_does_not_exist_leaves_no_trace() {
    let world = World::new(quick()).await;
    for number in 0..100 {
        let id = device(&format!("nobody-{number}"));
        world
            .fleet
            .shadow(&id, request(Verb::Get, ""))
            .await
            .expect("answered");
    }
    assert_eq!(world.fleet.counts().awake, 0);
    assert_eq!(world.fleet.slots(), 0);
}

#[tokio::test]
async fn commands_of_a_device_are_worked_on_in_the_order_they_were_sent() {
    let config = Config {
        sleep_after: Duration::from_millis(1),
        awake_max: 3,
        ..quick()
    };
    let world = World::new(config).await;
    let mut expected = 0;
    for round in 0..50 {
        let id = device("d");
        let replies = join_all((0..10).map(|step| {
            let body = format!(r#"{{"state":{{"desired":{{"n":{}}}}}}}"#, round * 10 + step);
            world.fleet.shadow(&id, request(Verb::Update, &body))
        }))
        .await;
        for reply in replies {
            expected += 1;
            assert_eq!(version(&reply.expect("served")), expected);
        }
        world.clock.advance(Duration::from_secs(1));
        if round % 7 == 0 {
            eventually("it sleeps", || world.fleet.counts().awake == 0).await;
        }
    }
    let reply = world
        .fleet
        .shadow(&device("d"), request(Verb::Get, ""))
        .await
        .expect("served");
    let Reply::Accepted(body) = reply else {
        panic!("it exists")
    };
    let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["state"]["desired"]["n"], 499);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_while_actors_sleep_and_wake_under_load() {
    const DEVICES: usize = 24;
    const TASKS: usize = 8;
    const ROUNDS: usize = 300;
    let config = Config {
        sleep_after: Duration::from_millis(1),
        awake_max: 6,
        ..quick()
    };
    let world = Arc::new(World::new(config).await);
    let tasks = (0..TASKS).map(|task| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut accepted = vec![0_u64; DEVICES];
            for round in 0..ROUNDS {
                let number = (round * 7 + task * 5) % DEVICES;
                world.clock.advance(Duration::from_millis(1));
                loop {
                    match world.update(&format!("d{number}"), UPDATE).await {
                        Ok(reply) => {
                            accepted[number] = accepted[number].max(version(&reply));
                            break;
                        },
                        Err(Refused::Overloaded | Refused::TooManyInFlight) => {
                            tokio::task::yield_now().await;
                        },
                        Err(other) => panic!("{other:?}"),
                    }
                }
            }
            accepted
        })
    });
    let mut highest = [0_u64; DEVICES];
    for accepted in join_all(tasks).await {
        for (highest, version) in highest.iter_mut().zip(accepted.expect("no panic")) {
            *highest = (*highest).max(version);
        }
    }
    // Each update was accepted exactly once, so the versions add up to the number of updates.
    assert_eq!(highest.iter().sum::<u64>(), (TASKS * ROUNDS) as u64);
    for (number, highest) in highest.iter().enumerate() {
        let id = format!("d{number}");
        loop {
            let get = request(Verb::Get, "");
            if let Ok(reply) = world.fleet.shadow(&device(&id), get).await {
                assert_eq!(version(&reply), *highest);
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    world.clock.advance(Duration::from_secs(1));
    eventually("all sleep", || world.fleet.counts().awake == 0).await;
    assert_eq!(world.fleet.common.in_flight.taken(), 0);
}

#[test]
fn a_sleeping_device_costs_at_most_256_bytes_with_its_id() {
    // The slot behind its Arc (two counters), rounded as the allocator does.
    let slot = (size_of::<Slot>() + 2 * size_of::<usize>()).next_multiple_of(16) + 8;
    // An id of 36 bytes (a UUID) behind its Arc.
    let id: usize = (36 + 2 * size_of::<usize>() + 8_usize).next_multiple_of(16);
    // A leaf of the map has room for 11 pairs and is two thirds full after random inserts.
    let pair = size_of::<umbel_core::ids::ClientId>() + size_of::<Arc<Slot>>();
    let entry = (11 * pair + 16 + 16) / 7;
    let total = slot + id + entry;
    assert!(
        total <= 256,
        "slot {slot} + id {id} + entry {entry} = {total}"
    );
}
