//! Disks that go back in time, or are wiped (fault F16).

use std::time::Duration;

use tokio::time::sleep;
use umbel_storage::Ledger;

use crate::world::{Disk, SHARD, World, node, set, until};

/// A follower is stopped, its disk replaced by `older`, and started while the other follower is away; then only the
/// owner is taken away: the follower must not make an owner of itself, or of one that knows less.
#[expect(
    clippy::cognitive_complexity,
    reason = "one story, told from its beginning to its end"
)]
async fn a_follower_comes_back_with(older: impl FnOnce(&mut World, u64) -> Disk, wiped: bool) {
    let mut world = World::of(3, 1).await;
    world.put(SHARD, "a", "old").await;
    let (owner, _) = world.served(SHARD).await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != owner).collect();
    let (back, away) = (others[0], others[1]);
    world.has(back, SHARD, "a", "old").await;
    world.has(away, SHARD, "a", "old").await;
    let disk = older(&mut world, back);

    // A later life, which the others meet.
    world.kill(back).await;
    world.boot(back).await;
    world.put(SHARD, "a", "newer").await;
    world.has(back, SHARD, "a", "newer").await;
    sleep(Duration::from_millis(500)).await;
    // Acknowledged by the owner and the one that will forget it.
    world.kill(away).await;
    world.put(SHARD, "a", "acknowledged").await;
    let (owner, _) = world.served(SHARD).await;
    world.kill(back).await;
    *world.disk(back) = disk;
    world
        .net
        .partition(&[&[node(owner)], &[node(back), node(away)]]);
    world.boot(back).await;
    if wiped {
        world.at(back).shards.host(SHARD).await.expect("hosted");
    }
    world.boot(away).await;
    for _ in 0..40 {
        sleep(Duration::from_millis(50)).await;
        for id in [back, away] {
            assert_eq!(
                world.at(id).shards.term(SHARD),
                None,
                "G1: a majority that forgot an acknowledged write must not serve"
            );
        }
    }
    world.net.heal();
    world.put(SHARD, "b", "after").await;
    world.has(back, SHARD, "b", "after").await;
    let (owner, _) = world.served(SHARD).await;
    assert_eq!(
        world.get(owner, SHARD, "a").as_deref(),
        Some("acknowledged")
    );
    // Having caught up it is a voter like any other.
    until("probation ends", || {
        let status = world.at(back).shards.status();
        (!status.first()?.probation).then_some(())
    })
    .await;
    world.kill(owner).await;
    let (next, _) = world.served(SHARD).await;
    assert_eq!(world.get(next, SHARD, "a").as_deref(), Some("acknowledged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_disk_restored_to_an_older_copy_may_not_vote_until_it_has_caught_up() {
    let older = |world: &mut World, id: u64| {
        let disk = world.disk(id);
        Disk {
            log: std::sync::Arc::new(disk.log.crash_copy()),
            state: std::sync::Arc::new(disk.state.crash_copy()),
        }
    };
    a_follower_comes_back_with(older, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f16_a_wiped_disk_under_an_old_name_may_not_vote_until_it_has_caught_up() {
    a_follower_comes_back_with(|_, _| Disk::default(), true).await;
}

/// The disk is from before others were let in: it remembers this node as the only voter, and would let it serve alone.
#[tokio::test(flavor = "multi_thread")]
async fn f16_a_disk_from_before_the_others_does_not_let_its_node_serve_alone() {
    let mut world = World::of(1, 1).await;
    world.put(SHARD, "a", "old").await;
    let old = {
        let disk = world.disk(1);
        Disk {
            log: std::sync::Arc::new(disk.log.crash_copy()),
            state: std::sync::Arc::new(disk.state.crash_copy()),
        }
    };
    for id in [2, 3] {
        world.boot(id).await;
        let hosted = world.at(id).shards.host(SHARD).await;
        hosted.expect("hosted");
    }
    let changed = world
        .at(1)
        .shards
        .change_members(SHARD, set(&[1, 2, 3]), set(&[]));
    changed.await.expect("members change");
    // A later life, which the others meet.
    world.kill(1).await;
    world.boot(1).await;
    world.put(SHARD, "a", "newer").await;
    for id in 1..=3 {
        world.has(id, SHARD, "a", "newer").await;
    }
    sleep(Duration::from_millis(500)).await;
    // It comes back with the old disk, and speaks with one of the others only, who has nothing to send it.
    world.kill(1).await;
    world.put(SHARD, "a", "acknowledged").await;
    let (owner, _) = world.served(SHARD).await;
    let other = if owner == 2 { 3 } else { 2 };
    *world.disk(1) = old;
    world
        .net
        .partition(&[&[node(owner)], &[node(1), node(other)]]);
    world.boot(1).await;
    until("it has heard of its later life", || {
        let status = world.at(1).shards.status();
        status.first()?.probation.then_some(())
    })
    .await;
    for _ in 0..40 {
        assert_eq!(
            world.at(1).shards.term(SHARD),
            None,
            "G2: it is not the only voter"
        );
        sleep(Duration::from_millis(50)).await;
    }
    // Nor after another start.
    world.kill(1).await;
    world.boot(1).await;
    for _ in 0..20 {
        assert_eq!(world.at(1).shards.term(SHARD), None);
        sleep(Duration::from_millis(50)).await;
    }
    world.net.heal();
    world.has(1, SHARD, "a", "acknowledged").await;
    until("probation ends", || {
        let status = world.at(1).shards.status();
        (!status.first()?.probation).then_some(())
    })
    .await;
}

/// The same of a shard that nobody else has: after a look around it is served again.
#[tokio::test(flavor = "multi_thread")]
async fn f16_an_only_voter_whose_disk_went_back_serves_again_when_nobody_has_more() {
    let mut world = World::of(1, 1).await;
    world.put(SHARD, "a", "old").await;
    let old = {
        let disk = world.disk(1);
        Disk {
            log: std::sync::Arc::new(disk.log.crash_copy()),
            state: std::sync::Arc::new(disk.state.crash_copy()),
        }
    };
    world.kill(1).await;
    world.boot(1).await;
    world.boot(2).await;
    sleep(Duration::from_millis(500)).await;
    world.kill(1).await;
    *world.disk(1) = old;
    world.boot(1).await;
    until("it has heard of its later life", || {
        let status = world.at(1).shards.status();
        let status = status.first()?;
        (status.probation || world.at(1).shards.term(SHARD).is_none()).then_some(())
    })
    .await;
    until("probation ends", || {
        let status = world.at(1).shards.status();
        (!status.first()?.probation).then_some(())
    })
    .await;
    world.put(SHARD, "a", "new").await;
}
