//! Durable sessions while nodes die, links break and shards move.

use umbel_core::{ids::ShardId, message::Qos};
use umbel_storage::Reach;

use super::{
    homes::{durable, heard, payloads, publish, subscribe, take},
    net::{Net, SHARDS, eventually, message},
    world::{Got, Said, V5, hello},
};

#[tokio::test]
async fn a_home_that_dies_mid_stream_loses_nothing_and_repeats_nothing() {
    let mut net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name).receive_maximum(6)).await;
    subscribe(&mut reader, "a", Qos::ExactlyOnce).await;
    net.converged().await;
    let mut writer = net.connect(3, hello("writer", V5)).await;
    for number in 0..12 {
        let qos = [Qos::ExactlyOnce, Qos::AtLeastOnce][number % 2];
        publish(&mut writer, "a", &number.to_string(), qos).await;
    }
    // in every stage: received and not acknowledged, PUBREC sent, PUBREL sent, done
    let mut said = heard(&mut reader, 6).await;
    let first: Vec<_> = publishes(&said);
    said.extend(reader.pubrec(first[0].id));
    said.extend(reader.puback(first[1].id));
    eventually("the release comes", || {
        said.extend(reader.hear());
        said.contains(&Said::PubRel(first[0].id, 0))
    })
    .await;
    said.extend(reader.pubrec(first[2].id));
    net.kill(2, 3);
    for number in 12..16 {
        publish(&mut writer, "a", &number.to_string(), Qos::ExactlyOnce).await;
    }
    said.extend(reader.pubcomp(first[0].id));
    said.extend(reader.puback(first[3].id));
    let mut answered = 0;
    let answered_already: Vec<_> = first[..4].iter().map(|got| got.payload.clone()).collect();
    eventually("all comes to its end", || {
        said.extend(reader.hear());
        while let Some(next) = said.get(answered).cloned() {
            answered += 1;
            match next {
                Said::Publish(got) if answered_already.contains(&got.payload) => {},
                Said::Publish(got) if got.qos == 1 => said.extend(reader.puback(got.id)),
                Said::Publish(got) => said.extend(reader.pubrec(got.id)),
                Said::PubRel(id, 0) => said.extend(reader.pubcomp(id)),
                other => panic!("{other:?}"),
            }
        }
        publishes(&said).len() >= 16 && net.broker(3).totals().inflight == 0
    })
    .await;
    let got = publishes(&said);
    let mut numbers: Vec<u32> = got
        .iter()
        .map(|got| got.payload.parse().expect("a number"))
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    numbers.dedup();
    assert_eq!(numbers, (0..16).collect::<Vec<_>>());
    // what was in flight is not sent again on a connection that lives
    assert!(got.len() == 16 && got.iter().all(|got| !got.dup));
}

fn publishes(said: &[Said]) -> Vec<Got> {
    let publishes = said.iter().filter_map(|said| match said {
        Said::Publish(got) => Some(got.clone()),
        _ => None,
    });
    publishes.collect()
}

#[tokio::test]
async fn a_gateway_that_dies_leaves_the_rest_to_the_next_one() {
    let mut net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name).receive_maximum(4)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.converged().await;
    let mut writer = net.connect(3, hello("writer", V5)).await;
    for number in 0..8 {
        publish(&mut writer, "a", &number.to_string(), Qos::AtLeastOnce).await;
    }
    let mut got: Vec<Got> = Vec::new();
    eventually("four come", || {
        got.extend(reader.messages());
        got.len() == 4
    })
    .await;
    reader.puback(got[0].id);
    eventually("the home hears", || net.broker(2).totals().queued == 3).await;
    net.kill(1, 3);
    let _nobody_closes_it = reader;
    eventually("the home lets go", || net.broker(2).totals().offline == 1).await;
    publish(&mut writer, "a", "8", Qos::AtLeastOnce).await;
    let mut reader = net.connect(3, durable(&name)).await;
    let got = take(&mut reader, 8).await;
    assert_eq!(payloads(&got), ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert!(got[..3].iter().all(|got| got.dup) && got[4..].iter().all(|got| !got.dup));
}

#[tokio::test]
async fn a_link_that_breaks_and_heals_is_made_good() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::ExactlyOnce).await;
    net.converged().await;
    let mut writer = net.connect(3, hello("writer", V5)).await;
    publish(&mut writer, "a", "0", Qos::AtLeastOnce).await;
    assert_eq!(payloads(&take(&mut reader, 1).await), ["0"]);
    // lost on the way, and nobody hears of a break
    net.hold(2, 1);
    publish(&mut writer, "a", "1", Qos::ExactlyOnce).await;
    net.break_link(1, 2, Reach::Unreachable);
    publish(&mut writer, "a", "2", Qos::AtLeastOnce).await;
    net.release(2, 1);
    net.heal(1, 2);
    publish(&mut writer, "a", "3", Qos::ExactlyOnce).await;
    let got = take(&mut reader, 3).await;
    assert_eq!(payloads(&got), ["1", "2", "3"]);
}

#[tokio::test]
async fn a_shard_that_goes_and_comes_back_gives_out_no_number_twice() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "reader");
    let shard = ShardId::of(&name, SHARDS);
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    let mut sent = Vec::new();
    let mut got = Vec::new();
    for round in 0..6_u64 {
        net.move_shard(shard, round % 2 + 1);
        for number in 0..5 {
            let payload = format!("{round}.{number}");
            let done = net
                .broker(1)
                .publish_external(message("a", &payload, Qos::AtLeastOnce));
            assert_eq!(done.await, Ok(()));
            sent.push(payload);
        }
        got.extend(take(&mut reader, 5).await);
    }
    assert_eq!(payloads(&got), sent);
    assert!(got.iter().all(|got| !got.dup), "{got:?}");
}

#[tokio::test]
async fn subscriptions_and_sessions_survive_all_homes() {
    let mut net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.kill(2, 3);
    subscribe(&mut reader, "b", Qos::AtLeastOnce).await;
    net.converged().await;
    let view = net
        .broker(3)
        .subscriptions(&umbel_core::ids::ClientId::parse(&name).expect("valid"));
    assert_eq!(view.map(|view| view.len()), Some(2));
}
