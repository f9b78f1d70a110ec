//! Changes of members, ownership handed over, and replicas that come late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use umbel_cluster::{ChangeError, Changed, Config};
use umbel_core::ids::ShardId;
use umbel_storage::{Ledger, Refusal, Table, Write};

use crate::world::{SHARD, World, node, set, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_keeps_everything_and_waits_for_no_lease() {
    let world = World::of(3, 1).await;
    let mut gaps = Vec::new();
    for round in 0..12_u64 {
        let (owner, term) = world.served(SHARD).await;
        world.put(SHARD, "a", &round.to_string()).await;
        let to = owner % 3 + 1;
        let begun = Instant::now();
        let handed = world.at(owner).shards.transfer(SHARD, node(to)).await;
        assert_eq!(handed, Ok(()));
        let (next, later) = world.served(SHARD).await;
        gaps.push(begun.elapsed());
        assert_eq!(next, to);
        assert!(later > term);
        assert_eq!(world.get(to, SHARD, "a"), Some(round.to_string()));
    }
    gaps.sort_unstable();
    println!("gaps of transfers: {gaps:?}");
    assert!(
        gaps[6] < Duration::from_millis(300),
        "no lease was waited for: {gaps:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_to_who_is_not_there_changes_nothing() {
    let mut world = World::of(3, 1).await;
    let (owner, term) = world.served(SHARD).await;
    let to = owner % 3 + 1;
    world.kill(to).await;
    world.put(SHARD, "a", "1").await;
    let shards = Arc::clone(&world.at(owner).shards);
    assert!(shards.transfer(SHARD, node(to)).await.is_err());
    assert_eq!(
        shards.transfer(SHARD, node(9)).await,
        Err(ChangeError::NotMember(node(9)))
    );
    assert_eq!(world.server(SHARD), Some((owner, term)));
    world.put(SHARD, "a", "2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ownership_handed_over_under_load_loses_and_doubles_nothing() {
    let world = Arc::new(World::of(3, 1).await);
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writer = {
        let (world, stop, written) = (Arc::clone(&world), Arc::clone(&stop), Arc::clone(&written));
        tokio::spawn(async move {
            let (mut unknown, mut next) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                let Some((owner, term)) = world.server(SHARD) else {
                    sleep(Duration::from_millis(2)).await;
                    continue;
                };
                let writes = vec![Write::put(Table::Device, format!("k{next}"), b"v".to_vec())];
                let receipt = world.at(owner).shards.propose(SHARD, term, writes);
                match within("answered", receipt).await {
                    Ok(()) => {
                        next += 1;
                        written.store(next, Ordering::Relaxed);
                    },
                    Err(Refusal::NotOwner) => {},
                    Err(Refusal::Unknown) => unknown += 1,
                    Err(other) => panic!("refused: {other}"),
                }
            }
            unknown
        })
    };
    for _ in 0..10 {
        sleep(Duration::from_millis(60)).await;
        let (owner, _) = world.served(SHARD).await;
        let to = owner % 3 + 1;
        // Another owner may have come up in between: then somebody else is asked.
        drop(world.at(owner).shards.transfer(SHARD, node(to)).await);
    }
    stop.store(true, Ordering::Relaxed);
    let unknown = within("the writer ends", writer).await.expect("no panic");
    let count = written.load(Ordering::Relaxed);
    println!("{count} written, {unknown} with unknown outcome");
    let (owner, _) = world.served(SHARD).await;
    for number in 0..count {
        let value = world.get(owner, SHARD, &format!("k{number}"));
        assert_eq!(value.as_deref(), Some("v"), "G1: k{number} of {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f28_members_change_while_it_is_written_and_the_owner_leaves_last() {
    let mut world = World::of(3, 1).await;
    world.boot(4).await;
    world.boot(5).await;
    for id in [4, 5] {
        world.at(id).shards.host(SHARD).await.expect("hosted");
    }
    world.put(SHARD, "a", "1").await;
    let target = set(&[3, 4, 5]);
    let mut heirs = Vec::new();
    let outcome = loop {
        let (owner, _) = world.served(SHARD).await;
        let shards = Arc::clone(&world.at(owner).shards);
        match shards.change_members(SHARD, target.clone(), set(&[])).await {
            Ok(changed) => break changed,
            Err(ChangeError::NotLeader(_) | ChangeError::Busy) => heirs.push(owner),
            Err(error) => panic!("{error}"),
        }
        world
            .put(SHARD, "a", &format!("after {}", heirs.len()))
            .await;
    };
    assert_eq!(outcome, Changed::Done);
    let (owner, _) = world.served(SHARD).await;
    let members = world.at(owner).shards.members(SHARD).expect("members");
    assert_eq!(
        (members.voters, members.learners),
        (target.clone(), set(&[]))
    );
    for gone in [1, 2] {
        world.at(gone).shards.retire(SHARD).await.expect("retired");
        assert_eq!(world.at(gone).shards.leader(SHARD), None);
        world.kill(gone).await;
    }
    world.put(SHARD, "a", "end").await;
    for id in [3, 4, 5] {
        world.has(id, SHARD, "a", "end").await;
    }
    let shards = Arc::clone(&world.at(owner).shards);
    let again = shards.change_members(SHARD, target, set(&[])).await;
    assert_eq!(again, Ok(Changed::Already));
}

fn eager_snapshots(config: &mut Config) {
    config.snapshots.entries = 20;
    config.snapshots.every = Duration::from_millis(20);
    config.snapshots.peer_tail_entries = 4;
    config.changes.lag_entries = 8;
}

#[tokio::test(flavor = "multi_thread")]
async fn f32_a_late_replica_gets_a_snapshot_though_its_stream_breaks() {
    let mut world = World::with(3, 1, eager_snapshots).await;
    let large = "x".repeat(100_000);
    for number in 0..60 {
        world.put(SHARD, &format!("k{number}"), &large).await;
    }
    let (owner, _) = world.served(SHARD).await;
    until("the log is purged", || {
        let status = world.at(owner).shards.status();
        status.first()?.snapshot.filter(|at| *at > 40)
    })
    .await;
    world.boot(4).await;
    world.at(4).shards.host(SHARD).await.expect("hosted");
    let shards = Arc::clone(&world.at(owner).shards);
    let changing = tokio::spawn(async move {
        shards
            .change_members(SHARD, set(&[1, 2, 3]), set(&[4]))
            .await
    });
    for _ in 0..6 {
        sleep(Duration::from_millis(40)).await;
        world
            .net
            .partition(&[&[node(1), node(2), node(3)], &[node(4)]]);
        sleep(Duration::from_millis(40)).await;
        world.net.heal();
    }
    let changed = within("members change", changing).await.expect("no panic");
    assert_eq!(changed, Ok(Changed::Done));
    world.put(SHARD, "end", "1").await;
    world.has(4, SHARD, "end", "1").await;
    for number in 0..60 {
        let value = world.get(4, SHARD, &format!("k{number}"));
        assert_eq!(value.as_ref(), Some(&large), "k{number}");
    }
    // What came by snapshot is there after a crash.
    world.kill(4).await;
    world.boot(4).await;
    world.put(SHARD, "end", "2").await;
    world.has(4, SHARD, "end", "2").await;
    let value = world.get(4, SHARD, "k7");
    assert_eq!(value.as_ref(), Some(&large));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_meta_group_is_a_group_like_any_other() {
    let mut world = World::of(1, 2).await;
    let (_, term) = world.served(ShardId::META).await;
    let writes = vec![Write::put(Table::Cluster, "k", b"v".to_vec())];
    let receipt = world.at(1).shards.propose(ShardId::META, term, writes);
    assert_eq!(receipt.await, Ok(()));
    world.boot(2).await;
    world
        .at(2)
        .shards
        .host(ShardId::META)
        .await
        .expect("hosted");
    let changed = world
        .at(1)
        .shards
        .change_members(ShardId::META, set(&[1]), set(&[2]))
        .await;
    assert_eq!(changed, Ok(Changed::Done));
    until("the learner has it", || {
        let value = world.at(2).shards.get(ShardId::META, Table::Cluster, b"k");
        value.expect("readable")
    })
    .await;
    // What came with the leader's word may be applied a moment before the word is noted.
    until("the learner knows whose word that was", || {
        let leader = world.at(2).shards.leader(ShardId::META)?;
        (leader == node(1)).then_some(())
    })
    .await;
    // A learner comes back as one.
    world.kill(2).await;
    world.boot(2).await;
    until("the learner knows its leader", || {
        world.at(2).shards.leader(ShardId::META)
    })
    .await;
}

/// A backup is asked of whom an old hint may name: who does not own the shard has perhaps not all that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn g1_a_cut_is_made_by_the_owner_only_and_has_what_was_acknowledged() {
    let world = World::of(3, 1).await;
    world.put(SHARD, "a", "1").await;
    let (owner, _) = world.served(SHARD).await;
    let cut = world.at(owner).shards.cut(SHARD).await.expect("cut");
    let applied = world.at(owner).shards.applied(SHARD).expect("hosted");
    assert!(cut.mark.index >= *applied.borrow() && cut.mark.index > 0);
    for id in (1..=3).filter(|id| *id != owner) {
        let refused = world.at(id).shards.cut(SHARD).await;
        assert!(refused.is_err_and(|why| why.contains("does not own")));
    }
}
