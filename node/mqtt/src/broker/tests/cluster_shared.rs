//! Shared groups with members on several nodes.

use umbel_core::message::Qos;
use umbel_storage::Reach;

use super::{
    homes::{durable, subscribe, take},
    net::{Net, eventually, message, payloads_of},
    world::{V5, hello},
};

const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// Publishes from a node and says what became of it.
async fn done(net: &Net, node: u64, topic: &str, payload: &str, qos: Qos) {
    let published = net
        .broker(node)
        .publish_external(message(topic, payload, qos));
    assert_eq!(published.await, Ok(()));
}

#[tokio::test]
async fn one_member_of_a_group_in_the_whole_cluster_gets_each_message() {
    let net = Net::new(3).await;
    let mut members = Vec::new();
    for node in 1..=3 {
        let mut member = net.connect(node, hello(&format!("m{node}"), V5)).await;
        subscribe(&mut member, "$share/g/a", Qos::AtLeastOnce).await;
        members.push(member);
    }
    net.converged().await;
    for (number, qos) in ALL.into_iter().enumerate() {
        for node in 1..=3 {
            done(&net, node, "a", &format!("{number}-{node}"), qos).await;
        }
    }
    let mut got = Vec::new();
    eventually("each message comes", || {
        for (number, member) in members.iter_mut().enumerate() {
            got.extend(
                member
                    .payloads()
                    .into_iter()
                    .map(|payload| (payload, number)),
            );
        }
        got.len() >= 9
    })
    .await;
    // whoever is on the publisher's node comes first
    assert_eq!(got.len(), 9);
    for (payload, member) in got {
        let node: usize = payload[2..].parse().expect("a node");
        assert_eq!(node, member + 1, "{payload}");
    }
}

#[tokio::test]
async fn members_on_other_nodes_take_turns() {
    let net = Net::new(3).await;
    let mut two = net.connect(2, hello("two", V5)).await;
    let mut three = net.connect(3, hello("three", V5)).await;
    subscribe(&mut two, "$share/g/a", Qos::AtLeastOnce).await;
    subscribe(&mut three, "$share/g/a", Qos::AtLeastOnce).await;
    net.converged().await;
    for number in 0..20 {
        done(&net, 1, "a", &number.to_string(), ALL[number % 3]).await;
    }
    let (mut first, mut second) = (0, 0);
    eventually("each message comes", || {
        first += two.payloads().len();
        second += three.payloads().len();
        first + second >= 20
    })
    .await;
    assert_eq!(first + second, 20);
    assert!(first >= 5 && second >= 5, "{first} and {second}");
}

#[tokio::test]
async fn an_absent_member_takes_a_message_only_if_nobody_is_connected() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "absent");
    let mut absent = net.connect(2, durable(&name)).await;
    subscribe(&mut absent, "$share/g/a", Qos::AtLeastOnce).await;
    absent.disconnect().await;
    let mut present = net.connect(3, hello("present", V5)).await;
    subscribe(&mut present, "$share/g/a", Qos::AtLeastOnce).await;
    net.converged().await;
    for number in 0..6 {
        done(&net, 1, "a", &number.to_string(), Qos::AtLeastOnce).await;
    }
    assert_eq!(payloads_of(&mut present, 6).await.len(), 6);
    present.disconnect().await;
    net.converged().await;
    for number in 6..9 {
        done(
            &net,
            1 + number % 3,
            "a",
            &number.to_string(),
            Qos::AtLeastOnce,
        )
        .await;
    }
    let mut absent = net.connect(1, durable(&name)).await;
    let got = take(&mut absent, 3).await;
    let payloads: Vec<_> = got.iter().map(|got| got.payload.as_str()).collect();
    assert_eq!(payloads, ["6", "7", "8"]);
    // it is connected now, and that is known
    net.converged().await;
    done(&net, 3, "a", "9", Qos::AtMostOnce).await;
    assert_eq!(payloads_of(&mut absent, 1).await, ["9"]);
}

#[tokio::test]
async fn a_group_whose_node_is_gone_falls_through_to_the_next() {
    let net = Net::new(3).await;
    let mut two = net.connect(2, hello("two", V5)).await;
    let mut three = net.connect(3, hello("three", V5)).await;
    subscribe(&mut two, "$share/g/a", Qos::AtLeastOnce).await;
    subscribe(&mut three, "$share/g/a", Qos::AtLeastOnce).await;
    net.break_link(1, 2, Reach::Unreachable);
    for number in 0..12 {
        done(&net, 1, "a", &number.to_string(), ALL[number % 3]).await;
    }
    assert_eq!(payloads_of(&mut three, 12).await.len(), 12);
}
