//! Clients that do not read, and sessions whose queues are full (F26, G9).

use umbel_core::message::Qos;

use super::world::{V3, V5, World, hello, messages};

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_more_than_its_bounds() {
    let world = World::with(|config| {
        config.queue_messages_max = 50;
        config.queue_bytes_max = 20_000;
    });
    let mut slow = world.connect(hello("slow", V5)).await;
    slow.subscribe("#", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for _ in 0..2_000 {
        writer.publish("a", "small", Qos::AtLeastOnce);
    }
    assert_eq!(world.broker.totals().queued, 50, "by messages");
    slow.messages();
    for _ in 0..2_000 {
        writer.publish("a", &"large".repeat(200), Qos::AtLeastOnce);
    }
    let queued = world.broker.totals().queued;
    assert!((10..20).contains(&queued), "by bytes: {queued}");
}

#[tokio::test]
async fn when_a_queue_is_full_qos_zero_goes_first_then_the_newest() {
    let world = World::with(|config| config.queue_messages_max = 4);
    let mut slow = world.connect(hello("slow", V3)).await;
    slow.subscribe("#", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for (payload, qos) in [
        ("0a", Qos::AtMostOnce),
        ("1a", Qos::AtLeastOnce),
        ("0b", Qos::AtMostOnce),
        ("1b", Qos::AtLeastOnce),
        ("1c", Qos::AtLeastOnce),
        ("0c", Qos::AtMostOnce),
        ("1d", Qos::AtLeastOnce),
        ("1e", Qos::AtLeastOnce),
    ] {
        writer.publish("a", payload, qos);
    }
    assert_eq!(slow.payloads(), ["1a", "1b", "1c", "1d"]);
}

#[tokio::test]
async fn a_durable_session_spills_to_storage_and_pages_back_in_order() {
    let world = World::with(|config| config.queue_messages_max = 8);
    let mut slow = world
        .connect(hello("slow", V5).persistent().receive_maximum(3))
        .await;
    slow.subscribe("#", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    for number in 0..100 {
        writer.publish("a", &number.to_string(), Qos::AtLeastOnce);
    }
    let mut heard = slow.messages();
    assert_eq!(heard.len(), 3);
    let mut done = 0;
    while done < heard.len() {
        if done == 40 {
            for number in 100..120 {
                writer.publish("a", &number.to_string(), Qos::AtLeastOnce);
            }
        }
        let more = messages(slow.puback(heard[done].id));
        heard.extend(more);
        done += 1;
    }
    let payloads: Vec<_> = heard.iter().map(|got| got.payload.clone()).collect();
    let expected: Vec<_> = (0..120).map(|number| number.to_string()).collect();
    assert_eq!(payloads, expected);
    world.broker.delete_now().await;
    assert_eq!(world.crash().broker.totals().queued, 0);
}

#[tokio::test]
async fn a_durable_queue_is_bounded_by_messages_and_bytes() {
    let world = World::with(|config| {
        config.stored_messages_max = 10;
        config.stored_bytes_max = 5_000;
    });
    let mut away = world.connect(hello("away", V3).persistent()).await;
    away.subscribe("#", Qos::AtLeastOnce);
    away.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    for number in 0..15 {
        let said = writer.publish("a", &number.to_string(), Qos::AtLeastOnce);
        assert_eq!(said.len(), 1);
    }
    let mut back = world.connect(hello("away", V3).persistent()).await;
    let got = back.messages();
    let payloads: Vec<_> = got.iter().map(|got| got.payload.clone()).collect();
    assert_eq!(
        payloads,
        (0..10).map(|number| number.to_string()).collect::<Vec<_>>()
    );
    for message in got {
        back.puback(message.id);
    }
    back.lose().await;
    for _ in 0..10 {
        writer.publish("a", &"x".repeat(1_000), Qos::AtLeastOnce);
    }
    assert_eq!(world.broker.totals().queued, 4, "by bytes");
}
