//! After a start, or a change of owner: fills a shard's table, and tells each device's machine that its owner
//! is new. Sessions that were connected lost their gateway; graces, expiries and wills are scheduled anew.
//!
//! No actor is woken: the machine is pure, so its decisions for hundreds of devices become one log entry.
//! Until a shard is recovered it refuses every command, so nothing else writes its records meanwhile.

use std::{sync::Arc, time::Duration};

use tracing::warn;
use umbel_core::{
    device::{self, DeviceRecord, Effect, Gateway, Input, RecordChange},
    ids::{ClientId, SessionEpoch, Term},
    message::Message,
    time::Timestamp,
};
use umbel_storage::{
    crash,
    table::{Operation, Table, Write},
};

use crate::{
    adopt,
    alarms::Alarm,
    applied,
    lives::{self, Life, Verdict},
    records,
    refused::Refused,
    shard::Shard,
    slot::Slot,
};

/// A shard that could not be recovered is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// Rows read at once.
const PAGE: usize = 1_000;
/// A log entry of recovery is closed when its values reach this.
const ENTRY_BYTES: usize = 512 * 1024;

/// What recovery found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records of devices and applications.
    pub clients: usize,
    /// How many of them were decided anew, such as sessions whose gateway is gone.
    pub changed: usize,
    /// Shards that could not be recovered. They refuse commands, and are tried again.
    pub failed: usize,
}

impl std::ops::AddAssign for Recovered {
    fn add_assign(&mut self, other: Self) {
        self.clients += other.clients;
        self.changed += other.changed;
        self.failed += other.failed;
    }
}

/// A decision that waits to be durable.
struct Decision {
    slot: Arc<Slot>,
    before: Arc<DeviceRecord>,
    change: RecordChange,
    is_stored: bool,
    effects: Vec<Effect>,
}

/// Decisions that become one log entry.
#[derive(Default)]
struct Entry {
    decisions: Vec<Decision>,
    writes: Vec<Write>,
    bytes: usize,
}

/// Recovers one shard in the term it is owned in now. Nothing to do when it is not owned here.
pub(crate) async fn shard(shard: &Arc<Shard>) -> Recovered {
    match try_shard(shard).await {
        Ok(recovered) => recovered,
        Err(why) => {
            warn!(shard = %shard.id, error = %why, "could not recover the shard, trying again later");
            shard.retry_recovery_at(shard.common.clock.tick() + RETRY);
            Recovered {
                failed: 1,
                ..Recovered::default()
            }
        },
    }
}

async fn try_shard(shard: &Arc<Shard>) -> Result<Recovered, Refused> {
    let Some(term) = shard.common.ledger.term(shard.id) else {
        return Ok(Recovered::default());
    };
    crash::point("recovery.before");
    let before = shard.begin_recovery(term);
    applied::recover(shard).await?;
    let mut recovered = Recovered::default();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let pairs = shard
            .common
            .ledger
            .scan(shard.id, Table::Device, &[], after.as_deref(), PAGE)
            .map_err(|why| records::refusal(shard, &why))?;
        let Some((last, _)) = pairs.last() else { break };
        after = Some(last.clone());
        recovered.clients += pairs.len();
        recovered.changed += page(shard, term, pairs).await?;
        crash::point("recovery.page");
        // A node has a hundred thousand of these and two workers.
        tokio::task::yield_now().await;
    }
    shard.end_recovery(term, before);
    crash::point("recovery.after");
    Ok(recovered)
}

async fn page(
    shard: &Arc<Shard>,
    term: Term,
    pairs: Vec<(Vec<u8>, Vec<u8>)>,
) -> Result<usize, Refused> {
    let now = shard.common.clock.wall();
    let mut changed = 0;
    let mut entry = Entry::default();
    for (key, value) in pairs {
        let Some(client) = client_of(&key) else {
            warn!(shard = %shard.id, "a record's key is no client id");
            return Err(Refused::Unreadable);
        };
        let stored = records::decode_device(shard, &value)?;
        let record = newest(shard, &client, stored);
        let slot = shard.slot(&client);
        adopt::settle(
            shard,
            &slot,
            &record,
            record.is_flapping(now, &shard.common.config.rules.flapping),
        );
        changed += usize::from(decide(shard, slot, record, now, &mut entry)?);
        if entry.bytes >= ENTRY_BYTES {
            commit(shard, term, std::mem::take(&mut entry), now).await?;
        }
    }
    commit(shard, term, entry, now).await?;
    Ok(changed)
}

/// After a change of term in one process memory may know more than the store about the same connection.
fn newest(shard: &Shard, client: &ClientId, stored: DeviceRecord) -> Arc<DeviceRecord> {
    match shard.volatile(client) {
        Some(volatile) if volatile.epoch == stored.epoch => volatile,
        Some(_) => {
            shard.set_volatile(client, None);
            Arc::new(stored)
        },
        None => Arc::new(stored),
    }
}

/// Lets the machine look at a record; true when it wants to change it.
fn decide(
    shard: &Arc<Shard>,
    slot: Arc<Slot>,
    record: Arc<DeviceRecord>,
    now: Timestamp,
    entry: &mut Entry,
) -> Result<bool, Refused> {
    // After a change of term in one process the connections of this node are still there.
    let gateway = gateway_of(shard, &record);
    let input = Input::Recover { gateway };
    let rules = &shard.common.config.rules;
    let change = device::handle(slot.id(), Some(&record), input, now, rules);
    let mut effects = Vec::with_capacity(change.effects.len());
    let mut is_stored = false;
    for effect in change.effects {
        if let Effect::Persist(writes) = effect {
            is_stored = true;
            let writes = records::writes(slot.id(), writes)?;
            entry.bytes += writes.iter().map(weight).sum::<usize>();
            entry.writes.extend(writes);
        } else {
            effects.push(effect);
        }
    }
    let is_changed = is_stored || matches!(change.record, RecordChange::Put(_));
    entry.decisions.push(Decision {
        slot,
        before: record,
        change: change.record,
        is_stored,
        effects,
    });
    Ok(is_changed)
}

/// What became of the node that holds a record's connection.
fn gateway_of(shard: &Shard, record: &DeviceRecord) -> Gateway {
    let life = Life::of_record(record).filter(|life| life.is_known());
    let (Some(nodes), Some(life)) = (&shard.common.nodes, life) else {
        // After a change of term in one process the connections of this node are still there.
        return if shard.has_served() {
            Gateway::Here
        } else {
            Gateway::Gone
        };
    };
    shard.rolls.met(life);
    if lives::judge(life, nodes.as_ref()) == Verdict::Gone {
        return Gateway::Gone;
    }
    // A stranger may be a node that this one has not heard of yet.
    let until = shard.common.clock.tick() + shard.common.config.resync_within;
    shard.rolls.open(life, until);
    Gateway::Asked
}

fn weight(write: &Write) -> usize {
    let value = match &write.operation {
        Operation::Put(value) => value.len(),
        Operation::Delete | Operation::DeletePrefix => 0,
    };
    64 + write.key.len() + value
}

/// Makes the decisions durable, adopts them, and only then tells.
async fn commit(
    shard: &Arc<Shard>,
    term: Term,
    entry: Entry,
    now: Timestamp,
) -> Result<(), Refused> {
    if !entry.writes.is_empty() {
        shard
            .common
            .ledger
            .propose(shard.id, term, entry.writes)
            .await?;
    }
    let mut wills = Vec::new();
    for decision in entry.decisions {
        let Decision {
            slot,
            before,
            change,
            is_stored,
            effects,
        } = decision;
        adopt::record(shard, &slot, Some(&before), (&change, is_stored), now);
        for effect in effects {
            match effect {
                Effect::PublishWill { epoch, message } => {
                    wills.push((slot.id().clone(), epoch, message));
                },
                // Recovery answers nobody, and tells watchers nothing.
                Effect::Persist(_) | Effect::Reply(_) | Effect::Publish(_) => {},
                Effect::EndSession { .. } | Effect::Evict { .. } | Effect::Schedule { .. } => {
                    adopt::carry_out(shard, &slot, &effect);
                },
            }
        }
    }
    publish(shard, wills);
    Ok(())
}

/// Publishes wills that may not have gone out. Not waited for: they may go to sessions in shards that are recovered
/// after this one.
fn publish(shard: &Arc<Shard>, wills: Vec<(ClientId, SessionEpoch, Message)>) {
    if wills.is_empty() {
        return;
    }
    let shard = Arc::clone(shard);
    tokio::spawn(async move {
        for (client, epoch, message) in wills {
            shard.common.outbox.publish(Arc::new(message)).await;
            shard.common.meters.wills.increment(1);
            shard.alarm(&client, Duration::ZERO, Alarm::WillPublished(epoch));
        }
    });
}

fn client_of(key: &[u8]) -> Option<ClientId> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| ClientId::parse(text).ok())
}
