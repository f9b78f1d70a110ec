//! A decision became durable: the table, the census and the feed take it over.

use std::sync::Arc;

use umbel_core::{
    device::{DeviceRecord, Effect, EvictReason, RecordChange},
    shadow::{Shadow, ShadowKind},
    time::Timestamp,
};

use crate::{
    alarms::Alarm,
    feed::FleetEventKind,
    lives::{Life, NO_LIFE},
    ports,
    shard::Shard,
    slot::Slot,
};

/// Takes over what happened to a record. A change that is not stored is one that the machine holds too small for
/// it: memory keeps it, and a crash finds it out again.
pub(crate) fn record(
    shard: &Shard,
    slot: &Slot,
    before: Option<&DeviceRecord>,
    (change, is_stored): (&RecordChange, bool),
    now: Timestamp,
) {
    let common = &shard.common;
    match change {
        RecordChange::Keep => {},
        RecordChange::Put(next) => {
            shard.set_volatile(slot.id(), (!is_stored).then(|| Arc::clone(next)));
            let is_flapping = next.is_flapping(now, &common.config.rules.flapping);
            settle(shard, slot, next, is_flapping);
            if is_announced(before, next) {
                let kind = FleetEventKind::Presence {
                    presence: next.presence.as_str(),
                    reason: next.reason.as_str(),
                    epoch: next.epoch.0,
                    flapping: is_flapping,
                };
                common.feed.tell(now, slot.id().clone(), kind);
            }
            if before.map_or(next.listed, |before| before.revision != next.revision) {
                let kind = FleetEventKind::Attributes {
                    version: next.revision,
                };
                common.feed.tell(now, slot.id().clone(), kind);
            }
            meet(shard, slot, before, next);
        },
        RecordChange::Remove => {
            shard.set_volatile(slot.id(), None);
            common.census.moved(slot.clear(), None);
            if before.is_some() {
                common
                    .feed
                    .tell(now, slot.id().clone(), FleetEventKind::Deleted);
            }
        },
    }
}

/// Shows a committed record in the table and counts it.
pub(crate) fn settle(shard: &Shard, slot: &Slot, record: &DeviceRecord, is_flapping: bool) {
    let life = Life::of_record(record).map_or(NO_LIFE, |life| shard.common.lives.number(life));
    let before = slot.adopt(record, is_flapping, life);
    shard.common.census.moved(before, slot.standing());
}

/// Whether somebody who watches presence has to hear of it. A take-over is one event: the new session.
fn is_announced(before: Option<&DeviceRecord>, next: &DeviceRecord) -> bool {
    before.is_none_or(|before| {
        before.presence != next.presence
            || before.reason != next.reason
            || before.epoch != next.epoch
    })
}

/// A session was opened: its gateway is known to have this client.
fn meet(shard: &Shard, slot: &Slot, before: Option<&DeviceRecord>, next: &DeviceRecord) {
    if next.is_connected() && before.is_none_or(|before| before.epoch != next.epoch) {
        shard.common.meters.sessions_opened.increment(1);
        if let Some(life) = Life::of_record(next) {
            shard.rolls.connected(life, slot.id());
        }
    }
}

/// Takes over what happened to a shadow.
pub(crate) fn shadow(
    shard: &Shard,
    slot: &Slot,
    kind: &ShadowKind,
    shadow: &Shadow,
    now: Timestamp,
) {
    let kind = FleetEventKind::Shadow {
        name: kind.name().map(str::to_owned),
        version: shadow.version(),
        deleted: !shadow.exists(),
    };
    shard.common.feed.tell(now, slot.id().clone(), kind);
}

/// Carries out an effect that needs no waiting.
pub(crate) fn carry_out(shard: &Shard, slot: &Arc<Slot>, effect: &Effect) {
    let common = &shard.common;
    match *effect {
        Effect::EndSession { epoch } => common.outbox.end_session(slot.id(), epoch),
        Effect::Evict {
            epoch,
            gateway,
            reason,
        } => {
            let reason = match reason {
                EvictReason::TakenOver => {
                    common.meters.takeovers.increment(1);
                    ports::EvictReason::TakenOver
                },
                EvictReason::Administrative => ports::EvictReason::Administrative,
            };
            common.outbox.evict(slot.id(), epoch, gateway, reason);
        },
        Effect::Schedule { after, what } => shard.alarm(slot.id(), after, Alarm::Timer(what)),
        Effect::Persist(_) | Effect::Reply(_) | Effect::Publish(_) | Effect::PublishWill { .. } => {
        },
    }
}
