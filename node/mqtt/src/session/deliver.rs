//! What is sent to the client: messages in order, as its window and its socket allow.

use std::time::Duration;

use umbel_core::{
    message::{Message, Qos},
    time::Timestamp,
};

use super::{Session, alias::Naming};
use crate::{
    broker::{Acknowledged, Queued, metrics, packet_id},
    close::Close,
    outgoing::{Delivery, Outgoing},
    packet::{Ack, Packet},
    reason::ReasonCode,
};

/// Topics shorter than this are not worth an alias: introducing one costs three bytes.
const ALIAS_TOPIC_BYTES_MIN: usize = 4;

/// What may be sent next.
enum Next {
    /// This, and whether an earlier connection may have sent it.
    Message(Queued, bool),
    /// Nothing in memory, but storage has more.
    PerhapsMore,
    /// Nothing, or nothing yet.
    Nothing,
}

impl Session {
    /// Sends what waits until the window or `out` is full.
    pub(super) fn send_messages(&mut self, out: &mut Outgoing) -> Result<(), Close> {
        while !out.is_full() {
            match self.next_message()? {
                Next::Message(next, _) if next.released => {
                    let release = Ack::new(packet_id(next.sequence), ReasonCode::Success);
                    super::say(&Packet::PubRel(release), out);
                },
                Next::Message(next, was_sent) => self.send(&next, was_sent, out)?,
                Next::PerhapsMore if self.refill() => {},
                Next::PerhapsMore | Next::Nothing => return Ok(()),
            }
        }
        Ok(())
    }

    fn next_message(&self) -> Result<Next, Close> {
        let mut state = self.state()?;
        let may_refill = state.hungry || state.backfill.is_some();
        let Some(outbound) = state.outbound_if_any() else {
            return Ok(if may_refill {
                Next::PerhapsMore
            } else {
                Next::Nothing
            });
        };
        if let Some(next) = outbound.next(usize::from(self.window)) {
            let was_sent = next.qos > Qos::AtMostOnce && outbound.was_sent(next.sequence);
            return Ok(Next::Message(next, was_sent));
        }
        state.tidy();
        Ok(if may_refill {
            Next::PerhapsMore
        } else {
            Next::Nothing
        })
    }

    /// Reads what only storage has, on this task: the client's own. A home on another node reads for itself.
    fn refill(&self) -> bool {
        if !self.mailbox.is_window() {
            return self.broker.refill(&self.mailbox, self.epoch);
        }
        let home = {
            let Ok(mut state) = self.state() else {
                return false;
            };
            state.hungry = false;
            state.link.as_ref().and_then(|link| link.here().cloned())
        };
        let Some(home) = home else { return false };
        let has_more = self.broker.refill(&home, self.epoch);
        if has_more {
            self.broker.feed(&home);
        }
        has_more
    }

    fn send(&mut self, queued: &Queued, dup: bool, out: &mut Outgoing) -> Result<(), Close> {
        let message = queued.message.as_ref();
        let now = self.broker.now();
        // a message that was on its way before goes on its way again, however late (MQTT-3.3.2-5)
        let is_expired = !dup && message.expires_at.is_some_and(|at| at <= now);
        if is_expired {
            return self.skip(queued, metrics::Drop::Expired);
        }
        // judged at delivery: a right revoked meanwhile is gone (T8, T9)
        if !self.policy.may_receive(&message.topic) {
            return self.skip(queued, metrics::Drop::NotAuthorized);
        }
        let naming = self.naming(&message.topic);
        let (topic_alias, alias_is_known) = match naming {
            Naming::Full => (None, false),
            Naming::Introduce(alias) => (Some(alias), false),
            Naming::Known(alias) => (Some(alias), true),
        };
        let delivery = Delivery {
            packet_id: (queued.qos > Qos::AtMostOnce).then(|| packet_id(queued.sequence)),
            qos: queued.qos,
            dup,
            retain: queued.retain,
            message_expiry: seconds_left(message, now),
            topic_alias,
            alias_is_known,
            subscription_ids: &queued.subscription_ids,
        };
        if out.deliver(message, &delivery).is_err() {
            return self.skip(queued, metrics::Drop::TooLarge);
        }
        if let Naming::Introduce(alias) = naming {
            self.aliases
                .get_or_insert_default()
                .introduced(&message.topic, alias);
        }
        self.broker.meters().sent(queued.qos);
        Ok(())
    }

    /// A message that is not sent counts as delivered (MQTT-3.1.2-25).
    fn skip(&self, queued: &Queued, reason: metrics::Drop) -> Result<(), Close> {
        metrics::dropped(reason, 1);
        if queued.qos == Qos::AtMostOnce {
            return Ok(());
        }
        let skipped = {
            let mut state = self.state()?;
            let Some(outbound) = state.outbound_if_any() else {
                return Ok(());
            };
            outbound.finish(packet_id(queued.sequence), queued.qos)
        };
        if let Acknowledged::Finished(sequence) = skipped
            && self.mailbox.is_window()
        {
            self.broker
                .acknowledged(&self.mailbox, self.epoch, sequence);
        }
        Ok(())
    }

    fn naming(&self, topic: &str) -> Naming {
        if self.alias_max == 0 || topic.len() < ALIAS_TOPIC_BYTES_MIN {
            return Naming::Full;
        }
        match &self.aliases {
            Some(aliases) => aliases.name(topic, self.alias_max),
            None => super::alias::Aliases::default().name(topic, self.alias_max),
        }
    }
}

/// What is left of a message's life, rounded up (MQTT-3.3.2-6).
fn seconds_left(message: &Message, now: Timestamp) -> Option<u32> {
    let left: Duration = message.expires_at?.since(now);
    let seconds = left.as_millis().div_ceil(1000).max(1);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX))
}
