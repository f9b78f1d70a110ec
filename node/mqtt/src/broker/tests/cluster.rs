//! Messages between nodes.

use umbel_core::message::Qos;

use super::{
    net::{Net, message, payloads_of},
    world::{V5, hello},
};

const ALL: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[tokio::test]
async fn a_message_reaches_a_clean_session_of_another_node_at_each_quality_of_service() {
    let net = Net::new(2).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    there.subscribe("a/+", Qos::ExactlyOnce);
    net.converged().await;
    for qos in ALL {
        let done = net
            .broker(1)
            .publish_external(message("a/b", "x", qos))
            .await;
        assert_eq!(done, Ok(()));
        let got = loop {
            if let Some(got) = there.messages().pop() {
                break got;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!((got.payload.as_str(), got.qos), ("x", qos as u8));
    }
}

#[tokio::test]
async fn messages_of_one_publisher_keep_their_order_over_the_link() {
    let net = Net::new(2).await;
    let mut there = net.connect(2, hello("there", V5)).await;
    there.subscribe("#", Qos::AtMostOnce);
    net.converged().await;
    let mut sent = Vec::new();
    for number in 0..200 {
        let payload = format!("{number}");
        drop(
            net.broker(1)
                .publish_external(message("a", &payload, ALL[number % 2]))
                .await,
        );
        sent.push(payload);
    }
    assert_eq!(payloads_of(&mut there, 200).await, sent);
}
