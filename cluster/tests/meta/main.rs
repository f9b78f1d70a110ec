//! The meta room in company: nodes that join, drain, leave and die, over a net in memory.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking wherever they are"
)]

mod world;

use std::{collections::BTreeSet, sync::Arc};

use umbel_core::{
    cluster::{Command, NodeState},
    ids::{NodeId, ShardId},
};
use umbel_storage::log::{GroupId, GroupLog as _};
use world::{HOUR, SHARDS, World, ask, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_join_get_every_shard_and_the_same_map() {
    let mut world = World::founded().await;
    let all = [NodeId(1), world.join(2).await, world.join(3).await];
    assert_eq!(all, [NodeId(1), NodeId(2), NodeId(3)]);
    until("all hold everything", || world.is_held_by(&all)).await;
    until("all vote on the map", || {
        world
            .voters(ShardId::META)
            .is_some_and(|voters| voters.len() == 3)
    })
    .await;
    // Each owns as many as the others, once they are given to whom they are meant for.
    until("owners are even", || {
        all.iter().all(|id| {
            let node = world.at(*id);
            let owned = (0..SHARDS).map(ShardId);
            let owned = owned.filter(|shard| {
                umbel_storage::Ledger::term(node.shards.as_ref(), *shard).is_some()
            });
            owned.count() == usize::from(SHARDS) / 3
        })
    })
    .await;
    // Who asks is not who decides.
    let other = all
        .into_iter()
        .find(|id| Some(*id) != world.leader())
        .unwrap();
    let drain = Command::Drain { node: NodeId(77) };
    assert!(world.at(other).meta.command(drain).await.is_err());
}

/// G12, F28: a drained node gives away everything; one that is removed does not come back, and its id is never used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_holds_nothing_and_a_removed_one_is_gone() {
    let mut world = World::founded().await;
    let (two, three) = (world.join(2).await, world.join(3).await);
    until("all hold everything", || {
        world.is_held_by(&[NodeId(1), two, three])
    })
    .await;
    let meta = Arc::clone(&world.at(two).meta);
    meta.command(Command::Drain { node: NodeId(1) })
        .await
        .unwrap();
    until("the others hold everything", || {
        world.is_held_by(&[two, three])
    })
    .await;
    until("it is drained", || {
        meta.map().nodes[&NodeId(1)].state == NodeState::Drained
    })
    .await;
    let left = world.at(NodeId(1)).shards.hosted();
    assert_eq!(left, [ShardId::META]);
    let remove = Command::Remove {
        node: NodeId(1),
        force: false,
    };
    meta.command(remove).await.unwrap();
    until("it is out of the meta group", || {
        world.voters(ShardId::META) == Some(BTreeSet::from([two, three]))
    })
    .await;
    world.kill(NodeId(1)).await;
    assert_eq!(world.join(4).await, NodeId(4));
    until("the new node holds everything", || {
        world.is_held_by(&[two, three, NodeId(4)])
    })
    .await;
}

/// F28: the leader of the meta group dies while shards move; whoever leads next goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_move_is_finished_by_the_next_leader() {
    let mut world = World::founded().await;
    let (two, three) = (world.join(2).await, world.join(3).await);
    until("all hold everything", || {
        world.is_held_by(&[NodeId(1), two, three])
    })
    .await;
    let four = world.join(4).await;
    let drain = Command::Drain { node: three };
    world.at(two).meta.command(drain).await.unwrap();
    let shards = || (0..SHARDS).map(ShardId);
    until("something moves", || {
        let node = world.at(four);
        node.shards
            .hosted()
            .iter()
            .any(|shard| *shard != ShardId::META)
    })
    .await;
    until("somebody leads", || world.leader().is_some()).await;
    let leader = world.leader().unwrap();
    world.kill(leader).await;
    // Whoever died keeps its place, unless it was the one that was to give it away.
    let wanted = BTreeSet::from([NodeId(1), two, four]);
    until("every shard is where it should be", || {
        shards().all(|shard| world.voters(shard).as_ref() == Some(&wanted))
    })
    .await;
}

/// T33: a token lets one key in, and that key again when its answer was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_good_for_one_node_and_a_lost_answer_burns_nothing() {
    let world = World::founded().await;
    let meta = &world.at(NodeId(1)).meta;
    let desk = meta.join_desk();
    let token = meta.create_token(HOUR).await.unwrap();
    let text = token.to_string();
    assert_eq!(text.parse(), Ok(token.clone()));
    assert!(!format!("{token:?}").contains(text.rsplit('.').next().unwrap()));
    // The first answer is lost on its way.
    let lost: umbel_cluster::meta::JoinDesk = {
        let desk = Arc::clone(&desk);
        Arc::new(move |from, body| {
            let answered = desk(from, body);
            Box::pin(async move {
                answered.await?;
                Err("the link broke".to_owned())
            })
        })
    };
    let first = ask(lost, world.data(2), &token, 2).await;
    assert!(first.unwrap_err().contains("the link broke"));
    let again = ask(Arc::clone(&desk), world.data(2), &token, 2)
        .await
        .unwrap();
    assert_eq!(again.node, NodeId(2));
    assert_eq!(meta.map().counters.next_node, 3);
    // Another key, a wrong secret: the same words.
    let used = ask(Arc::clone(&desk), world.data(3), &token, 3)
        .await
        .unwrap_err();
    let wrong = text.replace(text.rsplit('.').next().unwrap(), &"A".repeat(43));
    let wrong = ask(desk, world.data(4), &wrong.parse().unwrap(), 4)
        .await
        .unwrap_err();
    assert_eq!(used, wrong);
    assert!(used.contains("not valid"), "{used}");
    assert_eq!(meta.map().counters.next_node, 3);
}

/// F28: a decision whose asker went away, or whose outcome was lost, is still on its way. The next one must know of it: or
/// two nodes get one id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_nobody_waits_for_is_known_to_the_next_one() {
    let world = World::founded().await;
    let first = world.at(NodeId(1));
    let desk = first.meta.join_desk();
    let tokens = [
        first.meta.create_token(HOUR).await.unwrap(),
        first.meta.create_token(HOUR).await.unwrap(),
    ];
    let log = world.log(NodeId(1));
    let end = || log.range(GroupId(u64::from(ShardId::META.0))).end;
    let before = end();
    log.hold();
    let (data, token) = (world.data(2), tokens[0].clone());
    let asks = Arc::clone(&desk);
    let lost = tokio::spawn(async move { ask(asks, data, &token, 2).await });
    until("the first is on its way", || end() > before).await;
    lost.abort();
    drop(lost.await);
    let (data, token) = (world.data(3), tokens[1].clone());
    let asks = Arc::clone(&desk);
    let second = tokio::spawn(async move { ask(asks, data, &token, 3).await });
    until("the second waits behind it", || {
        let meta = first.shards.status().into_iter();
        let mut meta = meta.filter(|status| status.shard == ShardId::META);
        meta.any(|status| status.queued > 0)
    })
    .await;
    log.release();
    let second = second.await.unwrap().unwrap();
    let first_again = ask(desk, world.data(2), &tokens[0], 2).await.unwrap();
    assert_eq!((first_again.node, second.node), (NodeId(2), NodeId(3)));
    let counters = first.meta.map().counters;
    assert_eq!(counters.next_node, 4);
}
