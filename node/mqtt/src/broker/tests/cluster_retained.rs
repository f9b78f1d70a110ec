//! Retained messages whose topics belong to several nodes.

use umbel_actors::ports::Outbox;
use umbel_core::{ids::ShardId, message::Qos};

use super::{
    homes::{durable, subscribe},
    net::{Net, SHARDS, eventually, message, payloads_of},
    world::{V5, hello, messages},
};

const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

fn shard_of(key: &str) -> ShardId {
    ShardId::of(key, SHARDS)
}

fn retained(topic: &str, payload: &str) -> umbel_core::message::Message {
    umbel_core::message::Message {
        retain: true,
        ..message(topic, payload, Qos::AtLeastOnce)
    }
}

#[tokio::test]
async fn a_retained_message_is_found_from_every_node() {
    let net = Net::new(3).await;
    for number in 0..12 {
        let topic = format!("kept/{number:02}");
        let published = net
            .broker(1 + number % 3)
            .publish_external(retained(&topic, &format!("{number}")));
        assert_eq!(published.await, Ok(()));
    }
    for node in 1..=3 {
        let told = net.broker(node).retained_get("kept/07").await;
        assert_eq!(told.expect("readable").expect("there").payload, "7");
        let mut literal = net.connect(node, hello(&format!("l{node}"), V5)).await;
        let mut said = messages(literal.subscribe("kept/05", Qos::AtLeastOnce));
        eventually("the retained message comes", || {
            said.extend(literal.messages());
            !said.is_empty()
        })
        .await;
        let got = said.remove(0);
        assert_eq!((got.payload.as_str(), got.retain), ("5", true));
        let mut wildcard = net.connect(node, hello(&format!("w{node}"), V5)).await;
        let mut said = messages(wildcard.subscribe("kept/+", Qos::AtLeastOnce));
        eventually("all retained messages come", || {
            said.extend(wildcard.messages());
            said.len() >= 12
        })
        .await;
        let payloads = said
            .iter()
            .map(|got| got.payload.parse().expect("a number"));
        let mut numbers: Vec<u32> = payloads.collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }
    let name = net.name_at(2, "keeper");
    let mut kept = net.connect(1, durable(&name)).await;
    let mut said = messages(kept.subscribe("kept/#", Qos::AtLeastOnce));
    eventually("all retained messages come to the home", || {
        said.extend(kept.messages());
        said.len() >= 12
    })
    .await;
    assert_eq!(said.len(), 12);
}

#[tokio::test]
async fn retained_messages_of_all_nodes_are_listed_in_order_page_by_page() {
    let net = Net::new(3).await;
    for number in 0..10 {
        let topic = format!("t/{number}");
        let published = net.broker(1).publish_external(retained(&topic, "x"));
        assert_eq!(published.await, Ok(()));
    }
    let mut topics = Vec::new();
    let mut after = None;
    loop {
        let page = net.broker(2).retained_list(after.as_deref(), 3).await;
        let page = page.expect("readable");
        assert!(page.messages.len() <= 3);
        topics.extend(page.messages.into_iter().map(|message| message.topic));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let all: Vec<_> = (0..10).map(|number| format!("t/{number}")).collect();
    assert_eq!(topics, all);
}

#[tokio::test]
async fn an_empty_message_from_any_node_removes_what_was_kept() {
    let net = Net::new(3).await;
    for node in 1..=3 {
        let published = net.broker(node).publish_external(retained("a", "x"));
        assert_eq!(published.await, Ok(()));
        let published = net.broker(1 + node % 3).publish_external(retained("a", ""));
        assert_eq!(published.await, Ok(()));
        for reader in 1..=3 {
            let told = net.broker(reader).retained_get("a").await;
            assert_eq!(told, Ok(None));
        }
    }
}

#[tokio::test]
async fn retained_and_other_messages_of_a_topic_keep_their_order() {
    let net = Net::new(2).await;
    let topic = net.name_at(2, "topic");
    let mut there = net.connect(2, hello("there", V5)).await;
    subscribe(&mut there, &topic, Qos::AtMostOnce).await;
    let mut sent = Vec::new();
    for number in 0..60 {
        let payload = number.to_string();
        let mut said = message(&topic, &payload, ALL[number % 2]);
        said.retain = number % 3 == 0;
        drop(net.broker(1).publish(said.into()));
        sent.push(payload);
    }
    assert_eq!(payloads_of(&mut there, 60).await, sent);
    let told = net.broker(1).retained_get(&topic).await;
    assert_eq!(told.expect("readable").expect("there").payload, "57");
}

#[tokio::test]
async fn retained_messages_move_with_their_shard() {
    let net = Net::new(2).await;
    let topic = net.name_at(1, "topic");
    let published = net.broker(2).publish_external(retained(&topic, "x"));
    assert_eq!(published.await, Ok(()));
    net.move_shard(shard_of(&topic), 2);
    for node in 1..=2 {
        let told = net.broker(node).retained_get(&topic).await;
        assert_eq!(told.expect("readable").expect("there").payload, "x");
    }
    eventually("the node before forgets it", || {
        net.broker(1).totals().retained == 0 && net.broker(2).totals().retained == 1
    })
    .await;
    let published = net.broker(1).publish_external(retained(&topic, "y"));
    assert_eq!(published.await, Ok(()));
    let told = net.broker(1).retained_get(&topic).await;
    assert_eq!(told.expect("readable").expect("there").payload, "y");
}

/// What is kept after the retained messages were read for a new subscription, and routed by a node that has not heard of
/// the subscription yet, comes all the same.
#[tokio::test]
async fn what_is_kept_while_a_subscription_makes_its_way_is_missed_by_nobody() {
    for is_durable in [false, true] {
        let net = Net::new(3).await;
        let topic = net.name_at(3, "topic");
        let name = net.name_at(2, "reader");
        let hello = if is_durable {
            durable(&name)
        } else {
            hello(&name, V5)
        };
        let mut reader = net.connect(2, hello).await;
        net.hold(2, 1);
        assert_eq!(reader.subscribe(&topic, Qos::AtLeastOnce), []);
        // it may read what there is, and be told of it
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert_eq!(reader.hear(), []);
        }
        let kept = net.broker(1).publish_external(retained(&topic, "kept"));
        assert_eq!(kept.await, Ok(()));
        net.release(2, 1);
        let mut got = Vec::new();
        eventually("the message comes", || {
            got.extend(reader.payloads());
            !got.is_empty()
        })
        .await;
        assert_eq!(got, ["kept"]);
    }
}
