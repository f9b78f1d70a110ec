//! Commands of other nodes that were applied lately, so that one that is sent again is applied once.
//!
//! A row in the shard names the command and what came of it. It is part of the command's own log entry, so it is there
//! exactly if the command was applied, also for the next owner. Only commands of *other* nodes have one: a gateway that
//! owns the shard dies with the owner, and with it whoever could ask again. Rows are forgotten after [`WINDOW`].

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use umbel_core::{
    device::{Effect, Opened, RecordWrite, Reply},
    ids::{NodeId, Term},
    shadow::{Shadow, Verb},
    time::{Tick, Timestamp},
};
use umbel_storage::{
    codec,
    table::{Table, Write},
};

use crate::{records, refused::Refused, remote::RequestId, shard::Shard};

/// How long a command is remembered. A gateway gives a command up after two seconds; what it sent last may wait in
/// queues for as long again. Five times the first is ample, and costs a busy shard (1,000 commands of other nodes a
/// second) 1 MB.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Commands that are remembered in one shard. Beyond it commands of other nodes are refused as too many; 64 shards
/// take 100,000 a second before that.
const REMEMBERED_MAX: usize = 16_384;
/// Rows removed by one log entry.
const PRUNED_MAX: usize = 2_048;
/// Rows read at once.
const PAGE: usize = 1_000;
/// Format of a row.
const FORMAT: u8 = 1;

/// What came of a command: enough to answer it again, with the command itself at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Opened(Opened),
    Shadow { version: u64, at: Timestamp },
    Edited,
    Deleted,
}

/// The commands that are remembered.
#[derive(Default)]
pub(crate) struct Applied(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Whether this owner told everybody what the command led to.
    told: HashMap<RequestId, bool>,
    order: VecDeque<(Tick, RequestId)>,
}

impl Applied {
    pub(crate) fn knows(&self, id: &RequestId) -> bool {
        self.0.lock().told.contains_key(id)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.lock().told.len() >= REMEMBERED_MAX
    }

    pub(crate) fn is_told(&self, id: &RequestId) -> bool {
        self.0.lock().told.get(id).copied().unwrap_or(false)
    }

    pub(crate) fn set_told(&self, id: &RequestId) {
        if let Some(told) = self.0.lock().told.get_mut(id) {
            *told = true;
        }
    }

    /// A command's row is durable.
    pub(crate) fn note(&self, id: RequestId, now: Tick) {
        let mut known = self.0.lock();
        if known.told.insert(id, false).is_none() {
            known.order.push_back((now, id));
        }
    }

    pub(crate) fn clear(&self) {
        *self.0.lock() = Known::default();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().told.len()
    }

    /// Takes out what need not be remembered any more.
    fn take_expired(&self, now: Tick) -> Vec<RequestId> {
        let mut known = self.0.lock();
        let mut expired = Vec::new();
        while expired.len() < PRUNED_MAX {
            match known.order.front() {
                Some((at, id)) if now - *at >= WINDOW => {
                    expired.push(*id);
                    known.order.pop_front();
                },
                Some(_) | None => break,
            }
        }
        for id in &expired {
            known.told.remove(id);
        }
        expired
    }

    /// They could not be removed: tried again later.
    fn put_back(&self, ids: Vec<RequestId>, now: Tick) {
        for id in ids {
            self.note(id, now);
        }
    }
}

/// What to remember of a decision, if it is one that must not be made twice.
pub(crate) fn outcome(
    effects: &[Effect],
    verb: Option<Verb>,
    (current, next): (u64, Option<&Shadow>),
    now: Timestamp,
) -> Option<Outcome> {
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Reply(reply) => Some(reply),
        Effect::Persist(_)
        | Effect::Publish(_)
        | Effect::PublishWill { .. }
        | Effect::EndSession { .. }
        | Effect::Evict { .. }
        | Effect::Schedule { .. } => None,
    })?;
    match reply {
        Reply::Opened(opened) => Some(Outcome::Opened(*opened)),
        Reply::Record(_) => Some(Outcome::Edited),
        Reply::Done => is_removal(effects).then_some(Outcome::Deleted),
        Reply::Shadow(umbel_core::shadow::Reply::Accepted(_)) => {
            // A deletion answers with the version that it deletes.
            let version = match verb? {
                Verb::Delete => current,
                Verb::Update => next?.version(),
                Verb::Get => return None,
            };
            Some(Outcome::Shadow { version, at: now })
        },
        Reply::Shadow(umbel_core::shadow::Reply::Rejected(_))
        | Reply::NotListed
        | Reply::Exists
        | Reply::NotFound
        | Reply::PreconditionFailed { .. }
        | Reply::Invalid(_) => None,
    }
}

fn is_removal(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| match effect {
        Effect::Persist(writes) => writes
            .iter()
            .any(|write| matches!(write, RecordWrite::RemoveRecord)),
        Effect::Reply(_)
        | Effect::Publish(_)
        | Effect::PublishWill { .. }
        | Effect::EndSession { .. }
        | Effect::Evict { .. }
        | Effect::Schedule { .. } => false,
    })
}

/// The row that remembers a command.
pub(crate) fn row(id: &RequestId, outcome: Outcome) -> Result<Write, Refused> {
    let value = codec::encode(FORMAT, &outcome).map_err(|_too_large| Refused::TooLarge)?;
    Ok(Write::put(Table::Applied, key(id), value))
}

/// What came of a command, if it was applied.
pub(crate) fn find(shard: &Shard, id: &RequestId) -> Result<Option<Outcome>, Refused> {
    let row = shard
        .common
        .ledger
        .get(shard.id, Table::Applied, &key(id))
        .map_err(|why| records::refusal(shard, &why))?;
    row.map(|row| codec::decode(FORMAT, &row).map_err(|why| records::unreadable(shard, &why)))
        .transpose()
}

/// A new owner learns what was applied before it.
pub(crate) async fn recover(shard: &Shard) -> Result<(), Refused> {
    shard.applied.clear();
    let now = shard.common.clock.tick();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let pairs = shard
            .common
            .ledger
            .scan(shard.id, Table::Applied, &[], after.as_deref(), PAGE)
            .map_err(|why| records::refusal(shard, &why))?;
        let Some((last, _)) = pairs.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        for (key, _) in &pairs {
            let Some(id) = id_of(key) else {
                return Err(Refused::Unreadable);
            };
            shard.applied.note(id, now);
        }
        tokio::task::yield_now().await;
    }
}

/// Removes rows that nobody can ask for any more. One log entry now and then, and none where no other node asks.
pub(crate) fn prune(shard: &Arc<Shard>, term: Term, now: Tick) {
    let expired = shard.applied.take_expired(now);
    if expired.is_empty() {
        return;
    }
    let writes = expired
        .iter()
        .map(|id| Write::delete(Table::Applied, key(id)))
        .collect();
    let receipt = shard.common.ledger.propose(shard.id, term, writes);
    let shard = Arc::clone(shard);
    tokio::spawn(async move {
        // Another owner prunes for itself.
        match receipt.await {
            Ok(()) | Err(umbel_storage::Refusal::NotOwner) => {},
            Err(_) => shard.applied.put_back(expired, now),
        }
    });
}

fn key(id: &RequestId) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    for number in [id.gateway.0, id.boot, id.number] {
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

fn id_of(key: &[u8]) -> Option<RequestId> {
    let (numbers, []) = key.as_chunks::<8>() else {
        return None;
    };
    let [gateway, boot, number] = numbers else {
        return None;
    };
    Some(RequestId {
        gateway: NodeId(u64::from_be_bytes(*gateway)),
        boot: u64::from_be_bytes(*boot),
        number: u64::from_be_bytes(*number),
    })
}
