//! Wills: published once for a connection that ended without a farewell, or not at all.
//!
//! A will leaves its session when the connection ends and stands among the record's pending wills until the shell
//! says that it went out. Both steps are made durable before anything is published.

use std::time::Duration;

use super::{Effect, PendingWill, Session, Timer, Will, machine::Turn};
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

    /// A delayed will is due.
    pub(super) fn will_due(&mut self, epoch: SessionEpoch, due: Timestamp) {
        let wills = &self.record.pending_wills;
        if wills
            .iter()
            .any(|pending| pending.epoch == epoch && pending.due == due)
        {
            self.send_will(epoch);
        }
    }

    /// Sends the will of a connection that ended at `closed`, or waits until it is due.
    pub(super) fn release(
        &mut self,
        epoch: SessionEpoch,
        will: Will,
        closed: Timestamp,
        wait: u32,
    ) {
        let due = closed + Duration::from_secs(wait.into());
        self.pend(PendingWill {
            epoch,
            will,
            due,
            sent: false,
        });
        if due > self.now {
            self.schedule(closed, due.since(closed), Timer::WillDue { epoch, due });
        } else {
            self.send_will(epoch);
        }
    }

    /// A new owner waits anew, and sends again what may not have gone out.
    pub(super) fn recover_wills(&mut self) {
        for pending in self.record.pending_wills.clone() {
            if pending.sent {
                self.tell(publish(&pending, self.now));
            } else {
                let PendingWill { epoch, due, .. } = pending;
                let longest = Duration::from_secs(pending.will.delay.into());
                let after = due.since(self.now).min(longest);
                self.tell(Effect::Schedule {
                    after,
                    what: Timer::WillDue { epoch, due },
                });
            }
        }
    }

    fn pend(&mut self, pending: PendingWill) {
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
            self.release(session.epoch, will, self.now, 0);
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
fn publish(pending: &PendingWill, now: Timestamp) -> Effect {
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
