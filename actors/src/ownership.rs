//! Shards come and go: what this node owns is recovered before it is served, what it lost is forgotten promptly.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use umbel_core::time::Tick;

use crate::{applied, common::Common, recover, recover::Recovered, roll, shard::Shard};

/// Actors that roll calls may ask in one turn of the clockwork, over all shards. With four turns a second a gateway of
/// ten thousand clients is called through in under a second, and leaves three quarters of the node to others.
const DOUBTS_MAX: usize = 4_096;
/// Shards that are recovered at the same time. Each holds a page of records and an entry of half a megabyte.
const RECOVERING_MAX: usize = 16;
/// A node that may not speak for a shard for so long has lost it, even if it has not heard to whom. A shorter pause of
/// its lease costs nothing but the commands that are refused meanwhile.
const LAPSE_MAX: Duration = Duration::from_secs(3);

/// One look at all shards.
pub(crate) async fn follow(common: &Arc<Common>, shards: &[Arc<Shard>]) {
    if !common.is_serving() || common.is_stopping() {
        return;
    }
    let mut gained = Vec::new();
    for shard in shards {
        match common.ledger.term(shard.id) {
            Some(term) => {
                shard.set_lapsed(None);
                if !shard.is_recovered(term) && shard.may_recover(common.clock.tick()) {
                    gained.push(Arc::clone(shard));
                }
            },
            None => let_go(shard, common.clock.tick()),
        }
    }
    let (gained, total) = recover_all(gained).await;
    if gained > 0 {
        let Recovered {
            clients,
            changed,
            failed,
        } = total;
        tracing::info!(
            shards = gained,
            clients,
            changed,
            failed,
            "shards recovered"
        );
    }
}

/// Recovers shards side by side: each waits for a commit, and one whose commit takes long keeps no other waiting.
async fn recover_all(gained: Vec<Arc<Shard>>) -> (usize, Recovered) {
    let count = gained.len();
    let recovering = stream::iter(gained).map(|shard| async move { recover::shard(&shard).await });
    let recovered = recovering.buffer_unordered(RECOVERING_MAX);
    let total = recovered.fold(Recovered::default(), |mut total, one| async move {
        total += one;
        total
    });
    (count, total.await)
}

/// Forgets a shard that is another node's.
fn let_go(shard: &Arc<Shard>, now: Tick) {
    if shard.is_blank() {
        return;
    }
    let Some(nodes) = &shard.common.nodes else {
        // Alone, a shard without an owner comes back to this node or to nobody.
        return;
    };
    let since = shard.lapsed().unwrap_or(now);
    shard.set_lapsed(Some(since));
    let is_moved = nodes
        .owner(shard.id)
        .is_some_and(|owner| owner.node != nodes.me());
    if is_moved || now - since >= LAPSE_MAX {
        let was_served = shard.shown().is_some();
        shard.drop_all();
        if was_served {
            tracing::info!(shard = %shard.id, "the shard is no longer served here");
        }
    }
}

/// What the owner of shards has to do now and then.
pub(crate) fn attend(shards: &[Arc<Shard>], now: Tick) {
    let mut budget = DOUBTS_MAX;
    for shard in shards {
        let Ok(term) = shard.term() else { continue };
        roll::turn(shard, now, &mut budget);
        applied::prune(shard, term, now);
    }
}
