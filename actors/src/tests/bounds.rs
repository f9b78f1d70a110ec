//! Every bound answers at once, and the neighbours go on.

use futures_util::future::join_all;
use serde_json::{Value, json};
use umbel_core::shadow::Verb;

use super::{Told, World, client, device, eventually, hello, quick, request, version};
use crate::{Config, Refused};

const UPDATE: &str = r#"{"state":{"desired":{"on":true}},"clientToken":"t"}"#;

#[tokio::test]
async fn the_eleventh_request_of_a_device_in_flight_is_refused_with_429() {
    let world = World::new(quick()).await;
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let ten = tokio::spawn(async move {
        let id = device("d");
        join_all((0..10).map(|_| fleet.shadow(&id, request(Verb::Update, UPDATE)))).await
    });
    eventually("the first is proposed", || world.ledger.held() == 1).await;
    assert_eq!(
        world.update("d", UPDATE).await,
        Err(Refused::TooManyInFlight)
    );
    let told = world.outbox.take();
    let Some(Told::Published(topic, body)) = told.first() else {
        panic!("{told:?}")
    };
    assert_eq!(topic, "$aws/things/d/shadow/update/rejected");
    assert_eq!(
        (&body["code"], &body["clientToken"]),
        (&json!(429), &json!("t"))
    );
    // A session is not a request: it waits in line instead.
    let fleet = world.fleet.clone();
    let connect = tokio::spawn(async move { fleet.connect(&client("d"), hello(None)).await });
    world.ledger.release();
    let versions: Vec<_> = ten
        .await
        .expect("no panic")
        .into_iter()
        .map(|reply| version(&reply.expect("served")))
        .collect();
    assert_eq!(versions, (1..=10).collect::<Vec<_>>());
    connect.await.expect("no panic").expect("admitted");
    world
        .update("d", UPDATE)
        .await
        .expect("the permits are back");
}

#[tokio::test]
async fn devices_of_a_shard_wait_for_the_ledger_together_and_not_one_after_the_other() {
    let world = World::new(quick()).await;
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let all = tokio::spawn(async move {
        let ids: Vec<_> = (0..50)
            .map(|number| device(&format!("d{number}")))
            .collect();
        join_all(
            ids.iter()
                .map(|id| fleet.shadow(id, request(Verb::Update, UPDATE))),
        )
        .await
    });
    eventually("all are proposed", || world.ledger.held() == 50).await;
    world.ledger.release();
    assert!(all.await.expect("no panic").iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_full_shard_or_node_refuses_at_once_and_serves_again_when_it_has_room() {
    let shard = Config {
        shard_in_flight_max: 3,
        ..quick()
    };
    let node = Config {
        node_in_flight_max: 3,
        ..quick()
    };
    for config in [shard, node] {
        let ledger = umbel_storage::memory::MemoryLedger::new(1);
        let world = World::over(ledger, config, std::sync::Arc::default()).await;
        world.ledger.hold();
        let fleet = world.fleet.clone();
        let three = tokio::spawn(async move {
            let ids: Vec<_> = (0..3).map(|number| device(&format!("d{number}"))).collect();
            join_all(
                ids.iter()
                    .map(|id| fleet.shadow(id, request(Verb::Update, UPDATE))),
            )
            .await
        });
        eventually("three are proposed", || world.ledger.held() == 3).await;
        assert_eq!(
            world.update("other", UPDATE).await,
            Err(Refused::Overloaded)
        );
        world.ledger.release();
        assert!(three.await.expect("no panic").iter().all(Result::is_ok));
        world.update("other", UPDATE).await.expect("there is room");
    }
}

#[tokio::test]
async fn over_the_bound_on_awake_actors_idle_ones_sleep_first_and_busy_ones_stay() {
    let world = World::new(Config {
        awake_max: 2,
        ..quick()
    })
    .await;
    for number in 0..10 {
        world
            .update(&format!("d{number}"), UPDATE)
            .await
            .expect("an idle one makes room");
        assert!(world.fleet.counts().awake <= 2);
    }
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let two = tokio::spawn(async move {
        let ids = [device("busy-1"), device("busy-2")];
        join_all(
            ids.iter()
                .map(|id| fleet.shadow(id, request(Verb::Update, UPDATE))),
        )
        .await
    });
    eventually("both work", || world.ledger.held() == 2).await;
    assert_eq!(
        world.update("third", UPDATE).await,
        Err(Refused::Overloaded)
    );
    world.ledger.release();
    assert!(two.await.expect("no panic").iter().all(Result::is_ok));
    world
        .update("third", UPDATE)
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn a_node_that_stops_refuses_and_finishes_what_is_in_flight() {
    let World {
        fleet,
        running,
        ledger,
        outbox,
        ..
    } = World::new(quick()).await;
    ledger.hold();
    let working = fleet.clone();
    let update = tokio::spawn(async move {
        working
            .shadow(&device("d"), request(Verb::Update, UPDATE))
            .await
    });
    eventually("it is proposed", || ledger.held() == 1).await;
    let stop = tokio::spawn(running.shutdown(std::time::Duration::from_secs(10)));
    eventually("new work is refused", || {
        fleet.device(&device("d")) == Err(Refused::Stopping)
    })
    .await;
    ledger.release();
    assert_eq!(
        version(&update.await.expect("no panic").expect("served")),
        1
    );
    stop.await.expect("no panic");
    let accepted = |told: &Told| matches!(told, Told::Published(topic, Value::Object(_)) if topic.ends_with("/accepted"));
    assert_eq!(
        outbox.take().iter().filter(|told| accepted(told)).count(),
        1
    );
}
