//! Qualities of service, windows and the order of acknowledgements.

use std::sync::Arc;

use umbel_core::message::Qos;

use super::world::{Got, Said, V3, V5, World, ack, hello, messages, only};
use crate::{
    close::CloseCause,
    packet::{Ack, Packet},
    reason::ReasonCode,
};

#[tokio::test]
async fn a_message_is_delivered_with_the_lower_of_both_qualities() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    let mut writer = world.connect(hello("writer", V3)).await;
    for (filter, granted) in [
        ("zero", Qos::AtMostOnce),
        ("one", Qos::AtLeastOnce),
        ("two", Qos::ExactlyOnce),
    ] {
        assert!(
            matches!(only(&reader.subscribe(filter, granted)), Said::SubAck(_, codes) if *codes == [granted as u8])
        );
    }
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for topic in ["zero", "one", "two"] {
            writer.publish(topic, "x", qos);
        }
        let got: Vec<_> = reader.messages().iter().map(|got| got.qos).collect();
        let sent = qos as u8;
        assert_eq!(got, [0, sent.min(1), sent.min(2)]);
    }
}

#[tokio::test]
async fn a_publish_nobody_wants_is_acknowledged_in_the_same_turn_without_log_work() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5)).await;
    let proposals = world.ledger.proposals();
    assert_eq!(
        writer.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0x10)]
    );
    let mut old = world.connect(hello("old", V3)).await;
    assert_eq!(
        old.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0)]
    );
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    assert_eq!(
        writer.publish("a", "x", Qos::AtLeastOnce),
        [Said::PubAck(2, 0)]
    );
    assert_eq!(world.ledger.proposals(), proposals);
}

#[tokio::test]
async fn exactly_once_from_a_client_has_one_effect_whatever_is_repeated() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V3)).await;
    let publish = writer.message("a", "once", Qos::ExactlyOnce);
    assert_eq!(
        writer.send(Packet::Publish(publish.clone())),
        [Said::PubRec(1, 0)]
    );
    let mut again = publish.clone();
    again.dup = true;
    assert_eq!(writer.send(Packet::Publish(again)), [Said::PubRec(1, 0)]);
    assert_eq!(writer.pubrel(1), [Said::PubComp(1, 0)]);
    assert_eq!(writer.pubrel(1), [Said::PubComp(1, 0)]);
    assert_eq!(reader.payloads(), ["once"]);
    // the identifier is free again
    assert_eq!(writer.send(Packet::Publish(publish)), [Said::PubRec(1, 0)]);
    assert_eq!(reader.payloads(), ["once"]);
}

#[tokio::test]
async fn a_release_of_an_unknown_identifier_says_so_in_version_five() {
    let world = World::new();
    let mut five = world.connect(hello("five", V5)).await;
    assert_eq!(five.pubrel(9), [Said::PubComp(9, 0x92)]);
    assert_eq!(five.pubrec(9), [Said::PubRel(9, 0x92)]);
    assert!(five.puback(9).is_empty());
    assert!(five.pubcomp(9).is_empty());
}

#[tokio::test]
async fn exactly_once_to_a_client_goes_through_release_and_completion() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("a", Qos::ExactlyOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::ExactlyOnce);
    let id = reader.messages()[0].id;
    assert_eq!(reader.pubrec(id), [Said::PubRel(id, 0)]);
    assert_eq!(reader.pubrec(id), [Said::PubRel(id, 0)]);
    assert!(
        reader.puback(id).is_empty(),
        "the wrong acknowledgement changes nothing"
    );
    assert_eq!(world.broker.totals().inflight, 1);
    assert!(reader.pubcomp(id).is_empty());
    assert_eq!(world.broker.totals().inflight, 0);
}

#[tokio::test]
async fn a_message_the_client_refuses_on_receipt_is_done_with() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).receive_maximum(1)).await;
    reader.subscribe("a", Qos::ExactlyOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "1", Qos::ExactlyOnce);
    writer.publish("a", "2", Qos::ExactlyOnce);
    let first = reader.messages().remove(0);
    let no = Ack {
        reason: ReasonCode::QuotaExceeded,
        ..ack(first.id)
    };
    let said = reader.send(Packet::PubRec(no));
    assert_eq!(
        messages(said)[0].payload,
        "2",
        "no PUBREL, and the window is free"
    );
}

#[tokio::test]
async fn the_clients_receive_maximum_is_never_exceeded() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let world = World::new();
        let mut reader = world.connect(hello("reader", V5).receive_maximum(3)).await;
        reader.subscribe("a", qos);
        let mut writer = world.connect(hello("writer", V5)).await;
        for number in 0..20 {
            writer.publish("a", &number.to_string(), qos);
            writer.pubrel(number + 1);
        }
        let mut held: Vec<Got> = reader.messages();
        let mut heard: Vec<String> = held.iter().map(|got| got.payload.clone()).collect();
        while !held.is_empty() {
            assert!(held.len() <= 3);
            assert!(reader.hear().is_empty());
            let id = held.remove(0).id;
            let said = if qos == Qos::AtLeastOnce {
                reader.puback(id)
            } else {
                let said = reader.pubrec(id);
                assert_eq!(
                    said,
                    [Said::PubRel(id, 0)],
                    "PUBREC does not open the window"
                );
                reader.pubcomp(id)
            };
            let more = messages(said);
            heard.extend(more.iter().map(|got| got.payload.clone()));
            held.extend(more);
        }
        let expected: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        assert_eq!(heard, expected);
    }
}

#[tokio::test]
async fn more_unacknowledged_messages_than_the_server_takes_end_the_connection() {
    let world = World::with(|config| config.receive_maximum = 2);
    let mut writer = world.connect(hello("writer", V5)).await;
    assert_eq!(
        writer.answer.receive_maximum.map(std::num::NonZero::get),
        Some(2)
    );
    writer.publish("a", "1", Qos::ExactlyOnce);
    writer.publish("a", "2", Qos::ExactlyOnce);
    writer.publish("a", "2", Qos::AtMostOnce);
    let third = writer.message("a", "3", Qos::AtLeastOnce);
    let close = writer.try_send(Packet::Publish(third)).expect_err("closes");
    assert_eq!(
        (close.reason, close.cause),
        (
            ReasonCode::ReceiveMaximumExceeded,
            CloseCause::ReceiveMaximumExceeded
        )
    );
}

#[tokio::test]
async fn completed_messages_make_room_in_the_servers_receive_maximum() {
    let world = World::with(|config| config.receive_maximum = 1);
    let mut writer = world.connect(hello("writer", V5)).await;
    for round in 0..5 {
        let id = round * 2 + 1;
        assert_eq!(
            writer.publish("a", "x", Qos::ExactlyOnce),
            [Said::PubRec(id, 0x10)]
        );
        assert_eq!(writer.pubrel(id), [Said::PubComp(id, 0)]);
        assert_eq!(
            writer.publish("a", "x", Qos::AtLeastOnce),
            [Said::PubAck(id + 1, 0x10)]
        );
    }
}

#[tokio::test]
async fn acknowledgements_leave_in_the_order_of_the_messages() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::with_gate(&gate);
    let mut device = world.connect(hello("d1", V5)).await;
    let update = "$aws/things/d1/shadow/update";
    assert!(device.publish(update, "{}", Qos::AtLeastOnce).is_empty());
    assert!(
        device.publish("a", "x", Qos::AtLeastOnce).is_empty(),
        "quick, and behind a slow one"
    );
    assert!(device.publish(update, "{}", Qos::AtLeastOnce).is_empty());
    assert!(device.subscribe("b", Qos::AtLeastOnce).is_empty());
    gate.add_permits(1);
    world.settle().await;
    assert_eq!(device.hear(), [Said::PubAck(1, 0), Said::PubAck(2, 0x10)]);
    gate.add_permits(1);
    world.settle().await;
    assert_eq!(
        device.hear(),
        [Said::PubAck(3, 0), Said::SubAck(4, vec![1])]
    );
    let verbs: Vec<_> = world
        .fleet
        .requests
        .lock()
        .iter()
        .map(|request| request.verb)
        .collect();
    assert_eq!(verbs.len(), 2);
}

#[tokio::test]
async fn a_connection_with_much_to_acknowledge_is_not_read() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::with_gate(&gate);
    let mut device = world.connect(hello("d1", V3)).await;
    for _ in 0..200 {
        assert!(
            device
                .session
                .as_ref()
                .is_some_and(crate::session::Session::wants_input)
        );
        device.publish("$aws/things/d1/shadow/update", "{}", Qos::AtLeastOnce);
    }
    assert!(
        !device
            .session
            .as_ref()
            .is_some_and(crate::session::Session::wants_input)
    );
    gate.add_permits(200);
    world.settle().await;
    assert_eq!(device.hear().len(), 200);
    assert!(
        device
            .session
            .as_ref()
            .is_some_and(crate::session::Session::wants_input)
    );
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V3)).await;
    reader.subscribe("#", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V3)).await;
    let mut sent = Vec::new();
    for number in 0..100 {
        let qos = if number % 2 == 0 {
            Qos::AtLeastOnce
        } else {
            Qos::AtMostOnce
        };
        writer.publish(&format!("t/{}", number % 7), &number.to_string(), qos);
        sent.push(number.to_string());
    }
    let mut heard = Vec::new();
    loop {
        let got = reader.messages();
        if got.is_empty() {
            break;
        }
        for message in got {
            heard.push(message.payload);
            if message.id > 0 {
                heard.extend(
                    messages(reader.puback(message.id))
                        .into_iter()
                        .map(|got| got.payload),
                );
            }
        }
    }
    assert_eq!(heard, sent);
}

#[tokio::test]
async fn an_alias_stands_for_the_topic_it_was_given_with() {
    let world = World::with(|config| config.topic_alias_max = 2);
    let mut reader = world.connect(hello("reader", V5)).await;
    reader.subscribe("#", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    assert_eq!(writer.answer.topic_alias_maximum, 2);
    let alias = |number| std::num::NonZeroU16::new(number);
    for (topic, number) in [
        ("first", 1),
        ("second", 2),
        ("", 1),
        ("third", 1),
        ("", 1),
        ("", 2),
    ] {
        let publish = writer.message_with(topic, "x", Qos::AtMostOnce, |said| {
            said.topic_alias = alias(number);
        });
        writer.send(Packet::Publish(publish));
    }
    let topics: Vec<_> = reader.messages().into_iter().map(|got| got.topic).collect();
    assert_eq!(
        topics,
        ["first", "second", "first", "third", "third", "second"]
    );
}

#[tokio::test]
async fn an_alias_above_the_maximum_or_unknown_ends_the_connection() {
    let world = World::with(|config| config.topic_alias_max = 2);
    for (topic, number, reason) in [
        ("a", 3, ReasonCode::TopicAliasInvalid),
        ("", 3, ReasonCode::TopicAliasInvalid),
        ("", 2, ReasonCode::ProtocolError),
    ] {
        let mut writer = world.connect(hello("writer", V5)).await;
        let publish = writer.message_with(topic, "x", Qos::AtMostOnce, |said| {
            said.topic_alias = std::num::NonZeroU16::new(number);
        });
        let close = writer
            .try_send(Packet::Publish(publish))
            .expect_err("closes");
        assert_eq!(close.reason, reason, "{topic} {number}");
    }
}

#[tokio::test]
async fn the_server_uses_aliases_up_to_what_the_client_takes() {
    let world = World::new();
    let reader = hello("reader", V5).change(|connect| connect.topic_alias_maximum = 1);
    let mut reader = world.connect(reader).await;
    reader.subscribe("#", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for topic in ["long/one", "long/one", "long/two", "long/one"] {
        writer.publish(topic, "x", Qos::AtMostOnce);
    }
    let named: Vec<_> = reader
        .messages()
        .into_iter()
        .map(|got| (got.topic, got.alias))
        .collect();
    let named: Vec<_> = named
        .iter()
        .map(|(topic, alias)| (topic.as_str(), *alias))
        .collect();
    assert_eq!(
        named,
        [
            ("long/one", Some(1)),
            ("", Some(1)),
            ("long/two", None),
            ("", Some(1))
        ]
    );
}

#[tokio::test]
async fn a_quality_above_the_maximum_ends_the_connection() {
    let world = World::with(|config| config.maximum_qos = Qos::AtLeastOnce);
    let mut client = world.connect(hello("client", V5)).await;
    assert_eq!(client.answer.maximum_qos, Qos::AtLeastOnce);
    assert_eq!(
        client.subscribe("a", Qos::ExactlyOnce),
        [Said::SubAck(1, vec![1])]
    );
    let publish = client.message("a", "x", Qos::ExactlyOnce);
    let close = client
        .try_send(Packet::Publish(publish))
        .expect_err("closes");
    assert_eq!(close.reason, ReasonCode::QosNotSupported);
}

#[tokio::test]
async fn what_only_a_server_says_ends_the_connection() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5)).await;
    let close = client.try_send(Packet::PingResp).expect_err("closes");
    assert_eq!(close.reason, ReasonCode::ProtocolError);
    let mut client = world.connect(hello("client", V5)).await;
    assert_eq!(client.send(Packet::PingReq), [Said::Pong]);
}
