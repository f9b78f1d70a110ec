//! What the client publishes: from PUBLISH to the effect, and QoS 2's second half.

use std::num::NonZeroU16;

use umbel_core::{
    message::{Message, Qos},
    topic::check_name,
};

use super::{Session, reply::What};
use crate::{
    broker::{Broker, Inbound, Outcome, Pending, Ticket, metrics},
    close::{Close, CloseCause},
    outgoing::Outgoing,
    packet::{Ack, AckProperties, Packet, Publish},
    reason::ReasonCode,
};

/// Most QoS 2 identifiers a client may leave unreleased. MQTT 5 clients are bound by the receive maximum long before;
/// older ones are not told of it.
const UNRELEASED_MAX: usize = 4_096;

/// Why a message is not taken: for the client's program, and for a person.
type Objection = (ReasonCode, &'static str);

impl Session {
    pub(super) fn on_publish(&mut self, publish: Publish, out: &mut Outgoing) -> Result<(), Close> {
        self.broker.meters().received(publish.qos);
        let publish = self.resolve_alias(publish)?;
        if publish.qos > self.broker.config().maximum_qos {
            return Err(Close::because(
                ReasonCode::QosNotSupported,
                CloseCause::ProtocolError,
            ));
        }
        if publish.qos > Qos::AtMostOnce && self.is_known(&publish)? {
            return self.answer_again(&publish, out);
        }
        self.count_in(&publish)?;
        if let Some(objection) = self.objection(&publish) {
            return self.refuse(&publish, objection, out);
        }
        let (qos, id) = (publish.qos, publish.packet_id);
        match (qos, id) {
            (Qos::AtLeastOnce, Some(id)) => {
                let effect = self.effect(publish);
                self.reply(What::PubAck(id), effect, out)
            },
            (Qos::ExactlyOnce, Some(id)) => self.take_exactly_once(publish, id, out),
            (Qos::AtMostOnce, _) => {
                // nobody is told; the effect goes on without us
                drop(self.effect(publish));
                Ok(())
            },
            (Qos::AtLeastOnce | Qos::ExactlyOnce, None) => Err(Close::protocol_error()),
        }
    }

    /// PUBREL: the identifier is free once its row is gone.
    pub(super) fn on_pubrel(&mut self, ack: &Ack, out: &mut Outgoing) -> Result<(), Close> {
        let id = ack.packet_id;
        let is_durable = self.mailbox.is_window();
        let is_known = {
            let mut state = self.state()?;
            let is_known = matches!(state.inbound(id), Some(Inbound::Received));
            if is_known && !is_durable {
                state.inbound.remove(&id);
                state.tidy();
            }
            is_known
        };
        if !is_known {
            let unknown = Ack::new(id, ReasonCode::PacketIdentifierNotFound);
            self.reply_with(Packet::PubComp(unknown), out);
            return Ok(());
        }
        let freed = if is_durable {
            // a crash between PUBCOMP and the deletion would take the next message of this identifier for this one
            let mailbox = std::sync::Arc::clone(&self.mailbox);
            let freed = self.broker.ask_free(&mailbox, self.epoch, id);
            freed.then(move |outcome| {
                if outcome.is_done() {
                    mailbox.lock().inbound.remove(&id);
                }
                outcome
            })
        } else {
            Pending::Ready(Outcome::Done)
        };
        self.reply(What::PubComp(id), freed, out)
    }

    /// An alias stands for its topic from here on; what follows never sees one (T9: rights are judged on the topic).
    fn resolve_alias(&mut self, mut publish: Publish) -> Result<Publish, Close> {
        let invalid =
            || Close::because(ReasonCode::TopicAliasInvalid, CloseCause::TopicAliasInvalid);
        let alias = publish
            .properties
            .as_ref()
            .and_then(|properties| properties.topic_alias);
        let Some(alias) = alias else {
            if publish.topic.is_empty() {
                return Err(Close::protocol_error());
            }
            return Ok(publish);
        };
        if alias.get() > self.broker.config().topic_alias_max {
            return Err(invalid());
        }
        if publish.topic.is_empty() {
            let known = self
                .aliases
                .as_ref()
                .and_then(|aliases| aliases.resolve(alias));
            known
                .ok_or_else(Close::protocol_error)?
                .clone_into(&mut publish.topic);
        } else {
            self.aliases
                .get_or_insert_default()
                .learn(alias, &publish.topic);
        }
        Ok(publish)
    }

    /// Whether this is a QoS 2 message that came before (MQTT-4.3.3-10).
    fn is_known(&self, publish: &Publish) -> Result<bool, Close> {
        let (Qos::ExactlyOnce, Some(id)) = (publish.qos, publish.packet_id) else {
            return Ok(false);
        };
        Ok(self.state()?.inbound(id).is_some())
    }

    /// A QoS 2 message that came before is acknowledged again and has no other effect.
    fn answer_again(&mut self, publish: &Publish, out: &mut Outgoing) -> Result<(), Close> {
        let Some(id) = publish.packet_id else {
            return Err(Close::protocol_error());
        };
        let entry = self.state()?.inbound(id);
        let after = match entry {
            Some(Inbound::Committing(pending)) => pending,
            Some(Inbound::Received) | None => Pending::Ready(Outcome::Done),
        };
        self.reply(What::PubRec(id), after, out)
    }

    /// MQTT-3.3.4-9: more unacknowledged messages than we said we take.
    fn count_in(&mut self, publish: &Publish) -> Result<(), Close> {
        if publish.qos == Qos::AtMostOnce {
            return Ok(());
        }
        if self.speaks_v5() && self.unacknowledged >= self.broker.config().receive_maximum {
            return Err(Close::because(
                ReasonCode::ReceiveMaximumExceeded,
                CloseCause::ReceiveMaximumExceeded,
            ));
        }
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        Ok(())
    }

    /// Why the message is not taken, if it is not.
    fn objection(&self, publish: &Publish) -> Option<Objection> {
        let topic = publish.topic.as_str();
        if check_name(topic, &self.broker.config().topics).is_err() {
            return Some((
                ReasonCode::TopicNameInvalid,
                "the topic is longer or deeper than allowed",
            ));
        }
        if !self.policy.may_publish(topic, publish.retain) {
            metrics::refused("publish");
            return Some((
                ReasonCode::NotAuthorized,
                "publishing to this topic is not allowed",
            ));
        }
        if publish.retain && topic.starts_with('$') {
            metrics::refused("retain");
            // T8
            return Some((
                ReasonCode::NotAuthorized,
                "reserved topics keep no retained messages",
            ));
        }
        let properties = publish
            .properties
            .as_ref()
            .map(|properties| &properties.message);
        let says_utf8 = properties.is_some_and(|said| said.payload_is_utf8 == Some(true));
        if says_utf8 && std::str::from_utf8(&publish.payload).is_err() {
            return Some((ReasonCode::PayloadFormatInvalid, "the payload is not UTF-8"));
        }
        None
    }

    /// MQTT 5 has a word for it; an older client's connection is closed (MQTT 3.1.1, 3.3.5).
    fn refuse(
        &mut self,
        publish: &Publish,
        (reason, words): Objection,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        if !self.speaks_v5() {
            let is_forbidden = reason == ReasonCode::NotAuthorized;
            let cause = if is_forbidden {
                CloseCause::NotAuthorized
            } else {
                CloseCause::ProtocolError
            };
            return Err(Close::because(reason, cause));
        }
        if publish.qos > Qos::AtMostOnce {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
        let Some(id) = publish.packet_id else {
            return Ok(());
        };
        let words = AckProperties {
            reason_string: Some(words.to_owned()),
            user: Vec::new(),
        };
        let ack = Ack {
            properties: Some(Box::new(words)),
            ..Ack::new(id, reason)
        };
        let packet = if publish.qos == Qos::AtLeastOnce {
            Packet::PubAck(ack)
        } else {
            Packet::PubRec(ack)
        };
        self.reply_with(packet, out);
        Ok(())
    }

    /// Method A of MQTT 5.0, figure 4.3: the effect first, then the identifier, then PUBREC.
    fn take_exactly_once(
        &mut self,
        publish: Publish,
        id: NonZeroU16,
        out: &mut Outgoing,
    ) -> Result<(), Close> {
        let (settler, ticket) = Ticket::pair();
        let pending = Pending::Waiting(ticket);
        {
            let mut state = self.state()?;
            if state.inbound.len() >= UNRELEASED_MAX {
                return Err(Close::because(
                    ReasonCode::QuotaExceeded,
                    CloseCause::QuotaExceeded,
                ));
            }
            state
                .inbound
                .insert(id, Inbound::Committing(pending.clone()));
        }
        if self.mailbox.is_window() {
            Broker::receiving(&self.mailbox, id, &pending);
        }
        let effect = self.effect(publish);
        self.broker
            .remember_identifier(&self.mailbox, self.epoch, id, effect, settler);
        self.reply(What::PubRec(id), pending, out)
    }

    /// What the message does: requests to a shadow go to the device's actor, and everything goes to subscribers.
    fn effect(&self, publish: Publish) -> Pending {
        let message = self.message(publish);
        self.broker.accept(message)
    }

    fn message(&self, publish: Publish) -> Message {
        let now = self.broker.now();
        let (expires_at, properties) = match publish.properties {
            Some(properties) => (
                properties
                    .message_expiry
                    .map(|seconds| now + std::time::Duration::from_secs(u64::from(seconds))),
                (properties.message != umbel_core::message::Properties::default())
                    .then(|| Box::new(properties.message)),
            ),
            None => (None, None),
        };
        Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            publisher: Some(self.mailbox.client().clone()),
            received_at: now,
            expires_at,
            properties,
        }
    }
}
