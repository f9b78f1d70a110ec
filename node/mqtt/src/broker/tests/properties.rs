//! What MQTT 5 lets a message and a subscription say.

use std::num::NonZeroU32;

use bytes::Bytes;
use umbel_core::message::{Message, Qos};

use super::world::{Said, V3, V5, World, hello, messages};
use crate::{broker::PublishRefused, packet::Packet};

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_with_all_identifiers() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe_with("a/#", Some(1), |options| options.qos = Qos::AtMostOnce);
    reader.subscribe_with("a/+", Some(2), |options| options.qos = Qos::AtLeastOnce);
    reader.subscribe_with("a/b", None, |options| options.qos = Qos::AtMostOnce);
    let mut other = world.connect(hello("other", V5)).await;
    other.subscribe("#", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a/b", "x", Qos::ExactlyOnce);
    let got = reader.messages();
    assert_eq!(got.len(), 1, "MQTT-3.3.4-2");
    assert_eq!(
        (got[0].qos, got[0].subscription_ids.clone()),
        (1, vec![1, 2])
    );
    assert!(other.messages()[0].subscription_ids.is_empty());
}

#[tokio::test]
async fn subscribing_again_replaces_options_and_identifier() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5)).await;
    client.subscribe_with("a", Some(1), |options| options.qos = Qos::AtMostOnce);
    client.subscribe_with("a", Some(7), |options| options.qos = Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    let got = client.messages();
    assert_eq!(
        (got.len(), got[0].qos, got[0].subscription_ids.clone()),
        (1, 1, vec![7])
    );
    assert_eq!(world.broker.totals().subscriptions, 1);
}

#[tokio::test]
async fn no_local_spares_a_client_its_own_messages() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5)).await;
    client.subscribe_with("a", None, |options| options.no_local = true);
    client.subscribe("b", Qos::AtMostOnce);
    let said = client.publish("a", "own", Qos::AtMostOnce);
    assert!(messages(said).is_empty(), "MQTT-3.8.3-3");
    assert_eq!(
        messages(client.publish("b", "own", Qos::AtMostOnce)).len(),
        1
    );
    let mut other = world.connect(hello("other", V5)).await;
    other.publish("a", "other's", Qos::AtMostOnce);
    assert_eq!(client.payloads(), ["other's"]);
}

#[tokio::test]
async fn what_a_publisher_says_travels_with_the_message() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    let mut old = world.connect(hello("old", V3)).await;
    reader.subscribe("a", Qos::AtMostOnce);
    old.subscribe("a", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    let publish = writer.message_with("a", "x", Qos::AtMostOnce, |said| {
        said.message.user = vec![
            ("k".to_owned(), "1".to_owned()),
            ("k".to_owned(), "2".to_owned()),
        ];
        said.message.response_topic = Some("r".to_owned());
        said.message.correlation_data = Some(Bytes::from_static(b"7"));
        said.message_expiry = Some(9);
    });
    writer.send(Packet::Publish(publish));
    world.clock.advance_seconds(3);
    let got = reader.messages().remove(0);
    let pairs: Vec<_> = got
        .user
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!((pairs, got.expiry), (vec![("k", "1"), ("k", "2")], Some(6)));
    assert_eq!(old.messages().len(), 1);
}

#[tokio::test]
async fn a_message_that_waits_longer_than_it_lives_is_dropped() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    let publish = writer.message_with("a", "x", Qos::AtLeastOnce, |said| {
        said.message_expiry = Some(1);
    });
    writer.send(Packet::Publish(publish));
    world.clock.advance_seconds(2);
    assert!(reader.hear().is_empty());
    assert_eq!(world.broker.totals().inflight, 0);
}

#[tokio::test]
async fn a_message_larger_than_the_client_takes_is_dropped_and_the_next_one_comes() {
    let world = World::new();
    let reader = hello("reader", V5)
        .persistent()
        .receive_maximum(1)
        .change(|connect| connect.maximum_packet_size = NonZeroU32::new(100));
    let mut reader = world.connect(reader).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", &"x".repeat(200), Qos::AtLeastOnce);
    writer.publish("a", "small", Qos::AtLeastOnce);
    assert_eq!(reader.payloads(), ["small"], "MQTT-3.1.2-25");
}

#[tokio::test]
async fn text_that_is_none_is_refused() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    let mut publish = writer.message_with("a", "", Qos::AtLeastOnce, |said| {
        said.message.payload_is_utf8 = Some(true);
    });
    publish.payload = Bytes::from_static(&[0xff, 0xfe]);
    assert_eq!(
        writer.send(Packet::Publish(publish)),
        [Said::PubAck(1, 0x99)]
    );
}

#[tokio::test]
async fn subscriptions_are_bounded_by_session_and_packet() {
    let world = World::with(|config| {
        config.subscriptions_max = 2;
        config.filters_per_packet_max = 1;
    });
    let mut client = world.connect(hello("client", V5)).await;
    for (filter, code) in [("a", 0), ("b", 0), ("c", 0x97), ("a", 0)] {
        let said = client.subscribe(filter, Qos::AtMostOnce);
        assert!(
            matches!(&said[..], [Said::SubAck(_, codes)] if *codes == [code]),
            "{filter}"
        );
    }
    let Packet::Subscribe(mut both) = client.subscribe_packet("a", None, |_| {}) else {
        return;
    };
    both.filters.push(both.filters[0].clone());
    assert!(client.try_send(Packet::Subscribe(both)).is_err());
}

#[tokio::test]
async fn filters_and_topics_beyond_the_limits_are_refused() {
    let world = World::with(|config| config.topics.levels_max = 3);
    let mut client = world.connect(hello("client", V5)).await;
    let said = client.subscribe("a/b/c/d", Qos::AtMostOnce);
    assert!(matches!(&said[..], [Said::SubAck(_, codes)] if *codes == [0x8f]));
    let said = client.publish("a/b/c/d", "x", Qos::AtLeastOnce);
    assert!(matches!(said[..], [Said::PubAck(_, 0x90)]));
}

#[tokio::test]
async fn a_message_from_outside_is_routed_like_a_clients() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let message = |topic: &str, retain| Message {
        retain,
        publisher: umbel_core::ids::ClientId::parse("http").ok(),
        ..Message::from_cluster(
            topic.to_owned(),
            Bytes::from_static(b"{}"),
            Qos::AtLeastOnce,
            umbel_core::time::Timestamp::default(),
        )
    };
    assert_eq!(
        world.broker.publish_external(message("a", false)).await,
        Ok(())
    );
    assert_eq!(reader.payloads(), ["{}"]);
    let shadow = "$aws/things/d1/shadow/update";
    assert_eq!(
        world.broker.publish_external(message(shadow, false)).await,
        Ok(())
    );
    assert_eq!(world.fleet.requests.lock().len(), 1);
    let refused = world.broker.publish_external(message(shadow, true)).await;
    assert_eq!(refused, Err(PublishRefused::Retain));
    assert!(matches!(
        world.broker.publish_external(message("a/+", false)).await,
        Err(PublishRefused::Topic(_))
    ));
}
