//! Partitions, in all their shapes, and what an owner may say in them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use umbel_storage::{Ledger, Refusal, Table, Write};

use crate::world::{SHARD, World, node, until, within};

/// Two election timeouts of the default settings, and what a busy machine adds.
const TWO_ELECTIONS: Duration = Duration::from_millis(1800 + 300);

fn put(key: &str) -> Vec<Write> {
    vec![Write::put(Table::Device, key, b"late".to_vec())]
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_an_owner_in_a_minority_refuses_in_time_and_the_rest_goes_on() {
    let world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    let (owner, term) = world.served(SHARD).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != owner).collect();
    world
        .net
        .partition(&[&[node(owner)], &[node(others[0]), node(others[1])]]);
    let begun = Instant::now();
    // Under way when the net breaks: may have happened, and is answered.
    let pending = world.at(owner).shards.propose(SHARD, term, put("x"));
    let outcome = within("the pending write is answered", pending).await;
    assert_eq!(outcome, Err(Refusal::Unknown));
    assert!(
        begun.elapsed() < TWO_ELECTIONS,
        "took {:?}",
        begun.elapsed()
    );
    let refused = world.at(owner).shards.propose(SHARD, term, put("y")).await;
    assert_eq!(refused, Err(Refusal::NotOwner));
    assert_eq!(world.at(owner).shards.term(SHARD), None);

    let (next, later) = world.served(SHARD).await;
    assert!(others.contains(&next) && later > term);
    world.put(SHARD, "a", "2").await;
    world.net.heal();
    world.has(owner, SHARD, "a", "2").await;
    assert_eq!(
        world.get(owner, SHARD, "y"),
        None,
        "what was refused never happens"
    );
    assert_eq!(
        world.server(SHARD),
        Some((next, later)),
        "who comes back disturbs nobody"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_without_any_majority_nobody_serves_and_healing_needs_no_help() {
    let world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    world.net.partition(&[&[node(1)], &[node(2)], &[node(3)]]);
    until("nobody serves", || {
        world.server(SHARD).is_none().then_some(())
    })
    .await;
    // Several election timeouts, in which nobody may come to serve.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.server(SHARD), None);
    world.net.heal();
    world.put(SHARD, "a", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_node_that_cannot_send_disturbs_nobody() {
    let world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    let mute = (1..=3).find(|id| *id != owner).expect("a follower");
    for other in (1..=3).filter(|id| *id != mute) {
        world.net.cut(node(mute), node(other));
    }
    // Several election timeouts, in which nothing may change.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.server(SHARD), Some((owner, term)));
    world.put(SHARD, "a", "1").await;
    world.net.heal();
    world.has(mute, SHARD, "a", "1").await;
    assert_eq!(world.server(SHARD), Some((owner, term)), "no election");
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_a_node_that_cannot_hear_disturbs_nobody() {
    let world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    let deaf = (1..=3).find(|id| *id != owner).expect("a follower");
    for other in (1..=3).filter(|id| *id != deaf) {
        world.net.cut(node(other), node(deaf));
    }
    // Several election timeouts, in which nothing may change.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.server(SHARD), Some((owner, term)));
    world.net.heal();
    world.put(SHARD, "a", "1").await;
    world.has(deaf, SHARD, "a", "1").await;
    assert_eq!(world.server(SHARD), Some((owner, term)), "no election");
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_an_owner_that_cannot_hear_steps_down() {
    let world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    for other in (1..=3).filter(|id| *id != owner) {
        world.net.cut(node(other), node(owner));
    }
    let (next, later) = until("another serves", || {
        world.server(SHARD).filter(|(id, _)| *id != owner)
    })
    .await;
    assert!(later > term);
    world.put(SHARD, "a", "1").await;
    world.net.heal();
    world.has(owner, SHARD, "a", "1").await;
    assert_eq!(world.server(SHARD), Some((next, later)), "one election");
}

#[tokio::test(flavor = "multi_thread")]
async fn f10_an_owner_that_cannot_send_is_replaced() {
    let world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    for other in (1..=3).filter(|id| *id != owner) {
        world.net.cut(node(owner), node(other));
    }
    let (_, later) = until("another serves", || {
        world.server(SHARD).filter(|(id, _)| *id != owner)
    })
    .await;
    assert!(later > term);
    world.put(SHARD, "a", "1").await;
    world.net.heal();
    world.has(owner, SHARD, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_without_a_majority_nothing_is_served_and_afterwards_all_is_there() {
    let mut world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    let (owner, _) = world.served(SHARD).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != owner).collect();
    for id in &others {
        world.kill(*id).await;
    }
    let begun = Instant::now();
    until("the owner is none", || {
        world.server(SHARD).is_none().then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < TWO_ELECTIONS,
        "took {:?}",
        begun.elapsed()
    );
    world.kill(owner).await;
    for id in others {
        world.boot(id).await;
    }
    let (next, _) = world.served(SHARD).await;
    assert_eq!(world.get(next, SHARD, "a").as_deref(), Some("1"));
    world.boot(owner).await;
    world.put(SHARD, "a", "2").await;
    world.has(owner, SHARD, "a", "2").await;
}
