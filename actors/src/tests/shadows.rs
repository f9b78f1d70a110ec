//! Shadow requests: order of what is told, and what a refused commit leaves behind.

use serde_json::json;
use umbel_core::shadow::{Reply, Verb};
use umbel_storage::ledger::Refusal;

use super::{World, device, eventually, named, quick, request, version};
use crate::Refused;

const DESIRED: &str = r#"{"state":{"desired":{"on":true}},"clientToken":"t"}"#;

#[tokio::test]
async fn an_update_is_committed_then_delta_documents_and_accepted_are_told_in_this_order() {
    let world = World::new(quick()).await;
    let reply = world.update("d", DESIRED).await.expect("served");
    assert_eq!(version(&reply), 1);
    let suffix = |topic: &String| topic.rsplit('/').next().map(str::to_owned);
    let told: Vec<_> = world.outbox.topics().iter().filter_map(suffix).collect();
    assert_eq!(told, ["delta", "documents", "accepted"]);
}

#[tokio::test]
async fn nothing_is_told_while_the_commit_is_on_its_way() {
    let world = World::new(quick()).await;
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let update = tokio::spawn(async move {
        fleet
            .shadow(&device("d"), request(Verb::Update, DESIRED))
            .await
    });
    eventually("the update is proposed", || world.ledger.held() == 1).await;
    assert!(world.outbox.take().is_empty());
    assert!(!update.is_finished());
    world.ledger.release();
    assert_eq!(
        version(&update.await.expect("no panic").expect("served")),
        1
    );
    assert_eq!(world.outbox.topics().len(), 3);
}

#[tokio::test]
async fn a_refused_commit_changes_nothing_and_tells_only_the_refusal() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world.outbox.take();
    world.ledger.refuse(Some(Refusal::StorageFull));
    assert_eq!(world.update("d", DESIRED).await, Err(Refused::StorageFull));
    assert_eq!(
        world.outbox.topics(),
        ["$aws/things/d/shadow/update/rejected"]
    );
    assert_eq!(world.version("d").await, 1);
    world.ledger.refuse(None);
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        2
    );
}

#[tokio::test]
async fn a_write_whose_outcome_is_unknown_is_settled_before_the_next() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world.ledger.lose_answers(true);
    assert_eq!(world.update("d", DESIRED).await, Err(Refused::Unknown));
    assert_eq!(world.update("d", DESIRED).await, Err(Refused::Unknown));
    world.ledger.lose_answers(false);
    // The first of the two was committed though its answer was lost; the second was stopped at the barrier.
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        3
    );
}

#[tokio::test]
async fn versions_are_not_reused_after_a_crash_between_commit_and_tell() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world.ledger.lose_answers(true);
    assert_eq!(world.update("d", DESIRED).await, Err(Refused::Unknown));
    let world = world.crashed(quick()).await;
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        3
    );
}

#[tokio::test]
async fn what_was_held_at_a_crash_never_happened() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world.ledger.hold();
    let fleet = world.fleet.clone();
    let lost = tokio::spawn(async move {
        fleet
            .shadow(&device("d"), request(Verb::Update, DESIRED))
            .await
    });
    eventually("the update is proposed", || world.ledger.held() == 1).await;
    let world = world.crashed(quick()).await;
    assert_eq!(world.version("d").await, 1);
    assert!(lost.await.expect("no panic").is_err());
}

#[tokio::test]
async fn a_deleted_shadow_comes_back_with_a_higher_version() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world
        .fleet
        .shadow(&device("d"), request(Verb::Delete, ""))
        .await
        .expect("served");
    let world = world.crashed(quick()).await;
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        3
    );
}

#[tokio::test]
async fn a_change_of_term_drops_what_was_held_hot() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    let shard = umbel_core::ids::ShardId::of("d", 4);
    world.ledger.set_term(shard, None);
    assert_eq!(world.update("d", DESIRED).await, Err(Refused::NotOwner));
    world.ledger.set_term(shard, Some(umbel_core::ids::Term(9)));
    let fleet = &world.fleet;
    let until = tokio::time::Instant::now() + super::PATIENCE;
    while fleet.device(&device("d")).is_err() {
        assert!(
            tokio::time::Instant::now() < until,
            "the shard was never recovered"
        );
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        2
    );
}

#[tokio::test]
async fn named_shadows_are_listed_in_pages_without_the_classic_and_the_deleted() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    for name in ["a", "b", "c", "e"] {
        world
            .fleet
            .shadow(&device("d"), named(name, Verb::Update, DESIRED))
            .await
            .expect("served");
    }
    world
        .fleet
        .shadow(&device("d"), named("b", Verb::Delete, ""))
        .await
        .expect("served");
    let page = world
        .fleet
        .list_named(&device("d"), None, 2)
        .expect("readable");
    let names: Vec<_> = page.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a", "c"]);
    let page = world
        .fleet
        .list_named(&device("d"), page.next.as_ref(), 2)
        .expect("readable");
    assert_eq!(
        page.names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["e"]
    );
    assert_eq!(page.next, None);
    assert!(
        world
            .fleet
            .list_named(&device("x"), None, 2)
            .expect("readable")
            .names
            .is_empty()
    );
}

#[tokio::test]
async fn a_rejection_of_the_machine_is_an_answer_and_not_a_refusal() {
    let world = World::new(quick()).await;
    let reply = world
        .fleet
        .shadow(&device("d"), request(Verb::Get, ""))
        .await
        .expect("served");
    let Reply::Rejected(rejection) = reply else {
        panic!("there is no shadow")
    };
    assert_eq!(rejection.error.code, 404);
    let body: serde_json::Value = serde_json::from_slice(&rejection.body).expect("JSON");
    assert_eq!(body["code"], json!(404));
}

#[tokio::test]
async fn an_update_that_was_committed_and_not_told_before_a_crash_keeps_its_version() {
    let world = World::new(quick()).await;
    world.update("d", DESIRED).await.expect("served");
    world.outbox.stop_delivering();
    let fleet = world.fleet.clone();
    let lost = tokio::spawn(async move {
        fleet
            .shadow(&device("d"), request(Verb::Update, DESIRED))
            .await
    });
    let told = world.outbox.topics().len();
    eventually("the telling began", || world.outbox.topics().len() > told).await;
    let world = world.crashed(quick()).await;
    lost.abort();
    assert_eq!(world.version("d").await, 2);
    assert_eq!(
        version(&world.update("d", DESIRED).await.expect("served")),
        3
    );
}
