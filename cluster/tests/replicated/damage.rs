//! Replicas whose disk is damaged (faults F14, F15).

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use umbel_storage::log::{GroupId, GroupLog, Meta};

use crate::world::{SHARD, World, until};

fn damage(world: &mut World, id: u64, vote: &'static [u8]) {
    let log = std::sync::Arc::clone(&world.disk(id).log);
    let done = Box::new(|outcome: Result<(), _>| outcome.expect("written"));
    let group = GroupId(u64::from(SHARD.0));
    log.set_meta(group, Meta::Vote, Bytes::from_static(vote), done);
}

fn quarantined(world: &World, id: u64) -> Option<String> {
    world.at(id).shards.status().first()?.quarantined.clone()
}

const NOT_A_VOTE: &[u8] = b"\x01\xff\xff\xff";
const OF_A_NEWER_RELEASE: &[u8] = b"\x77 whatever it means";

#[tokio::test(flavor = "multi_thread")]
async fn f14_a_damaged_replica_is_replaced_by_what_the_others_have() {
    let mut world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    let (owner, term) = world.served(SHARD).await;
    let hurt = owner % 3 + 1;
    world.has(hurt, SHARD, "a", "1").await;
    world.kill(hurt).await;
    damage(&mut world, hurt, NOT_A_VOTE);
    world.boot(hurt).await;
    world.put(SHARD, "b", "2").await;
    until("the replica is sound", || {
        quarantined(&world, hurt).is_none().then_some(())
    })
    .await;
    world.has(hurt, SHARD, "a", "1").await;
    world.has(hurt, SHARD, "b", "2").await;
    assert_eq!(world.server(SHARD), Some((owner, term)), "nobody noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn f15_what_only_damaged_replicas_have_is_not_thrown_away() {
    let mut world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    for id in 1..=3 {
        world.kill(id).await;
    }
    damage(&mut world, 1, NOT_A_VOTE);
    damage(&mut world, 2, NOT_A_VOTE);
    for id in 1..=3 {
        world.boot(id).await;
    }
    for id in [1, 2] {
        until("it waits for help", || quarantined(&world, id)).await;
    }
    // Several election timeouts, in which nobody may come to serve.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(world.server(SHARD), None, "no majority is whole");
    for id in [1, 2] {
        assert!(quarantined(&world, id).is_some(), "node {id} still waits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f27_what_a_newer_release_wrote_stops_the_replica_and_is_kept() {
    let mut world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    let (owner, _) = world.served(SHARD).await;
    let other = owner % 3 + 1;
    world.kill(other).await;
    damage(&mut world, other, OF_A_NEWER_RELEASE);
    world.boot(other).await;
    world.put(SHARD, "b", "2").await;
    until("it is stopped", || quarantined(&world, other)).await;
    // As long as a replacement by what the others have would take.
    sleep(Duration::from_secs(2)).await;
    let why = quarantined(&world, other).expect("it stays down");
    assert!(why.contains("format 119"), "{why}");
}
