//! What operators do: list, describe and delete devices.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Change, DeviceRecord, DisconnectReason, Effect, EvictReason, Kind, Link, Reply, events,
    machine::{Scene, Turn, answer},
};

/// Lists a device, whether it was seen before or not.
pub(super) fn create(scene: Scene<'_>, patch: &Bytes) -> Change {
    if scene.client.as_device().is_none() {
        return answer(Reply::NotFound);
    }
    if scene
        .record
        .is_some_and(|record| record.kind == Kind::Device && record.listed)
    {
        return answer(Reply::Exists);
    }
    let mut turn = match scene.turn() {
        Some(mut turn) => {
            turn.record.revision = turn.record.revision.saturating_add(1);
            turn
        },
        None => scene.fresh(Kind::Device),
    };
    turn.record.kind = Kind::Device;
    turn.record.listed = true;
    describe(turn, patch)
}

/// Changes what is said of a device.
pub(super) fn set_attributes(scene: Scene<'_>, patch: &Bytes, if_match: Option<u64>) -> Change {
    match expected(scene, if_match) {
        Err(refusal) => answer(refusal),
        Ok(mut turn) => {
            turn.record.revision = turn.record.revision.saturating_add(1);
            describe(turn, patch)
        },
    }
}

/// Deletes a device's record and session. Its shadows stay, as on AWS.
pub(super) fn delete(scene: Scene<'_>, if_match: Option<u64>) -> Change {
    let mut turn = match expected(scene, if_match) {
        Err(refusal) => return answer(refusal),
        Ok(turn) => turn,
    };
    // Wills go out without being noted first: there is no record left to note them in. A crash right after the
    // commit loses them.
    let waiting: Vec<_> = turn
        .record
        .pending_wills
        .iter()
        .map(|pending| pending.epoch)
        .collect();
    for epoch in waiting {
        turn.send_will(epoch);
    }
    if let Some(session) = turn.record.session.take() {
        if !matches!(session.link, Link::Down { .. }) {
            let reason = DisconnectReason::ApiInitiated {
                prevent_will: false,
            };
            let evict = Effect::Evict {
                epoch: session.epoch,
                gateway: session.gateway,
                reason: EvictReason::Administrative,
            };
            turn.before_reply(evict);
            turn.announce(events::disconnected(
                turn.client,
                &session,
                reason,
                turn.now,
            ));
            turn.send_last_will(&session);
        }
        turn.drop_session(&session);
    }
    turn.finish_removed(Some(Reply::Done))
}

/// The record to change, if it is the one the caller has seen.
fn expected(scene: Scene<'_>, if_match: Option<u64>) -> Result<Turn<'_>, Reply> {
    let is_device = |record: &&DeviceRecord| record.kind == Kind::Device;
    let Some(revision) = scene.record.filter(is_device).map(|record| record.revision) else {
        return Err(Reply::NotFound);
    };
    if if_match.is_some_and(|expected| expected != revision) {
        return Err(Reply::PreconditionFailed { revision });
    }
    scene.turn().ok_or(Reply::NotFound)
}

fn describe(mut turn: Turn<'_>, patch: &Bytes) -> Change {
    match turn.record.attributes.patched(patch) {
        Err(error) => answer(Reply::Invalid(error)),
        Ok(attributes) => {
            turn.record.attributes = attributes;
            turn.keep();
            let record = Arc::new(turn.record.clone());
            turn.finish(Some(Reply::Record(record)))
        },
    }
}
