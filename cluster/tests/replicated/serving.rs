//! What replicas are for: what was acknowledged stays, whoever dies.

use std::time::Duration;

use tokio::time::Instant;
use umbel_cluster::Config;
use umbel_storage::{Ledger, Table, Write};

use crate::world::{SHARD, World, node, set, until};

#[tokio::test(flavor = "multi_thread")]
async fn g1_an_acknowledged_write_is_on_every_replica() {
    let world = World::of(3, 2).await;
    world.put(SHARD, "a", "1").await;
    for id in [1, 2, 3] {
        world.has(id, SHARD, "a", "1").await;
    }
    let members = world.at(1).shards.members(SHARD).expect("members");
    assert_eq!(members.voters, set(&[1, 2, 3]));
    assert!(!members.joint && members.learners.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_what_a_killed_owner_acknowledged_is_with_the_next() {
    let mut world = World::of(3, 1).await;
    for round in 0..3 {
        let (owner, term) = world.served(SHARD).await;
        world.put(SHARD, "a", &round.to_string()).await;
        world.kill(owner).await;
        let begun = Instant::now();
        let (next, later) = world.served(SHARD).await;
        println!("failover took {:?}", begun.elapsed());
        assert!(later > term, "terms rise");
        assert_ne!(next, owner);
        assert_eq!(
            world.get(next, SHARD, "a"),
            Some(round.to_string()),
            "an owner has what was acknowledged before it"
        );
        world.boot(owner).await;
        world.has(owner, SHARD, "a", &round.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f11_what_is_written_is_acknowledged_though_answers_take_longer_than_a_heartbeat() {
    let world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    let beat = Config::new(node(1), 1).heartbeat;
    world.net.set_delay(beat * 2 / 3);
    for count in 1..=5 {
        world.put(SHARD, "slow", &count.to_string()).await;
    }
    assert_eq!(world.server(SHARD), Some((owner, term)), "no election");
    world.net.set_delay(Duration::ZERO);
    for id in [1, 2, 3] {
        world.has(id, SHARD, "slow", "5").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_a_killed_follower_is_no_reason_for_errors_or_elections() {
    let mut world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    let follower = (1..=3).find(|id| *id != owner).expect("a follower");
    world.kill(follower).await;
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_millis(2500) {
        count += 1;
        let writes = vec![Write::put(Table::Device, "k", count.to_string().into())];
        let receipt = world.at(owner).shards.propose(SHARD, term, writes);
        assert_eq!(receipt.await, Ok(()), "write {count}");
    }
    assert_eq!(world.server(SHARD), Some((owner, term)), "no election");
    world.boot(follower).await;
    world.has(follower, SHARD, "k", &count.to_string()).await;
    assert_eq!(world.server(SHARD), Some((owner, term)), "no election");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_which_every_node_was_stopped_goes_on_where_it_was() {
    let mut world = World::of(3, 2).await;
    world.put(SHARD, "a", "1").await;
    for id in [1, 2, 3] {
        world.kill(id).await;
    }
    for id in [3, 1, 2] {
        world.boot(id).await;
    }
    let (owner, _) = world.served(SHARD).await;
    assert_eq!(world.get(owner, SHARD, "a").as_deref(), Some("1"));
    let members = world.at(owner).shards.members(SHARD).expect("members");
    assert_eq!(members.voters, set(&[1, 2, 3]));
    until("everybody knows the owner", || {
        let known = |id| Some(world.at(id).shards.leader(SHARD)?.0 == owner);
        (known(1)? && known(2)? && known(3)?).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f12_an_owner_whose_disk_is_full_leaves_its_shards_to_who_has_room() {
    let mut world = World::of(3, 2).await;
    world.put(SHARD, "a", "1").await;
    let (owner, _) = world.served(SHARD).await;
    let log = std::sync::Arc::clone(&world.disk(owner).log);
    log.set_full(true);
    until("another owns the shard", || {
        world.server(SHARD).filter(|(id, _)| *id != owner)
    })
    .await;
    world.put(SHARD, "a", "2").await;
    log.set_full(false);
    world.has(owner, SHARD, "a", "2").await;
}
