//! A device whose actor panics: contained, restarted, quarantined, released.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use umbel_core::device::{DisconnectReason, Presence};

use super::{World, a_while, client, device, eventually, hello, quick, version};
use crate::{Config, Delivery, FleetEventKind, Refused, supervise::RestartPolicy};

const UPDATE: &str = r#"{"state":{"reported":{"n":1}}}"#;

/// A configuration whose device "poison" panics while the switch is on.
fn poisoned() -> (Config, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let is_on = Arc::clone(&switch);
    let fail_point = move |id: &umbel_core::ids::ClientId| {
        assert!(
            id.as_str() != "poison" || !is_on.load(Ordering::SeqCst),
            "poisoned by a test"
        );
    };
    (
        Config {
            fail_point: Some(Arc::new(fail_point)),
            ..quick()
        },
        switch,
    )
}

/// Moves the clock on until the device answers something else than that it restarts.
async fn rested(world: &World, id: &str) -> Result<umbel_core::shadow::Reply, Refused> {
    let until = tokio::time::Instant::now() + super::PATIENCE;
    loop {
        world.clock.advance(Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(3)).await;
        let answer = world.update(id, UPDATE).await;
        if answer != Err(Refused::Restarting) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < until, "it never restarted");
    }
}

#[tokio::test]
async fn a_panic_restarts_the_device_from_what_is_committed_and_the_neighbours_notice_nothing() {
    let (config, switch) = poisoned();
    let world = World::new(config).await;
    world.update("poison", UPDATE).await.expect("served");
    switch.store(true, Ordering::SeqCst);
    assert_eq!(
        world.update("poison", UPDATE).await,
        Err(Refused::Restarting)
    );
    assert_eq!(
        world.update("poison", UPDATE).await,
        Err(Refused::Restarting)
    );
    for number in 0..20 {
        world
            .update(&format!("d{number}"), UPDATE)
            .await
            .expect("served");
    }
    switch.store(false, Ordering::SeqCst);
    assert_eq!(version(&rested(&world, "poison").await.expect("served")), 2);
    assert!(world.fleet.quarantined().is_empty());
}

#[tokio::test]
async fn the_last_failure_is_shown_with_the_device() {
    let (config, switch) = poisoned();
    let world = World::new(config).await;
    world
        .fleet
        .connect(&client("poison"), hello(None))
        .await
        .expect("admitted");
    switch.store(true, Ordering::SeqCst);
    world.update("poison", UPDATE).await.expect_err("it panics");
    switch.store(false, Ordering::SeqCst);
    rested(&world, "poison").await.expect("served");
    let view = world
        .fleet
        .device(&device("poison"))
        .expect("readable")
        .expect("known");
    let error = view.record.last_error.clone().expect("an error");
    assert!(error.message.contains("poisoned by a test"), "{error:?}");
}

#[tokio::test]
async fn five_failures_quarantine_the_device_until_an_operator_releases_it() {
    let (config, switch) = poisoned();
    let world = World::new(config).await;
    let mut events = world.fleet.events(None);
    switch.store(true, Ordering::SeqCst);
    let until = tokio::time::Instant::now() + super::PATIENCE;
    while world.update("poison", UPDATE).await != Err(Refused::Quarantined) {
        world.clock.advance(Duration::from_millis(500));
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(
            tokio::time::Instant::now() < until,
            "it was never quarantined"
        );
    }
    let quarantined = world.fleet.quarantined();
    assert_eq!(quarantined.len(), 1);
    assert_eq!(
        (quarantined[0].device.clone(), quarantined[0].failures),
        (client("poison"), 5)
    );
    assert!(quarantined[0].message.contains("poisoned by a test"));
    world.clock.advance(Duration::from_hours(1));
    a_while().await;
    assert_eq!(
        world.update("poison", UPDATE).await,
        Err(Refused::Quarantined)
    );
    world.update("d", UPDATE).await.expect("served");
    switch.store(false, Ordering::SeqCst);
    assert!(world.fleet.release(&client("poison")));
    assert!(!world.fleet.release(&client("poison")));
    assert_eq!(
        version(&world.update("poison", UPDATE).await.expect("served")),
        1
    );
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        if let Delivery::Event(event) = events.next().await
            && event.device == client("poison")
        {
            kinds.push(event.kind.clone());
        }
    }
    assert_eq!(
        kinds[..2],
        [FleetEventKind::Quarantined, FleetEventKind::Released]
    );
}

#[tokio::test]
async fn the_end_of_a_session_survives_a_crash_of_its_actor() {
    let (config, switch) = poisoned();
    let world = World::new(config).await;
    let opened = world
        .fleet
        .connect(&client("poison"), hello(None))
        .await
        .expect("admitted");
    switch.store(true, Ordering::SeqCst);
    let reason = DisconnectReason::ConnectionLost;
    let end = world
        .fleet
        .disconnect(&client("poison"), opened.epoch, reason, None, false)
        .await;
    assert_eq!(end, Err(Refused::Restarting));
    switch.store(false, Ordering::SeqCst);
    eventually("the end is recorded", || {
        world.clock.advance(Duration::from_millis(100));
        let view = world
            .fleet
            .device(&device("poison"))
            .expect("readable")
            .expect("known");
        view.record.presence == Presence::Offline
    })
    .await;
}

#[tokio::test]
async fn a_shard_whose_supervisor_dies_gets_another() {
    let world = World::new(quick()).await;
    world.update("d", UPDATE).await.expect("served");
    world.fleet.kill_supervisor(&client("d"));
    let until = tokio::time::Instant::now() + super::PATIENCE;
    let reply = loop {
        match world.update("d", UPDATE).await {
            Err(Refused::Restarting | Refused::Unknown) => tokio::task::yield_now().await,
            other => break other,
        }
        assert!(
            tokio::time::Instant::now() < until,
            "the shard never came back"
        );
    };
    assert!(version(&reply.expect("served")) >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_permit_is_lost_and_no_version_told_twice_while_actors_crash_under_load() {
    const DEVICES: usize = 12;
    let calls = AtomicU64::new(0);
    let fail_point = move |_: &umbel_core::ids::ClientId| {
        assert!(
            !calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(97),
            "poisoned by a test"
        );
    };
    let restart = RestartPolicy {
        strikes_max: usize::MAX,
        ..RestartPolicy::default()
    };
    let config = Config {
        fail_point: Some(Arc::new(fail_point)),
        restart,
        ..quick()
    };
    let world = Arc::new(World::new(config).await);
    let tasks = (0..8).map(|task| {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let mut told = Vec::new();
            for round in 0..200 {
                let number = (round * 5 + task) % DEVICES;
                world.clock.advance(Duration::from_millis(20));
                match world.update(&format!("d{number}"), UPDATE).await {
                    Ok(reply) => told.push((number, version(&reply))),
                    Err(Refused::Restarting) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(other) => panic!("{other:?}"),
                }
            }
            told
        })
    });
    let mut told = Vec::new();
    for task in futures_util::future::join_all(tasks).await {
        told.extend(task.expect("no panic outside the actors"));
    }
    let count = told.len();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), count, "each version is told once");
    assert!(count > 400, "most were served: {count}");
    eventually("all sleep and hold no permit", || {
        world.clock.advance(Duration::from_secs(1));
        world.fleet.counts().awake == 0 && world.fleet.common.in_flight.taken() == 0
    })
    .await;
}
