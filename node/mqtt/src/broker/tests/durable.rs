//! Persistent sessions: what was acknowledged outlives the connection, and the power.

use umbel_core::message::Qos;
use umbel_storage::Refusal;

use super::world::{Said, V3, V5, World, hello, messages};
use crate::packet::Packet;

#[tokio::test]
async fn what_is_published_while_a_session_waits_is_kept_through_a_crash() {
    for version in [V3, V5] {
        let world = World::new();
        let mut away = world.connect(hello("away", version).persistent()).await;
        assert!(!away.answer.session_present);
        away.subscribe("a/#", Qos::ExactlyOnce);
        away.lose().await;
        let mut writer = world.connect(hello("writer", V5)).await;
        assert_eq!(
            writer.publish("a/1", "one", Qos::AtLeastOnce),
            [Said::PubAck(1, 0)]
        );
        assert_eq!(
            writer.publish("a/2", "two", Qos::ExactlyOnce),
            [Said::PubRec(2, 0)]
        );
        writer.publish("a/3", "zero", Qos::AtMostOnce);
        let world = world.crash();
        let mut back = world.connect(hello("away", version).persistent()).await;
        assert!(back.answer.session_present);
        let got = back.messages();
        let heard: Vec<_> = got
            .iter()
            .map(|got| (got.payload.as_str(), got.qos))
            .collect();
        assert_eq!(heard, [("one", 1), ("two", 2)]);
        let mut writer = world.connect(hello("writer", V5)).await;
        writer.publish("a/4", "subscribed still", Qos::AtMostOnce);
        assert_eq!(back.payloads(), ["subscribed still"]);
    }
}

#[tokio::test]
async fn a_clean_start_forgets_subscriptions_and_messages() {
    let world = World::new();
    let mut away = world.connect(hello("away", V5).persistent()).await;
    away.subscribe("a", Qos::AtLeastOnce);
    away.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    let mut clean = world.connect(hello("away", V5)).await;
    assert!(!clean.answer.session_present);
    writer.publish("a", "y", Qos::AtLeastOnce);
    assert!(clean.hear().is_empty());
    clean.lose().await;
    let world = world.crash();
    let mut back = world.connect(hello("away", V5).persistent()).await;
    assert!(!back.answer.session_present);
    assert!(back.hear().is_empty());
    assert_eq!(world.broker.totals().subscriptions, 0);
}

#[tokio::test]
async fn an_unacknowledged_message_comes_again_with_the_same_identifier_and_dup() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::ExactlyOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for (payload, qos) in [
        ("1", Qos::AtLeastOnce),
        ("2", Qos::ExactlyOnce),
        ("3", Qos::AtLeastOnce),
    ] {
        writer.publish("a", payload, qos);
    }
    let first = reader.messages();
    assert!(first.iter().all(|got| !got.dup));
    reader.puback(first[0].id);
    world.broker.delete_now().await;
    reader.lose().await;
    let again = |mut got: super::world::Got| {
        got.dup = true;
        got
    };
    let expected: Vec<_> = first.into_iter().skip(1).map(again).collect();
    for world in [world.crash(), world] {
        let mut back = world.connect(hello("reader", V5).persistent()).await;
        assert_eq!(back.messages(), expected);
    }
}

#[tokio::test]
async fn a_message_that_was_never_sent_comes_without_dup_on_the_next_connection() {
    let world = World::new();
    let mut reader = world
        .connect(hello("reader", V5).persistent().receive_maximum(1))
        .await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "sent", Qos::AtLeastOnce);
    writer.publish("a", "unsent", Qos::AtLeastOnce);
    assert_eq!(reader.payloads(), ["sent"]);
    reader.lose().await;
    let mut back = world.connect(hello("reader", V5).persistent()).await;
    let flags: Vec<_> = back
        .messages()
        .into_iter()
        .map(|got| (got.payload, got.dup))
        .collect();
    assert_eq!(
        flags,
        [("sent".to_owned(), true), ("unsent".to_owned(), false)]
    );
}

#[tokio::test]
async fn the_publisher_is_told_and_the_subscriber_gets_it_only_after_the_commit() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    world.ledger.hold();
    assert!(writer.publish("a", "1", Qos::AtLeastOnce).is_empty());
    assert!(writer.publish("a", "2", Qos::AtLeastOnce).is_empty());
    assert!(reader.hear().is_empty());
    world.ledger.release_one();
    world.settle().await;
    assert_eq!(writer.hear(), [Said::PubAck(1, 0)]);
    assert_eq!(reader.payloads(), ["1"]);
    world.ledger.release();
    world.settle().await;
    assert_eq!(writer.hear(), [Said::PubAck(2, 0)]);
    assert_eq!(reader.payloads(), ["2"]);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_or_closes_and_is_not_delivered() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut five = world.connect(hello("five", V5)).await;
    let mut old = world.connect(hello("old", V3)).await;
    world.ledger.refuse(Some(Refusal::StorageFull));
    assert_eq!(
        five.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0x97)]
    );
    let publish = old.message("a", "x", Qos::AtLeastOnce);
    assert!(
        old.try_send(Packet::Publish(publish)).is_err(),
        "3.1.1 has no word for it"
    );
    assert_eq!(
        five.publish("b", "x", Qos::AtLeastOnce),
        [Said::PubAck(2, 0x10)]
    );
    world.ledger.refuse(None);
    assert!(reader.hear().is_empty());
    assert_eq!(
        five.publish("a", "y", Qos::AtLeastOnce),
        [Said::PubAck(3, 0)]
    );
    assert_eq!(reader.payloads(), ["y"]);
}

#[tokio::test]
async fn a_subscription_is_granted_when_it_is_kept() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    world.ledger.hold();
    assert!(reader.subscribe("a", Qos::AtLeastOnce).is_empty());
    world.ledger.release();
    world.settle().await;
    assert_eq!(reader.hear(), [Said::SubAck(1, vec![1])]);
    world.ledger.refuse(Some(Refusal::Busy));
    assert_eq!(
        reader.subscribe("b", Qos::AtLeastOnce),
        [Said::SubAck(2, vec![0x97])]
    );
    assert_eq!(reader.unsubscribe("a"), [Said::UnsubAck(3, vec![0x83])]);
    world.ledger.refuse(None);
    let mut writer = world.connect(hello("writer", V5)).await;
    assert_eq!(
        writer.publish("b", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0x10)],
        "taken back"
    );
    assert_eq!(
        writer.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(2, 0)],
        "still there"
    );
    assert_eq!(reader.payloads(), ["x"]);
    assert_eq!(reader.unsubscribe("a"), [Said::UnsubAck(4, vec![0])]);
    assert_eq!(reader.unsubscribe("a"), [Said::UnsubAck(5, vec![0x11])]);
    assert_eq!(world.crash().broker.totals().subscriptions, 0);
}

#[tokio::test]
async fn acknowledged_rows_are_deleted_together_and_later() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for _ in 0..20 {
        writer.publish("a", "x", Qos::AtLeastOnce);
    }
    let before = world.ledger.proposals();
    for got in reader.messages() {
        reader.puback(got.id);
    }
    assert_eq!(world.ledger.proposals(), before);
    world.broker.delete_now().await;
    assert_eq!(world.ledger.proposals(), before + 1);
    assert_eq!(world.crash().broker.totals().queued, 0);
}

#[tokio::test]
async fn deletions_that_are_refused_are_tried_again_and_nothing_is_sent_twice() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    let id = reader.messages()[0].id;
    reader.puback(id);
    world.ledger.refuse(Some(Refusal::Busy));
    world.broker.delete_now().await;
    reader.lose().await;
    let mut back = world.connect(hello("reader", V5).persistent()).await;
    assert!(back.hear().is_empty(), "acknowledged on this node");
    world.ledger.refuse(None);
    world.broker.delete_now().await;
    assert_eq!(world.crash().broker.totals().queued, 0);
}

#[tokio::test]
async fn identifiers_do_not_meet_however_many_messages_pass() {
    let world = World::with(|config| config.inflight_max = 2);
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut held: Vec<super::world::Got> = Vec::new();
    for number in 0..300 {
        writer.publish("a", &number.to_string(), Qos::AtLeastOnce);
        held.extend(reader.messages());
        if held.len() == 2 {
            assert_ne!(held[0].id, held[1].id);
            seen.insert(held[0].id);
            let more = messages(reader.puback(held.remove(0).id));
            held.extend(more);
        }
    }
    assert!(seen.len() > 250);
}

#[tokio::test]
async fn a_message_that_expires_while_it_waits_is_not_sent() {
    let world = World::new();
    let mut away = world.connect(hello("away", V5).persistent()).await;
    away.subscribe("a", Qos::AtLeastOnce);
    away.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    for (payload, seconds) in [("short", 5), ("long", 60)] {
        let publish = writer.message_with("a", payload, Qos::AtLeastOnce, |said| {
            said.message_expiry = Some(seconds);
        });
        writer.send(Packet::Publish(publish));
    }
    world.clock.advance_seconds(10);
    let mut back = world.connect(hello("away", V5).persistent()).await;
    let got = back.messages();
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].payload.as_str(), got[0].expiry), ("long", Some(50)));
    back.puback(got[0].id);
    world.broker.delete_now().await;
    assert_eq!(world.crash().broker.totals().queued, 0);
}

#[tokio::test]
async fn retained_messages_of_a_durable_subscription_are_kept_like_any_other() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "x");
    let mut reader = world.connect(hello("reader", V3).persistent()).await;
    let got = messages(reader.subscribe("a", Qos::AtLeastOnce));
    assert_eq!((got.len(), got[0].retain), (1, true));
    let mut back = world
        .crash()
        .connect(hello("reader", V3).persistent())
        .await;
    let again = back.messages();
    assert_eq!(
        (again[0].id, again[0].dup, again[0].retain),
        (got[0].id, true, true)
    );
}

#[tokio::test]
async fn a_fan_out_to_many_durable_sessions_shares_proposals() {
    let world = World::new();
    for number in 0..50 {
        let mut away = world
            .connect(hello(&format!("away{number}"), V3).persistent())
            .await;
        away.subscribe("a", Qos::AtLeastOnce);
        away.lose().await;
    }
    let mut writer = world.connect(hello("writer", V5)).await;
    let before = world.ledger.proposals();
    assert_eq!(
        writer.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0)]
    );
    assert!(world.ledger.proposals() - before <= 4, "one for each shard");
    assert_eq!(world.crash().broker.totals().queued, 50);
}

#[tokio::test]
async fn an_identifier_of_a_session_that_is_over_does_not_swallow_a_message_of_the_next() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::with_gate(&gate);
    let topic = "$aws/things/pump/shadow/update";
    let mut before = world.connect(hello("pump", V5).persistent()).await;
    assert!(before.publish(topic, "{}", Qos::ExactlyOnce).is_empty());
    before.lose().await;
    let forgetful = |connect: &mut crate::packet::Connect| connect.clean_start = true;
    let fresh = hello("pump", V5).persistent().change(forgetful);
    let fresh = world.connect(fresh).await;
    assert!(!fresh.answer.session_present);
    gate.add_permits(8);
    world.settle().await;
    let world = world.crash();
    let mut back = world.connect(hello("pump", V5).persistent()).await;
    assert!(back.answer.session_present);
    assert_eq!(
        back.publish(topic, "{}", Qos::ExactlyOnce),
        [Said::PubRec(1, 0)]
    );
    assert_eq!(
        world.fleet.requests.lock().len(),
        1,
        "the update has its effect"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_cluster_says_waits_for_a_busy_shard() {
    let world = World::new();
    let mut away = world.connect(hello("away", V5).persistent()).await;
    away.subscribe("a", Qos::AtLeastOnce);
    away.lose().await;
    let leaver = world.connect(hello("leaver", V5).will("a", true)).await;
    world.ledger.refuse(Some(Refusal::Busy));
    let lost = tokio::spawn(leaver.lose());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!lost.is_finished());
    world.ledger.refuse(None);
    lost.await.expect("ends");
    assert!(
        world
            .broker
            .retained_get("a")
            .await
            .expect("readable")
            .is_some(),
        "kept"
    );
    let mut back = world.crash().connect(hello("away", V5).persistent()).await;
    assert_eq!(back.messages().len(), 1, "and in the queue");
}

#[tokio::test]
async fn a_message_for_many_sessions_does_not_wait_in_memory_for_the_last_of_them() {
    let world = World::new();
    for number in 0..40 {
        let hello = hello(&format!("away{number}"), V5).persistent();
        let mut away = world.connect(hello).await;
        away.subscribe("a", Qos::AtLeastOnce);
        away.lose().await;
    }
    let mut writer = world.connect(hello("writer", V5)).await;
    let before = world.ledger.proposals();
    let large = "x".repeat(150_000);
    assert_eq!(
        writer.publish("a", &large, Qos::AtLeastOnce),
        [Said::PubAck(1, 0)]
    );
    let proposals = world.ledger.proposals() - before;
    assert!((6..=12).contains(&proposals), "{proposals}: by megabytes");
    let mut back = world.connect(hello("away7", V5).persistent()).await;
    assert_eq!(back.messages().len(), 1);
}
