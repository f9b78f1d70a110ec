//! Messages between nodes.

use umbel_actors::ports::Outbox;
use umbel_core::{ids::ShardId, message::Qos};
use umbel_storage::Reach;

use super::{
    homes::{durable, publish, subscribe, take},
    net::{Net, SHARDS, a_while, eventually, message, payloads_of},
    world::{V5, hello, messages},
};
use crate::broker::PublishRefused;

const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

fn shard_of(key: &str) -> ShardId {
    ShardId::of(key, SHARDS)
}

#[tokio::test]
async fn a_message_reaches_a_clean_session_of_another_node_at_each_quality_of_service() {
    let net = Net::new(2).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    subscribe(&mut there, "a/+", Qos::ExactlyOnce).await;
    for qos in ALL {
        let done = net
            .broker(1)
            .publish_external(message("a/b", "x", qos))
            .await;
        assert_eq!(done, Ok(()));
        let got = take(&mut there, 1).await.remove(0);
        assert_eq!((got.payload.as_str(), got.qos), ("x", qos as u8));
    }
}

#[tokio::test]
async fn who_is_granted_a_subscription_gets_what_is_published_on_another_node_from_then_on() {
    let net = Net::new(3).await;
    for round in 0..20 {
        let filter = format!("round/{round}");
        let mut there = net.connect(2, hello(&format!("there{round}"), V5)).await;
        subscribe(&mut there, &filter, Qos::AtLeastOnce).await;
        let home = net.name_at(1 + round % 3, &format!("home{round}-"));
        let mut kept = net.connect(3, durable(&home)).await;
        subscribe(&mut kept, &filter, Qos::AtLeastOnce).await;
        let done = net
            .broker(1)
            .publish_external(message(&filter, "x", Qos::AtLeastOnce))
            .await;
        assert_eq!(done, Ok(()));
        assert_eq!(payloads_of(&mut there, 1).await, ["x"]);
        assert_eq!(payloads_of(&mut kept, 1).await, ["x"]);
    }
}

#[tokio::test]
async fn a_durable_session_gets_what_was_acknowledged_while_it_was_away() {
    let net = Net::new(3).await;
    let name = net.name_at(3, "sleeper");
    let mut sleeper = net.connect(2, durable(&name)).await;
    subscribe(&mut sleeper, "a/#", Qos::ExactlyOnce).await;
    sleeper.disconnect().await;
    for (number, qos) in ALL.into_iter().enumerate() {
        let payload = number.to_string();
        let done = net
            .broker(1)
            .publish_external(message("a", &payload, qos))
            .await;
        assert_eq!(done, Ok(()));
    }
    let mut sleeper = net.connect(1, durable(&name)).await;
    let got = take(&mut sleeper, 2).await;
    let payloads: Vec<_> = got.iter().map(|got| got.payload.as_str()).collect();
    assert_eq!(payloads, ["1", "2"]);
}

#[tokio::test]
async fn messages_of_one_publisher_keep_their_order_over_the_link() {
    let net = Net::new(2).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    subscribe(&mut there, "#", Qos::AtMostOnce).await;
    let mut sent = Vec::new();
    for number in 0..200 {
        let payload = format!("{number}");
        // not waited for
        let qos = ALL[number % 2];
        drop(net.broker(1).publish(message("a", &payload, qos).into()));
        sent.push(payload);
    }
    assert_eq!(payloads_of(&mut there, 200).await, sent);
}

#[tokio::test]
async fn what_nobody_elsewhere_wants_does_not_leave_the_node() {
    let net = Net::new(3).await;
    let mut here = net.connect(1, hello("here", V5)).await;
    subscribe(&mut here, "mine/#", Qos::AtLeastOnce).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    subscribe(&mut there, "yours/#", Qos::AtLeastOnce).await;
    let before = net.parcels();
    for number in 0..50 {
        let topic = format!("mine/{number}");
        let done = net
            .broker(1)
            .publish_external(message(&topic, "x", Qos::AtLeastOnce));
        assert_eq!(done.await, Ok(()));
    }
    assert_eq!(payloads_of(&mut here, 50).await.len(), 50);
    // reminders apart
    assert!(net.parcels() - before < 10, "{}", net.parcels() - before);
}

#[tokio::test]
async fn a_device_hears_its_own_topics_on_whatever_node_it_is() {
    let net = Net::new(3).await;
    // owner, gateway and publisher on one, two and three nodes
    for (owner, gateway) in [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1)] {
        for is_durable in [false, true] {
            let name = net.name_at(owner, &format!("device-{gateway}-{is_durable}-"));
            let connect = if is_durable {
                durable(&name)
            } else {
                hello(&name, V5)
            };
            let mut device = net.connect(gateway, connect).await;
            let filter = format!("$aws/things/{name}/shadow/update/delta");
            subscribe(&mut device, &filter, Qos::AtLeastOnce).await;
            for qos in ALL {
                let done = net
                    .broker(1)
                    .publish_external(message(&filter, "to you", qos))
                    .await;
                assert_eq!(done, Ok(()));
                let got = payloads_of(&mut device, 1).await;
                assert_eq!(got, ["to you"], "owner {owner}, gateway {gateway}");
            }
            let others = net.broker(1).routes_len() + net.broker(2).routes_len();
            assert_eq!(others, 0, "nobody else has to know");
        }
    }
}

#[tokio::test]
async fn what_a_device_says_of_itself_makes_no_way_by_its_owner() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "device");
    let mut device = net.connect(1, hello(&name, V5)).await;
    subscribe(
        &mut device,
        &format!("umbel/devices/{name}/#"),
        Qos::AtLeastOnce,
    )
    .await;
    let before = net.parcels();
    let mut heard = 0;
    for number in 0..50 {
        let topic = format!("umbel/devices/{name}/telemetry");
        let said = device.publish(&topic, &number.to_string(), Qos::AtMostOnce);
        heard += messages(said).len();
    }
    heard += device.messages().len();
    assert_eq!(heard, 50);
    assert!(net.parcels() - before < 10, "{}", net.parcels() - before);
}

#[tokio::test]
async fn what_an_owner_says_of_a_device_arrives_in_order() {
    let net = Net::new(2).await;
    let name = net.name_at(1, "device");
    let mut device = net.connect(2, hello(&name, V5)).await;
    let topic = format!("$aws/things/{name}/shadow/update/delta");
    subscribe(&mut device, &topic, Qos::AtMostOnce).await;
    let mut watcher = net.connect(2, hello("watcher", V5)).await;
    subscribe(&mut watcher, "$aws/things/+/shadow/#", Qos::AtMostOnce).await;
    let said: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    for payload in &said {
        drop(
            net.broker(1)
                .publish(message(&topic, payload, Qos::AtLeastOnce).into()),
        );
    }
    assert_eq!(payloads_of(&mut device, 100).await, said);
    assert_eq!(payloads_of(&mut watcher, 100).await, said);
}

#[tokio::test]
async fn a_device_that_matches_twice_at_home_gets_one_message() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "device");
    let mut device = net.connect(2, durable(&name)).await;
    let topic = format!("umbel/devices/{name}/x");
    subscribe(&mut device, &topic, Qos::AtLeastOnce).await;
    subscribe(&mut device, "umbel/devices/+/x", Qos::AtLeastOnce).await;
    for payload in ["1", "2"] {
        let done = net
            .broker(1)
            .publish_external(message(&topic, payload, Qos::AtLeastOnce));
        assert_eq!(done.await, Ok(()));
    }
    assert_eq!(payloads_of(&mut device, 2).await, ["1", "2"]);
}

#[tokio::test]
async fn what_was_missed_while_a_link_was_broken_is_told_when_it_is_back() {
    let net = Net::new(2).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    subscribe(&mut there, "old", Qos::AtLeastOnce).await;
    for reach in [Reach::Unreachable, Reach::Gone] {
        net.break_link(1, 2, reach);
        // granted: a node that is not there is not waited for
        subscribe(&mut there, &format!("{reach:?}"), Qos::AtLeastOnce).await;
        net.heal(1, 2);
        net.converged().await;
        for topic in ["old", &format!("{reach:?}")] {
            let done = net
                .broker(1)
                .publish_external(message(topic, topic, Qos::AtLeastOnce))
                .await;
            assert_eq!(done, Ok(()));
            assert_eq!(payloads_of(&mut there, 1).await, [topic]);
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_keeps_nobody_from_publishing() {
    let net = Net::new(3).await;
    let mut cut_off = net.connect(2, hello("cut off", V5)).await;
    subscribe(&mut cut_off, "a", Qos::AtLeastOnce).await;
    let mut there = net.connect(3, hello("there", V5)).await;
    subscribe(&mut there, "a", Qos::AtLeastOnce).await;
    net.break_link(1, 2, Reach::Unreachable);
    for qos in ALL {
        let done = net.broker(1).publish_external(message("a", "x", qos)).await;
        assert_eq!(done, Ok(()));
        assert_eq!(payloads_of(&mut there, 1).await, ["x"]);
    }
}

#[tokio::test]
async fn a_message_waits_for_the_next_owner_and_later_ones_wait_behind_it() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(3, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    let mut writer = net.connect(1, hello("writer", V5)).await;
    let shard = shard_of(&name);
    for site in &net.sites {
        site.nodes.set_owner(shard, None);
    }
    for payload in ["1", "2", "3"] {
        assert_eq!(writer.publish("a", payload, Qos::AtLeastOnce), []);
    }
    a_while().await;
    assert_eq!(writer.hear(), [], "not acknowledged before it is kept");
    net.move_shard(shard, 3);
    let mut acknowledged = Vec::new();
    eventually("the messages are acknowledged", || {
        acknowledged.extend(writer.hear());
        acknowledged.len() == 3
    })
    .await;
    let got = take(&mut reader, 3).await;
    let payloads: Vec<_> = got.iter().map(|got| got.payload.as_str()).collect();
    assert_eq!(payloads, ["1", "2", "3"]);
}

#[tokio::test]
async fn without_an_owner_a_publisher_is_told_in_time() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(2, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.site_of(1).nodes.set_owner(shard_of(&name), None);
    let before = tokio::time::Instant::now();
    let done = net
        .broker(1)
        .publish_external(message("a", "x", Qos::AtLeastOnce))
        .await;
    assert_eq!(done, Err(PublishRefused::Unavailable));
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
    let elsewhere = net
        .broker(1)
        .publish_external(message("b", "x", Qos::AtLeastOnce))
        .await;
    assert_eq!(elsewhere, Ok(()), "nobody there wants it");
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_delivered_once() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(2, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::ExactlyOnce).await;
    let mut writer = net.connect(1, hello("writer", V5)).await;
    // the message arrives, its answer does not
    net.ledger.hold();
    writer.publish("a", "once", Qos::ExactlyOnce);
    eventually("the message is proposed", || net.ledger.held() > 0).await;
    net.break_link(1, 2, Reach::Unreachable);
    net.ledger.release();
    net.heal(1, 2);
    let mut said = Vec::new();
    eventually("the message is received", || {
        said.extend(writer.hear());
        !said.is_empty()
    })
    .await;
    net.broker(1)
        .publish_external(message("a", "end", Qos::AtLeastOnce))
        .await
        .expect("published");
    let got = take(&mut reader, 2).await;
    let payloads: Vec<_> = got.iter().map(|got| got.payload.as_str()).collect();
    assert_eq!(payloads, ["once", "end"]);
}

#[tokio::test]
async fn a_client_that_connects_elsewhere_ends_its_older_connection() {
    let net = Net::new(3).await;
    let name = net.name_at(3, "wanderer");
    let mut older = net.connect(1, hello(&name, V5)).await;
    let _newer = net.connect(2, hello(&name, V5)).await;
    let mut end = None;
    eventually("the older connection ends", || {
        end = older.try_hear().err();
        end.is_some()
    })
    .await;
    let close = end.expect("it ended");
    assert_eq!(close.cause, crate::close::CloseCause::TakenOver);
}

#[tokio::test]
async fn events_that_only_another_node_watches_are_said() {
    let net = Net::new(2).await;
    let mut watcher = net.connect(2, hello("watcher", V5)).await;
    let mut said = messages(watcher.subscribe("$aws/events/subscriptions/#", Qos::AtMostOnce));
    eventually("its own subscription is said", || {
        said.extend(watcher.messages());
        !said.is_empty()
    })
    .await;
    net.converged().await;
    let mut client = net.connect(1, hello("client", V5)).await;
    subscribe(&mut client, "x", Qos::AtMostOnce).await;
    let got = take(&mut watcher, 1).await.remove(0);
    assert_eq!(got.topic, "$aws/events/subscriptions/subscribed/client");
}

#[tokio::test]
async fn a_publish_is_acknowledged_when_a_moving_home_has_it() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    let mut writer = net.connect(3, hello("writer", V5)).await;
    let mut sent = Vec::new();
    for number in 0..30 {
        if number % 10 == 5 {
            let to = 1 + (number / 10) % 3;
            net.move_shard(shard_of(&name), to);
        }
        let payload = number.to_string();
        publish(&mut writer, "a", &payload, Qos::AtLeastOnce).await;
        sent.push(payload);
    }
    let got = take(&mut reader, 30).await;
    let payloads: Vec<_> = got.into_iter().map(|got| got.payload).collect();
    assert_eq!(payloads, sent);
}

/// Prints what a publish that nobody wants costs on a node that is alone and on one of three: run with
/// `--run-ignored all --no-capture`.
#[tokio::test]
#[ignore = "prints a figure"]
#[expect(clippy::print_stdout, reason = "that is its purpose")]
async fn what_a_cluster_adds_to_a_publish_that_stays_here() {
    let world = super::world::World::new();
    let net = Net::new(3).await;
    for (what, broker) in [("alone", &world.broker), ("one of three", net.broker(1))] {
        for topic in ["a/b/c", "umbel/devices/d/telemetry"] {
            let began = std::time::Instant::now();
            let rounds = 50_000;
            for _ in 0..rounds {
                let done = broker.publish_external(message(topic, "x", Qos::AtMostOnce));
                assert_eq!(done.await, Ok(()));
            }
            println!("{what}, {topic}: {:?} each", began.elapsed() / rounds);
        }
    }
}
