//! Messages that other nodes handed over lately, so that one that is handed over again is not delivered twice.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use umbel_core::ids::{NodeId, ShardId};

use crate::broker::{peers::routes::MessageId, ticket::Pending};

/// Messages that are remembered for each shard. A message is asked for again within seconds, while its shard is in
/// trouble: that many do not come in between.
const REMEMBERED: usize = 4_096;

/// A message and the part of it that went to a shard: to its sessions, or to one device of it.
pub(super) type Name = (NodeId, MessageId, bool);

#[derive(Debug, Default)]
struct Shard {
    outcomes: BTreeMap<Name, Pending>,
    order: VecDeque<Name>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<BTreeMap<ShardId, Shard>>);

impl Recent {
    /// What became of it, or becomes: `None` if it did not come by, or if it failed then.
    pub(super) fn outcome(&self, shard: ShardId, name: &Name) -> Option<Pending> {
        let shards = self.0.lock();
        let pending = shards.get(&shard)?.outcomes.get(name)?;
        let mut cx = Context::from_waker(Waker::noop());
        match pending.poll(&mut cx) {
            Poll::Ready(outcome) if !outcome.is_done() => None,
            Poll::Ready(_) | Poll::Pending => Some(pending.clone()),
        }
    }

    /// It came by, and this becomes of it.
    pub(super) fn remember(&self, shard: ShardId, name: Name, outcome: Pending) {
        let mut shards = self.0.lock();
        let shard = shards.entry(shard).or_default();
        if shard.outcomes.insert(name, outcome).is_none() {
            shard.order.push_back(name);
        }
        if shard.order.len() > REMEMBERED
            && let Some(oldest) = shard.order.pop_front()
        {
            shard.outcomes.remove(&oldest);
        }
    }

    /// The shard is not here any more.
    pub(super) fn forget(&self, shard: ShardId) {
        self.0.lock().remove(&shard);
    }
}
