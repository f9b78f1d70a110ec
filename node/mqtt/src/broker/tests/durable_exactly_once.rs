//! QoS 2 over crashes and take-overs: one effect each.

use umbel_core::message::Qos;

use super::world::{Said, V5, World, hello};
use crate::packet::Packet;

#[tokio::test]
async fn a_released_message_goes_on_with_release_after_a_crash() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::ExactlyOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::ExactlyOnce);
    let id = reader.messages()[0].id;
    assert_eq!(reader.pubrec(id), [Said::PubRel(id, 0)]);
    let world = world.crash();
    let mut back = world.connect(hello("reader", V5).persistent()).await;
    assert_eq!(
        back.hear(),
        [Said::PubRel(id, 0)],
        "and not with the message"
    );
    assert!(back.pubcomp(id).is_empty());
    world.broker.delete_now().await;
    let mut back = world
        .crash()
        .connect(hello("reader", V5).persistent())
        .await;
    assert!(back.hear().is_empty());
}

#[tokio::test]
async fn a_release_is_said_only_when_the_row_says_so() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::ExactlyOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::ExactlyOnce);
    let id = reader.messages()[0].id;
    world.ledger.hold();
    assert!(reader.pubrec(id).is_empty());
    let mut other = world
        .crash()
        .connect(hello("reader", V5).persistent())
        .await;
    assert_eq!(
        other.messages()[0].payload,
        "x",
        "a crash now sends the message again"
    );
    world.ledger.release();
    world.settle().await;
    assert_eq!(reader.hear(), [Said::PubRel(id, 0)]);
}

#[tokio::test]
async fn a_received_exactly_once_message_has_no_second_effect_after_a_crash() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5).persistent()).await;
    let publish = writer.message("a", "x", Qos::ExactlyOnce);
    assert_eq!(
        writer.send(Packet::Publish(publish.clone())),
        [Said::PubRec(1, 0)]
    );
    let world = world.crash();
    let mut writer = world.connect(hello("writer", V5).persistent()).await;
    let mut again = publish.clone();
    again.dup = true;
    assert_eq!(writer.send(Packet::Publish(again)), [Said::PubRec(1, 0)]);
    assert_eq!(writer.pubrel(1), [Said::PubComp(1, 0)]);
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    assert_eq!(reader.messages().len(), 1);
    // after PUBCOMP and another crash, the identifier belongs to the next message
    let world = world.crash();
    let mut writer = world.connect(hello("writer", V5).persistent()).await;
    assert_eq!(writer.send(Packet::Publish(publish)), [Said::PubRec(1, 0)]);
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    assert_eq!(reader.messages().len(), 2);
}

#[tokio::test]
async fn completion_waits_until_the_identifier_is_free_in_storage() {
    let world = World::new();
    let mut writer = world.connect(hello("writer", V5).persistent()).await;
    writer.publish("a", "x", Qos::ExactlyOnce);
    world.ledger.hold();
    assert!(writer.pubrel(1).is_empty());
    world.ledger.release();
    world.settle().await;
    assert_eq!(writer.hear(), [Said::PubComp(1, 0)]);
}

#[tokio::test]
async fn a_take_over_while_an_exactly_once_message_commits_has_one_effect() {
    let world = World::new();
    let mut reader = world.connect(hello("reader", V5).persistent()).await;
    reader.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5).persistent()).await;
    let publish = writer.message("a", "x", Qos::ExactlyOnce);
    world.ledger.hold();
    assert!(writer.send(Packet::Publish(publish.clone())).is_empty());
    let mut newer = world.connect(hello("writer", V5).persistent()).await;
    assert!(
        newer.send(Packet::Publish(publish)).is_empty(),
        "waits for the same commit"
    );
    world.ledger.release();
    world.settle().await;
    assert_eq!(newer.hear(), [Said::PubRec(1, 0)]);
    assert_eq!(newer.pubrel(1), [Said::PubComp(1, 0)]);
    assert_eq!(reader.messages().len(), 1);
}
