//! Shared subscriptions, in 3.1.1 as in 5.0.

use std::collections::BTreeSet;

use umbel_core::message::Qos;

use super::world::{V3, V5, World, hello};

#[tokio::test]
async fn each_message_reaches_one_member_and_all_members_get_some() {
    let world = World::new();
    let mut members = Vec::new();
    for (number, version) in [V3, V5, V3].into_iter().enumerate() {
        let mut member = world.connect(hello(&format!("m{number}"), version)).await;
        member.subscribe("$share/group/a/+", Qos::AtLeastOnce);
        members.push(member);
    }
    let mut outside = world.connect(hello("outside", V5)).await;
    outside.subscribe("a/#", Qos::AtMostOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for number in 0..60 {
        writer.publish("a/b", &number.to_string(), Qos::AtLeastOnce);
    }
    let shares: Vec<_> = members
        .iter_mut()
        .map(super::world::Client::payloads)
        .collect();
    assert!(shares.iter().all(|share| share.len() > 5), "{shares:?}");
    let all: BTreeSet<_> = shares.iter().flatten().collect();
    assert_eq!((all.len(), shares.iter().map(Vec::len).sum()), (60, 60));
    assert_eq!(outside.payloads().len(), 60);
}

#[tokio::test]
async fn a_connected_member_is_preferred_and_an_absent_durable_one_keeps_the_message() {
    let world = World::new();
    let mut durable = world.connect(hello("durable", V3).persistent()).await;
    durable.subscribe("$share/g/a", Qos::AtLeastOnce);
    durable.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    {
        let mut present = world.connect(hello("present", V5)).await;
        present.subscribe("$share/g/a", Qos::AtLeastOnce);
        for _ in 0..20 {
            writer.publish("a", "for those who are here", Qos::AtLeastOnce);
        }
        assert_eq!(present.messages().len(), 20);
        present.disconnect().await;
    }
    writer.publish("a", "kept", Qos::AtLeastOnce);
    writer.publish("a", "not kept", Qos::AtMostOnce);
    let mut durable = world
        .crash()
        .connect(hello("durable", V3).persistent())
        .await;
    assert_eq!(durable.payloads(), ["kept"]);
}

#[tokio::test]
async fn groups_and_own_subscriptions_do_not_mix() {
    let world = World::new();
    let mut one = world.connect(hello("one", V5)).await;
    one.subscribe_with("$share/g/a", Some(1), |_| {});
    one.subscribe_with("$share/h/a", Some(2), |_| {});
    one.subscribe_with("a", Some(3), |_| {});
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtMostOnce);
    let mut ids: Vec<_> = one
        .messages()
        .into_iter()
        .map(|got| got.subscription_ids)
        .collect();
    ids.sort();
    assert_eq!(ids, [vec![1], vec![2], vec![3]]);
    one.unsubscribe("$share/g/a");
    writer.publish("a", "x", Qos::AtMostOnce);
    assert_eq!(one.messages().len(), 2);
}

#[tokio::test]
async fn a_shared_subscription_without_own_messages_is_a_protocol_error() {
    let world = World::new();
    let mut one = world.connect(hello("one", V5)).await;
    let packet = one.subscribe_packet("$share/g/a", None, |options| options.no_local = true);
    let close = one.try_send(packet).expect_err("MQTT-3.8.3-4");
    assert_eq!(close.reason, crate::reason::ReasonCode::ProtocolError);
}
