//! Retained messages.

use umbel_core::message::Qos;
use umbel_storage::Refusal;

use super::world::{Said, V3, V5, World, hello, messages};
use crate::packet::{Packet, RetainHandling};

#[tokio::test]
async fn a_retained_message_reaches_later_subscribers_and_survives_a_crash() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    assert_eq!(writer.retain("a/b", "old"), [Said::PubAck(1, 0x10)]);
    writer.retain("a/b", "new");
    writer.retain("a/c", "other");
    let world = world.crash();
    for filter in ["a/b", "a/+", "#"] {
        let mut reader = world.connect(hello("reader", V3)).await;
        let got = messages(reader.subscribe(filter, Qos::AtMostOnce));
        assert_eq!(
            (got[0].topic.as_str(), got[0].payload.as_str()),
            ("a/b", "new"),
            "{filter}"
        );
        assert!(got.iter().all(|got| got.retain), "MQTT-3.3.1-8");
    }
    assert_eq!(world.broker.totals().retained, 2);
}

#[tokio::test]
async fn an_empty_payload_removes_and_is_delivered() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "x");
    writer.retain("a", "");
    let got = reader.messages();
    let got: Vec<_> = got
        .iter()
        .map(|got| (got.payload.as_str(), got.retain))
        .collect();
    assert_eq!(
        got,
        [("x", false), ("", false)],
        "live messages are not marked (MQTT-3.3.1-12)"
    );
    assert_eq!(
        world.broker.retained_get("a").await.expect("readable"),
        None
    );
    assert_eq!(world.broker.totals().retained_bytes, 0);
    assert_eq!(world.crash().broker.totals().retained, 0);
}

#[tokio::test]
async fn retain_handling_decides_what_a_subscription_brings() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "x");
    for (handling, first, second) in [
        (RetainHandling::Send, 1, 1),
        (RetainHandling::SendIfNew, 1, 0),
        (RetainHandling::Never, 0, 0),
    ] {
        let mut reader = world.connect(hello("reader", V5)).await;
        for expected in [first, second] {
            let said =
                reader.subscribe_with("a", None, |options| options.retain_handling = handling);
            assert_eq!(messages(said).len(), expected, "{handling:?}");
        }
    }
}

#[tokio::test]
async fn retain_as_published_keeps_the_flag() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe_with("a", None, |options| options.retain_as_published = true);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "x");
    writer.publish("a", "y", Qos::AtMostOnce);
    let flags: Vec<_> = reader.messages().iter().map(|got| got.retain).collect();
    assert_eq!(flags, [true, false]);
}

#[tokio::test]
async fn shared_subscriptions_bring_no_retained_messages() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "x");
    let mut reader = world.connect(hello("reader", V3)).await;
    assert!(messages(reader.subscribe("$share/g/a", Qos::AtMostOnce)).is_empty());
}

#[tokio::test]
async fn retained_messages_are_bounded_by_count_and_bytes() {
    let world = World::with(|config| {
        config.retained_messages_max = 2;
        config.retained_bytes_max = 1_000;
    });
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "1");
    writer.retain("b", "1");
    assert_eq!(writer.retain("c", "1"), [Said::PubAck(3, 0x97)]);
    assert_eq!(
        writer.retain("a", "2"),
        [Said::PubAck(4, 0x10)],
        "replacing needs no room"
    );
    assert_eq!(
        writer.retain("a", &"x".repeat(900)),
        [Said::PubAck(5, 0x97)]
    );
    writer.retain("b", "");
    assert_eq!(writer.retain("c", "1"), [Said::PubAck(7, 0x10)]);
}

#[tokio::test]
async fn an_expired_retained_message_is_not_delivered_and_makes_room() {
    let world = World::with(|config| config.retained_messages_max = 1);
    let mut writer = world.connect(hello("writer", V5)).await;
    let mut publish = writer.message_with("a", "x", Qos::AtLeastOnce, |said| {
        said.message_expiry = Some(10);
    });
    publish.retain = true;
    writer.send(Packet::Publish(publish));
    world.clock.advance_seconds(4);
    let mut reader = world.connect(hello("reader", V5)).await;
    assert_eq!(
        messages(reader.subscribe("a", Qos::AtMostOnce))[0].expiry,
        Some(6),
        "counted down"
    );
    assert_eq!(writer.retain("b", "x"), [Said::PubAck(2, 0x97)]);
    world.clock.advance_seconds(6);
    assert!(messages(reader.subscribe("a", Qos::AtMostOnce)).is_empty());
    assert_eq!(writer.retain("b", "x"), [Said::PubAck(3, 0x10)]);
}

#[tokio::test]
async fn a_retained_message_that_cannot_be_stored_is_refused_and_the_old_one_stays() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "old");
    world.ledger.refuse(Some(Refusal::StorageFull));
    assert_eq!(writer.retain("a", "new"), [Said::PubAck(2, 0x97)]);
    assert_eq!(writer.retain("b", "new"), [Said::PubAck(3, 0x97)]);
    assert_eq!(writer.retain("a", ""), [Said::PubAck(4, 0x97)]);
    world.ledger.refuse(None);
    let old = world
        .broker
        .retained_get("a")
        .await
        .expect("readable")
        .expect("still there");
    assert_eq!(old.payload.as_ref(), b"old");
    assert_eq!(world.broker.totals().retained, 1);
}

#[tokio::test]
async fn a_retained_message_is_committed_before_it_is_acknowledged() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    world.ledger.hold();
    assert!(writer.retain("a", "x").is_empty());
    assert_eq!(world.crash().broker.totals().retained, 0);
    world.ledger.release();
    world.settle().await;
    assert_eq!(writer.hear(), [Said::PubAck(1, 0)]);
    assert_eq!(world.crash().broker.totals().retained, 1);
}

#[tokio::test]
async fn who_subscribes_while_a_retained_message_is_being_committed_gets_it() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.retain("a", "old");
    world.ledger.hold();
    writer.retain("a", "new");
    writer.retain("b", "first");
    let mut reader = world.connect(hello("reader", V5)).await;
    for (topic, latest) in [("a", "new"), ("b", "first")] {
        let got = messages(reader.subscribe(topic, Qos::AtMostOnce));
        assert_eq!(got.len(), 1, "{topic}: it was not there when it was routed");
        assert_eq!((got[0].payload.as_str(), got[0].retain), (latest, true));
    }
    let told = world
        .broker
        .retained_get("a")
        .await
        .expect("readable")
        .expect("the old one");
    assert_eq!(
        told.payload.as_ref(),
        b"old",
        "others see what is committed"
    );
    world.ledger.release();
    world.settle().await;
    let told = world
        .broker
        .retained_get("a")
        .await
        .expect("readable")
        .expect("the new one");
    assert_eq!(told.payload.as_ref(), b"new");
}

#[tokio::test]
async fn a_filter_that_matches_more_than_a_queue_holds_brings_everything_in_pages() {
    let world = World::with(|config| config.queue_messages_max = 10);
    let mut writer = world.connect(hello("writer", V5)).await;
    for number in 0..500 {
        writer.retain(&format!("t/{number:03}"), "x");
    }
    let mut reader = world.connect(hello("reader", V5).receive_maximum(5)).await;
    let mut heard = messages(reader.subscribe("t/#", Qos::AtLeastOnce));
    let mut done = 0;
    while done < heard.len() {
        let more = messages(reader.puback(heard[done].id));
        heard.extend(more);
        done += 1;
    }
    // a queue of ten takes pages of thirty-two only as far as it has room: nothing beyond it is promised at once
    let topics: std::collections::BTreeSet<_> = heard.iter().map(|got| got.topic.clone()).collect();
    assert_eq!(topics.len(), heard.len());
    assert_eq!(topics.len(), 500);
}

#[tokio::test]
async fn reserved_topics_keep_nothing() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    assert_eq!(
        writer.retain("$aws/things/writer/shadow/update", "{}"),
        [Said::PubAck(1, 0x87)]
    );
    let mut old = world.connect(hello("old", V3)).await;
    let mut publish = old.message("$aws/things/old/shadow/update", "{}", Qos::AtMostOnce);
    publish.retain = true;
    assert!(old.try_send(Packet::Publish(publish)).is_err());
    assert!(world.fleet.requests.lock().is_empty());
}

#[tokio::test]
async fn retained_messages_are_listed_in_the_order_of_their_topics() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    for topic in ["b", "a/1", "c"] {
        writer.retain(topic, topic);
    }
    let page = world.broker.retained_list(None, 2).await.expect("readable");
    let topics: Vec<_> = page
        .messages
        .iter()
        .map(|message| message.topic.as_str())
        .collect();
    assert_eq!(topics, ["a/1", "b"]);
    let page = world
        .broker
        .retained_list(page.next.as_deref(), 2)
        .await
        .expect("readable");
    assert_eq!(page.messages.len(), 1);
    assert_eq!(page.next, None);
}
