//! What a gateway holds against what is recorded: the owner's side of a comparison.

use std::sync::Arc;

use umbel_core::{
    device::{DeviceRecord, Input, Link, Presence, Reason},
    ids::{ClientId, NodeId, SessionEpoch},
};

use super::{Answer, Over, Resync, Resynced};
use crate::{
    device::Work, fleet::Fleet, lives::Life, metrics::CommandKind, records, refused::Refused,
    shard::Shard,
};

/// Compares one part. The shard is known and served here, or was a moment ago.
pub(super) async fn serve(fleet: &Fleet, from: NodeId, part: Resync) -> Answer {
    let Some(shard) = fleet.numbered(part.shard) else {
        return Answer::NotOwner { hint: None };
    };
    match compare(fleet, &shard, from, part).await {
        Ok(resynced) => Answer::Resynced(resynced),
        Err(Refused::NotOwner) => Answer::NotOwner { hint: None },
        Err(why) => Answer::Refused(why),
    }
}

async fn compare(
    fleet: &Fleet,
    shard: &Arc<Shard>,
    from: NodeId,
    part: Resync,
) -> Result<Resynced, Refused> {
    let term = shard.term()?;
    if term != part.term {
        return Err(Refused::NotOwner);
    }
    let life = Life {
        node: from,
        boot: part.boot,
    };
    let until = shard.common.clock.tick() + shard.common.config.resync_within;
    let roll = if part.is_first {
        Some(shard.rolls.begin(life, part.round, until))
    } else {
        shard.rolls.find(life, part.round)
    };
    let mut resynced = Resynced::default();
    let Some(roll) = roll else {
        // What was said before was forgotten, or came too late.
        resynced.is_incomplete = true;
        return Ok(resynced);
    };
    roll.prolong(until);
    for client in &part.opening {
        shard.rolls.answer(life, client);
    }
    for (client, epoch) in part.connected {
        if fleet.shard(&client).id != shard.id {
            continue;
        }
        shard.rolls.answer(life, &client);
        match verdict(shard, &client, epoch)? {
            Held::Rightly => {},
            Held::InDoubt => resynced.is_incomplete |= !hear(shard, &client, epoch),
            Held::Wrongly { by_newer } => resynced.over.push(Over {
                client,
                epoch,
                by_newer,
            }),
        }
    }
    resynced.recorded = fleet.end_all(shard.id, part.ended).await;
    // A connection may only be called over by who owns it after looking.
    shard.still(term)?;
    if part.is_last && !resynced.is_incomplete {
        roll.close();
    }
    Ok(resynced)
}

/// A connection that a gateway holds.
enum Held {
    Rightly,
    /// It was called lost, and it is not.
    InDoubt,
    Wrongly {
        by_newer: bool,
    },
}

fn verdict(shard: &Shard, client: &ClientId, epoch: SessionEpoch) -> Result<Held, Refused> {
    let Some(record) = records::load_device(shard, client)? else {
        return Ok(Held::Wrongly { by_newer: false });
    };
    let session = record.session.as_ref();
    let current = session.filter(|session| session.epoch == epoch);
    Ok(match current.map(|session| session.link) {
        Some(Link::Up) if is_called_lost(&record) => Held::InDoubt,
        Some(Link::Up) => Held::Rightly,
        Some(Link::Lost { .. }) => Held::InDoubt,
        Some(Link::Down { .. }) | None => Held::Wrongly {
            by_newer: session.is_some_and(|session| session.epoch > epoch),
        },
    })
}

fn is_called_lost(record: &DeviceRecord) -> bool {
    record.presence == Presence::Stale && record.reason == Reason::GatewayLost
}

/// Tells the machine that a connection is there after all; false when the device's actor is busy.
fn hear(shard: &Arc<Shard>, client: &ClientId, epoch: SessionEpoch) -> bool {
    let work = Work::Input(Box::new(Input::Heard { epoch }));
    shard.send(client, CommandKind::Timer, work).is_ok()
}
