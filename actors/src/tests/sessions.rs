//! Connect, disconnect, take-over, grace and wills.

use std::time::Duration;

use umbel_core::device::{DisconnectReason, Presence};

use super::{Told, World, a_while, client, device, eventually, hello, quick, will};
use crate::{FleetEventKind, Refused, ports::EvictReason};

fn presence(world: &World, id: &str) -> Presence {
    let view = world
        .fleet
        .device(&device(id))
        .expect("readable")
        .expect("known");
    view.record.presence
}

async fn lost(world: &World, id: &str, epoch: umbel_core::ids::SessionEpoch) {
    let reason = DisconnectReason::ConnectionLost;
    world
        .fleet
        .disconnect(&client(id), epoch, reason, None, false)
        .await
        .expect("recorded");
}

#[tokio::test]
async fn a_session_opens_with_its_epoch_committed() {
    let world = World::new(quick()).await;
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let connect = tokio::spawn(async move { fleet.connect(&client("d"), hello(None)).await });
    eventually("the epoch is proposed", || world.ledger.held() == 1).await;
    assert!(!connect.is_finished() && world.outbox.topics().is_empty());
    world.ledger.release();
    let opened = connect.await.expect("no panic").expect("admitted");
    assert!(!opened.session_present && opened.taken_over.is_none());
    let view = world
        .fleet
        .device(&device("d"))
        .expect("readable")
        .expect("known");
    assert_eq!(
        (view.record.presence, view.record.epoch),
        (Presence::Online, opened.epoch)
    );
    assert_eq!(world.outbox.topics(), ["$aws/events/presence/connected/d"]);
    assert_eq!(world.fleet.counts().devices.online, 1);
}

#[tokio::test]
async fn epochs_never_repeat_across_connections_and_restarts() {
    let mut world = World::new(quick()).await;
    let mut last = umbel_core::ids::SessionEpoch(0);
    for _ in 0..5 {
        for _ in 0..3 {
            let opened = world
                .fleet
                .connect(&client("d"), hello(None))
                .await
                .expect("admitted");
            assert!(opened.epoch > last);
            last = opened.epoch;
        }
        world = world.crashed(quick()).await;
    }
}

#[tokio::test]
async fn a_take_over_evicts_the_old_connection_and_is_one_event() {
    let world = World::new(quick()).await;
    let first = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    world.outbox.take();
    let mut events = world.fleet.events(None);
    let second = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    assert_eq!(second.taken_over, Some(first.epoch));
    assert!(second.session_present);
    let evicted = Told::Evicted(client("d"), first.epoch, EvictReason::TakenOver);
    assert_eq!(
        world
            .outbox
            .take()
            .iter()
            .filter(|told| **told == evicted)
            .count(),
        1
    );
    // The old connection's end comes late and changes nothing.
    let reason = DisconnectReason::DuplicateClientId;
    world
        .fleet
        .disconnect(&client("d"), first.epoch, reason, None, false)
        .await
        .expect("recorded");
    assert_eq!(presence(&world, "d"), Presence::Online);
    world.running.shutdown(Duration::from_secs(1)).await;
    let mut seen = Vec::new();
    while let crate::Delivery::Event(event) = events.next().await {
        seen.push(event.kind.clone());
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    let online = matches!(&seen[0], FleetEventKind::Presence { presence: "online", epoch, .. }
        if *epoch == second.epoch.0);
    assert!(online, "{seen:?}");
}

#[tokio::test]
async fn an_ungraceful_end_publishes_the_will_once_and_a_farewell_never() {
    let world = World::new(quick()).await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(Some(will("w", 0))))
        .await
        .expect("admitted");
    lost(&world, "d", opened.epoch).await;
    lost(&world, "d", opened.epoch).await;
    assert_eq!(presence(&world, "d"), Presence::Offline);
    assert_eq!(
        world
            .outbox
            .topics()
            .iter()
            .filter(|topic| *topic == "w")
            .count(),
        1
    );
    let opened = world
        .fleet
        .connect(&client("d"), hello(Some(will("w2", 0))))
        .await
        .expect("admitted");
    let reason = DisconnectReason::ClientInitiated;
    world
        .fleet
        .disconnect(&client("d"), opened.epoch, reason, None, false)
        .await
        .expect("recorded");
    assert!(!world.outbox.topics().contains(&"w2".to_owned()));
    let world = world.crashed(quick()).await;
    assert!(world.outbox.topics().is_empty());
}

#[tokio::test]
async fn a_delayed_will_is_published_when_due_and_not_if_the_session_came_back() {
    let world = World::new(quick()).await;
    for (id, topic) in [("stays-away", "w1"), ("returns", "w2")] {
        let opened = world
            .fleet
            .connect(&client(id), hello(Some(will(topic, 60))))
            .await
            .expect("admitted");
        lost(&world, id, opened.epoch).await;
    }
    world.clock.advance(Duration::from_secs(30));
    world
        .fleet
        .connect(&client("returns"), hello(None))
        .await
        .expect("admitted");
    world.clock.advance(Duration::from_secs(40));
    eventually("the will is published", || {
        world.outbox.topics().contains(&"w1".to_owned())
    })
    .await;
    world.clock.advance(Duration::from_secs(4000));
    eventually("the session expires", || {
        world
            .outbox
            .0
            .lock()
            .iter()
            .any(|told| matches!(told, Told::Ended(..)))
    })
    .await;
    let topics = world.outbox.topics();
    assert_eq!(topics.iter().filter(|topic| *topic == "w1").count(), 1);
    assert!(!topics.contains(&"w2".to_owned()));
}

#[tokio::test]
async fn after_a_crash_sessions_are_stale_then_offline_with_one_will_unless_they_came_back() {
    let world = World::new(quick()).await;
    for id in ["back", "gone"] {
        world
            .fleet
            .connect(&client(id), hello(Some(will(id, 0))))
            .await
            .expect("admitted");
    }
    let world = world.crashed(quick()).await;
    let mut events = world.fleet.events(Some(0));
    assert_eq!(world.fleet.counts().devices.stale, 2);
    assert_eq!(presence(&world, "back"), Presence::Stale);
    assert_eq!(world.outbox.topics(), Vec::<String>::new());
    world.clock.advance(Duration::from_secs(10));
    let opened = world
        .fleet
        .connect(&client("back"), hello(None))
        .await
        .expect("admitted");
    assert!(opened.session_present);
    world.clock.advance(Duration::from_secs(25));
    eventually("the other is offline", || {
        world.fleet.counts().devices.offline == 1
    })
    .await;
    eventually("its will is out", || {
        world.outbox.topics().contains(&"gone".to_owned())
    })
    .await;
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(world.fleet.counts().devices.online, 1);
    let topics = world.outbox.topics();
    assert_eq!(topics.iter().filter(|topic| *topic == "gone").count(), 1);
    assert!(!topics.contains(&"back".to_owned()));
    world.running.shutdown(Duration::from_secs(1)).await;
    let mut back = Vec::new();
    loop {
        match events.next().await {
            crate::Delivery::Event(event) if event.device == client("back") => {
                if let FleetEventKind::Presence { presence, .. } = event.kind {
                    back.push(presence);
                }
            },
            crate::Delivery::Event(_) | crate::Delivery::Lagged { .. } => {},
            crate::Delivery::Closed => break,
        }
    }
    assert_eq!(back, ["stale", "online"], "no flap");
}

#[tokio::test]
async fn a_second_crash_within_the_grace_still_publishes_one_will() {
    let world = World::new(quick()).await;
    world
        .fleet
        .connect(&client("d"), hello(Some(will("w", 0))))
        .await
        .expect("admitted");
    let world = world.crashed(quick()).await;
    world.clock.advance(Duration::from_secs(20));
    let world = world.crashed(quick()).await;
    assert_eq!(presence(&world, "d"), Presence::Stale);
    world.clock.advance(Duration::from_secs(31));
    eventually("the will is out", || {
        world.outbox.topics().contains(&"w".to_owned())
    })
    .await;
    eventually("it is offline", || {
        world.fleet.counts().devices.offline == 1
    })
    .await;
    let world = world.crashed(quick()).await;
    world.clock.advance(Duration::from_secs(100));
    assert_eq!(world.fleet.counts().devices.offline, 1);
    assert!(!world.outbox.topics().contains(&"w".to_owned()));
}

#[tokio::test]
async fn only_listed_devices_are_admitted_when_the_list_counts() {
    let mut config = quick();
    config.rules.admission = umbel_core::device::Admission::Listed;
    let world = World::new(config).await;
    let refused = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .map(|_| ());
    assert_eq!(refused, Err(Refused::NotListed));
    world
        .fleet
        .create_device(&device("d"), "{}".into())
        .await
        .expect("created");
    world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_now_is_recorded_later_without_the_caller() {
    let world = World::new(quick()).await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    world
        .ledger
        .refuse(Some(umbel_storage::ledger::Refusal::StorageFull));
    let reason = DisconnectReason::ConnectionLost;
    let refused = world
        .fleet
        .disconnect(&client("d"), opened.epoch, reason, None, false)
        .await;
    assert_eq!(refused, Err(Refused::StorageFull));
    assert_eq!(presence(&world, "d"), Presence::Online);
    world.ledger.refuse(None);
    eventually("the end is recorded", || {
        world.clock.advance(Duration::from_secs(1));
        presence(&world, "d") == Presence::Offline
    })
    .await;
}

#[tokio::test]
async fn a_session_that_expires_takes_its_rows_with_it() {
    let world = World::new(quick()).await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    lost(&world, "d", opened.epoch).await;
    world.clock.advance(Duration::from_secs(3601));
    let ended = Told::Ended(client("d"), opened.epoch);
    eventually("the session ends", || {
        world.outbox.0.lock().contains(&ended)
    })
    .await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    assert!(!opened.session_present);
}

#[tokio::test]
async fn an_end_survives_a_change_of_term() {
    let world = World::new(quick()).await;
    let opened = world
        .fleet
        .connect(&client("d"), hello(None))
        .await
        .expect("admitted");
    let shard = umbel_core::ids::ShardId::of("d", 4);
    world.ledger.set_term(shard, None);
    let reason = DisconnectReason::ConnectionLost;
    let refused = world
        .fleet
        .disconnect(&client("d"), opened.epoch, reason, None, false)
        .await;
    assert_eq!(refused, Err(Refused::NotOwner));
    world.ledger.set_term(shard, Some(umbel_core::ids::Term(7)));
    eventually("the end is recorded", || {
        world.clock.advance(Duration::from_millis(100));
        let view = world.fleet.device(&device("d"));
        view.is_ok_and(|view| view.expect("known").record.presence == Presence::Offline)
    })
    .await;
}

#[tokio::test]
async fn a_session_that_stayed_connected_through_a_change_of_term_stays_online() {
    let world = World::new(quick()).await;
    world
        .fleet
        .connect(&client("d"), hello(Some(will("w", 0))))
        .await
        .expect("admitted");
    let shard = umbel_core::ids::ShardId::of("d", 4);
    world.ledger.set_term(shard, Some(umbel_core::ids::Term(7)));
    eventually("the shard serves again", || {
        world.fleet.device(&device("d")).is_ok()
    })
    .await;
    world.clock.advance(Duration::from_mins(2));
    a_while().await;
    assert_eq!(presence(&world, "d"), Presence::Online);
    assert_eq!(world.fleet.counts().devices.online, 1);
    assert!(!world.outbox.topics().contains(&"w".to_owned()));
}
