//! The shell, on real sockets.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::UdpSocket, time::timeout};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::super::*;

async fn start(node: u64, seeds: Vec<String>) -> Gossip {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Gossip::start(GossipConfig {
        me: Identity {
            node: NodeId(node),
            boot: Boot(1),
            renewals: 0,
            link: any,
            gossip: any,
            roles: 1,
            zone: "a".to_owned(),
            version: [0, 1, 0],
        },
        bind: any,
        seeds,
        keys: Keys::new(
            Key {
                id: 1,
                secret: [3; SECRET_BYTES],
            },
            Vec::new(),
        ),
        cluster_id: "c".to_owned(),
        settings: Settings::default(),
    })
    .await
    .unwrap()
}

async fn until(gossip: &Gossip, state: impl Fn(&[Member]) -> bool) {
    let mut members = gossip.members();
    let seen = members.wait_for(|members| state(members));
    timeout(Duration::from_secs(30), seen)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn three_sockets_find_one_another_by_name_and_notice_a_farewell() {
    let one = start(1, Vec::new()).await;
    let seed = format!("localhost:{}", one.local_addr().port());
    let two = start(2, vec![seed.clone()]).await;
    let three = start(3, vec![seed, "not-a-name.invalid:1".to_owned()]).await;
    for gossip in [&one, &two, &three] {
        until(gossip, |m| m.len() == 2 && m.iter().all(|m| m.alive)).await;
    }
    three.shutdown().await;
    for gossip in [&one, &two] {
        until(gossip, |m| m.iter().any(|m| m.node.0 == 3 && !m.alive)).await;
    }
    // A key that nobody else has cuts a node off; the right one brings it back.
    let key = |id, byte| Key {
        id,
        secret: [byte; SECRET_BYTES],
    };
    two.set_keys(Keys::new(key(2, 9), Vec::new())).await;
    until(&one, |m| m.iter().all(|m| !m.alive)).await;
    one.set_keys(Keys::new(key(1, 3), vec![key(2, 9)])).await;
    two.set_keys(Keys::new(key(2, 9), vec![key(1, 3)])).await;
    until(&one, |m| m.iter().any(|m| m.node.0 == 2 && m.alive)).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in [0, 1, 60, 3000] {
        let packet = vec![1; length];
        stranger.send_to(&packet, one.local_addr()).await.unwrap();
    }
    until(&one, |m| m.iter().any(|m| m.node.0 == 2 && m.alive)).await;
}
