//! Wills: published once for a connection that ended without a farewell, or not at all.
//!
//! A will leaves its session when the connection ends and stands among the record's pending wills until the shell
//! says that it went out. Both steps are made durable before anything is published.

use std::time::Duration;

use super::{Effect, PendingWill, Session, Timer, machine::Turn};
use crate::{ids::SessionEpoch, time::Timestamp};

/// Wills on their way that a record holds at most. Each waits only for the shell to say that it went out, so
/// more than one is rare; beyond this many the oldest is believed to have gone out.
const PENDING_WILLS_MAX: usize = 8;

impl Turn<'_> {
    /// A reconnect cancels a delayed will, unless the will was due or its session is over (MQTT-3.1.3-9).
    pub(super) fn settle_delayed_wills(&mut self, resumed: bool) {
        let now = self.now;
        let wills = &mut self.record.pending_wills;
        wills.retain(|pending| pending.sent || pending.due <= now || !resumed);
        let due: Vec<_> = wills
            .iter()
            .filter(|pending| !pending.sent)
            .map(|pending| pending.epoch)
            .collect();
        for epoch in due {
            self.send_will(epoch);
        }
    }

    /// A will may be due.
    pub(super) fn will_due(&mut self, epoch: SessionEpoch) {
        let pending = self
            .record
            .pending_wills
            .iter()
            .find(|pending| pending.epoch == epoch);
        match pending {
            Some(pending) if !pending.sent && pending.due > self.now => {
                self.schedule(pending.due, Timer::WillDue { epoch });
            },
            Some(_) => self.send_will(epoch),
            None => {},
        }
    }

    pub(super) fn pend(&mut self, pending: PendingWill) {
        let wills = &mut self.record.pending_wills;
        if wills.len() >= PENDING_WILLS_MAX {
            wills.remove(0);
        }
        wills.push(pending);
        self.keep();
    }

    /// Hands a will to the shell, once.
    pub(super) fn send_will(&mut self, epoch: SessionEpoch) {
        let now = self.now;
        let wills = &mut self.record.pending_wills;
        let Some(pending) = wills
            .iter_mut()
            .find(|will| will.epoch == epoch && !will.sent)
        else {
            return;
        };
        pending.sent = true;
        let effect = publish(pending, now);
        self.keep();
        self.tell(effect);
    }

    /// Publishes the will of a connection whose record goes with it.
    pub(super) fn send_last_will(&mut self, session: &Session) {
        if let Some(will) = session.will.clone() {
            let epoch = session.epoch;
            self.pend(PendingWill {
                epoch,
                will,
                due: self.now,
                sent: false,
            });
            self.send_will(epoch);
        }
    }

    /// A will went out.
    pub(super) fn will_published(&mut self, epoch: SessionEpoch) {
        let wills = &mut self.record.pending_wills;
        let before = wills.len();
        wills.retain(|pending| pending.epoch != epoch || !pending.sent);
        if wills.len() != before {
            self.keep();
        }
    }
}

/// A will as it is published now.
pub(super) fn publish(pending: &PendingWill, now: Timestamp) -> Effect {
    let mut message = pending.will.message.clone();
    message.received_at = now;
    message.expires_at = pending
        .will
        .expiry
        .map(|seconds| now + Duration::from_secs(seconds.into()));
    Effect::PublishWill {
        epoch: pending.epoch,
        message,
    }
}
