//! Acknowledgements, in the order the requests came (MQTT-4.6.0-2, MQTT-4.6.0-3, MQTT-4.6.0-4).
//!
//! An update of a shadow or a message for a persistent session takes a commit; a message nobody stores takes nothing. All
//! acknowledgements go through one queue, so the quick one waits for the slow one before it, and the connection for
//! neither.

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    task::{Context, Poll},
};

use super::{Session, say};
use crate::{
    broker::{Outcome, Pending, Verdicts},
    close::{Close, CloseCause},
    outgoing::Outgoing,
    packet::{Ack, Packet, SubAck},
    reason::ReasonCode,
};

/// An acknowledgement that waits for its turn, or for the work it acknowledges.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) what: What,
    pub(super) after: Pending,
}

/// What is acknowledged.
#[derive(Debug)]
pub(super) enum What {
    /// A QoS 1 message of the client.
    PubAck(NonZeroU16),
    /// A QoS 2 message of the client.
    PubRec(NonZeroU16),
    /// A PUBREC of the client for the message of this sequence number.
    PubRel(NonZeroU16, u64),
    /// A PUBREL of the client.
    PubComp(NonZeroU16),
    /// A SUBSCRIBE, with what is granted if it can be kept, and if there is room for it.
    SubAck(Box<SubAck>, Option<Verdicts>),
    /// An UNSUBSCRIBE, and which of the subscriptions existed.
    UnsubAck(Box<SubAck>, Verdicts),
    /// An acknowledgement whose reason is known.
    Said(Box<Packet>),
}

impl Session {
    /// Answers now if nothing is before it and its work is done, else in its turn.
    pub(super) fn reply(
        &mut self,
        what: What,
        after: Pending,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        if self.replies.is_empty()
            && let Pending::Ready(outcome) = after
        {
            return self.answer(what, outcome, out);
        }
        self.replies.push_back(Reply { what, after });
        Ok(())
    }

    /// Says a packet whose reason is known, in its turn.
    pub(super) fn reply_with(&mut self, packet: Packet, out: &mut Outgoing) {
        if self.replies.is_empty() {
            say(&packet, out);
        } else {
            let what = What::Said(Box::new(packet));
            self.replies.push_back(Reply {
                what,
                after: Pending::Ready(Outcome::Done),
            });
        }
    }

    /// Says every acknowledgement whose turn has come.
    pub(super) fn send_replies(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        while !out.is_full() {
            let Some(first) = self.replies.front() else {
                break;
            };
            let Poll::Ready(outcome) = first.after.poll(cx) else {
                return Ok(());
            };
            let Some(reply) = self.replies.pop_front() else {
                return Ok(());
            };
            self.answer(reply.what, outcome, out)?;
        }
        if self.replies.is_empty() && self.replies.capacity() > 0 {
            self.replies = VecDeque::new(); // an idle connection keeps no buffer
        }
        Ok(())
    }

    fn answer(&mut self, what: What, outcome: Outcome, out: &mut Outgoing) -> Result<(), Close> {
        let packet = match what {
            What::PubAck(id) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                Packet::PubAck(Ack::new(id, self.reason_of(outcome)?))
            },
            What::PubRec(id) => {
                let reason = self.reason_of(outcome)?;
                if reason.is_error() {
                    self.unacknowledged = self.unacknowledged.saturating_sub(1);
                }
                Packet::PubRec(Ack::new(id, reason))
            },
            What::PubRel(id, sequence) => {
                if !outcome.is_done() {
                    return Err(cannot_store(outcome)); // PUBREC comes again on the next connection
                }
                if let Some(outbound) = self.state()?.outbound_if_any() {
                    outbound.release(sequence);
                }
                Packet::PubRel(Ack::new(id, ReasonCode::Success))
            },
            What::PubComp(id) => {
                if !outcome.is_done() {
                    return Err(cannot_store(outcome)); // PUBREL comes again on the next connection
                }
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                Packet::PubComp(Ack::new(id, ReasonCode::Success))
            },
            What::SubAck(mut ack, verdicts) => {
                let verdicts = verdicts.as_ref().and_then(|verdicts| verdicts.get());
                judge(&mut ack, verdicts, ReasonCode::QuotaExceeded);
                refuse_granted(&mut ack, refusal(outcome));
                Packet::SubAck(ack)
            },
            What::UnsubAck(mut ack, existed) => {
                if !outcome.is_done() && !self.speaks_v5() {
                    return Err(cannot_store(outcome)); // an UNSUBACK of 3.1.1 cannot say no
                }
                judge(&mut ack, existed.get(), ReasonCode::NoSubscriptionExisted);
                let cannot =
                    (!outcome.is_done()).then_some(ReasonCode::ImplementationSpecificError);
                refuse_granted(&mut ack, cannot);
                Packet::UnsubAck(ack)
            },
            What::Said(packet) => *packet,
        };
        say(&packet, out);
        Ok(())
    }

    /// What PUBACK or PUBREC says. An older client cannot be told that its message was not taken: its connection is
    /// closed instead, so that it sends the message again.
    fn reason_of(&self, outcome: Outcome) -> Result<ReasonCode, Close> {
        if !outcome.is_done() && !self.speaks_v5() {
            return Err(cannot_store(outcome));
        }
        Ok(taken(outcome, || self.broker.sees_everybody()))
    }
}

/// What PUBACK and PUBREC say of a message.
fn taken(outcome: Outcome, sees_everybody: impl FnOnce() -> bool) -> ReasonCode {
    if outcome == Outcome::NoMatch && sees_everybody() {
        return ReasonCode::NoMatchingSubscribers;
    }
    // cut off from somebody who may have subscribed, this node cannot say that nobody did
    refusal(outcome).unwrap_or(ReasonCode::Success)
}

/// Each filter that was not refused at once has a verdict: `no` is what the client is told of those that failed.
fn judge(ack: &mut SubAck, verdicts: Option<&Vec<bool>>, no: ReasonCode) {
    let Some(verdicts) = verdicts else { return };
    let open = ack.reasons.iter_mut().filter(|reason| !reason.is_error());
    for (reason, is_yes) in open.zip(verdicts) {
        if !is_yes {
            *reason = no;
        }
    }
}

/// What was granted and could not be kept is refused after all.
fn refuse_granted(ack: &mut SubAck, reason: Option<ReasonCode>) {
    let Some(reason) = reason else { return };
    for granted in ack.reasons.iter_mut().filter(|granted| !granted.is_error()) {
        *granted = reason;
    }
}

/// How an answer says that something was not kept. "Server unavailable" is a word of CONNACK only.
const fn refusal(outcome: Outcome) -> Option<ReasonCode> {
    match outcome {
        Outcome::Done | Outcome::NoMatch => None,
        Outcome::QuotaExceeded | Outcome::TooLarge => Some(ReasonCode::QuotaExceeded),
        Outcome::Unavailable => Some(ReasonCode::ImplementationSpecificError),
    }
}

fn cannot_store(outcome: Outcome) -> Close {
    match outcome {
        Outcome::QuotaExceeded | Outcome::TooLarge => {
            Close::because(ReasonCode::QuotaExceeded, CloseCause::QuotaExceeded)
        },
        Outcome::Done | Outcome::NoMatch | Outcome::Unavailable => {
            Close::because(ReasonCode::ServerBusy, CloseCause::ServerBusy)
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PacketKind;

    #[test]
    fn every_outcome_has_a_code_that_its_packet_knows() {
        let outcomes = [
            Outcome::Done,
            Outcome::NoMatch,
            Outcome::QuotaExceeded,
            Outcome::TooLarge,
            Outcome::Unavailable,
        ];
        for outcome in outcomes {
            for sees_everybody in [false, true] {
                let code = taken(outcome, || sees_everybody);
                let fits =
                    [PacketKind::PubAck, PacketKind::PubRec].map(|kind| code.may_stand_in(kind));
                assert_eq!(fits, [true, true], "{outcome:?}: {code:?}");
                assert_eq!(code.is_error(), !outcome.is_done(), "{outcome:?}: {code:?}");
            }
            let code = refusal(outcome);
            assert!(
                code.is_none_or(|code| code.may_stand_in(PacketKind::SubAck)),
                "{outcome:?}"
            );
        }
    }
}
