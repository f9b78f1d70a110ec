//! Who is known to own what, on nodes that have no replica of it.

use umbel_core::ids::ShardId;
use umbel_storage::Nodes;

use crate::world::{SHARD, World, node, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_hears_who_owns_a_shard() {
    let mut world = World::of(3, 4).await;
    world.boot(4).await;
    let (owner, term) = world.served(SHARD).await;
    until("node 4 knows", || {
        let known = world.at(4).owners.owner(SHARD)?;
        (known.node == node(owner) && known.term == term).then_some(())
    })
    .await;
    let mut changes = world.at(4).owners.changes();
    changes.mark_unchanged();
    let to = owner % 3 + 1;
    let handed = world.at(owner).shards.transfer(SHARD, node(to)).await;
    assert_eq!(handed, Ok(()));
    changes.changed().await.expect("told");
    until("node 4 knows the next", || {
        let known = world.at(4).owners.owner(SHARD)?;
        (known.node == node(to) && known.term > term).then_some(())
    })
    .await;
    world.kill(to).await;
    until("node 4 knows that it is gone, or of another", || {
        let known = world.at(4).owners.owner(SHARD);
        known
            .is_none_or(|known| known.node != node(to))
            .then_some(())
    })
    .await;
    for shard in (0..4).map(ShardId) {
        let (owner, term) = world.served(shard).await;
        until("everybody agrees", || {
            let agree = world.running().into_iter().all(|id| {
                let known = world.at(id).owners.owner(shard);
                known.is_some_and(|known| known.node == node(owner) && known.term == term)
            });
            agree.then_some(())
        })
        .await;
    }
}
