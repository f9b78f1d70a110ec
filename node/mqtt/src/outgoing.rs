//! What one connection is about to write: packets become bytes as they are pushed.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use bytes::BytesMut;
use umbel_core::message::{Message, Qos};

pub use crate::codec::TooLarge;
use crate::{
    codec::{PublishParts, encode, encode_publish},
    metrics::Counters,
    packet::{Ack, Packet, PacketKind, SubAck},
    reason::{ProtocolVersion, ReasonCode},
};

/// Bytes after which a session stops pushing and lets the socket take them. One turn of one connection may not hold
/// more of the node's memory than this and one packet.
const HIGH_WATER_BYTES: usize = 64 * 1024;

/// The write buffer of one connection, as the session sees it.
///
/// It knows what the client speaks and takes, so a session never checks either. Replies of one socket turn gather here
/// and leave in one write.
#[derive(Debug)]
pub struct Outgoing {
    version: ProtocolVersion,
    /// False: the client does not want words beside reason codes (MQTT-3.1.2-29).
    problem_information: bool,
    /// The client's maximum packet size.
    limit: u32,
    buffer: BytesMut,
    counters: Option<Arc<Counters>>,
    /// The socket takes nothing: no more may be pushed, however little waits.
    is_held: bool,
}

/// How one message goes to one client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery<'a> {
    /// For QoS 1 and 2, and only then.
    pub packet_id: Option<NonZeroU16>,
    /// Quality of service of this delivery.
    pub qos: Qos,
    /// Sent before.
    pub dup: bool,
    /// Retained, or retain as published.
    pub retain: bool,
    /// Seconds left of the message's life.
    pub message_expiry: Option<u32>,
    /// The alias of the topic, if the client takes one.
    pub topic_alias: Option<NonZeroU16>,
    /// The client knows the alias already: the topic is not sent.
    pub alias_is_known: bool,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: &'a [NonZeroU32],
}

impl Outgoing {
    /// Nothing to write yet, for a client that speaks `version` and takes packets of at most `limit` bytes.
    pub fn new(
        version: ProtocolVersion,
        limit: Option<NonZeroU32>,
        problem_information: bool,
    ) -> Self {
        Self {
            version,
            problem_information,
            limit: limit.map_or(u32::MAX, NonZeroU32::get),
            buffer: BytesMut::new(),
            counters: None,
            is_held: false,
        }
    }

    /// What the client speaks.
    pub const fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The same, with what is pushed counted by type.
    #[must_use]
    pub(crate) fn counted(self, counters: Arc<Counters>) -> Self {
        Self {
            counters: Some(counters),
            ..self
        }
    }

    fn count(&self, kind: PacketKind) {
        if let Some(counters) = &self.counters {
            counters.packet_out(kind);
        }
    }

    /// Appends a packet: all of it, or nothing if the client would not take it.
    pub fn push(&mut self, packet: &Packet) -> Result<(), TooLarge> {
        let bare = if self.problem_information {
            None
        } else {
            without_words(packet)
        };
        let packet = bare.as_ref().unwrap_or(packet);
        debug_assert!(
            !self.version.is_v5() || is_legal(packet),
            "a code that MQTT 5 does not know in this packet: {packet:?}"
        );
        encode(packet, self.version, self.limit, &mut self.buffer)?;
        self.count(packet.kind());
        Ok(())
    }

    /// Appends a PUBLISH of `message`. On [`TooLarge`] the session goes on as if the client had it (MQTT-3.1.2-25).
    pub fn deliver(&mut self, message: &Message, delivery: &Delivery<'_>) -> Result<(), TooLarge> {
        let is_named_by_alias = delivery.topic_alias.is_some() && delivery.alias_is_known;
        let parts = PublishParts {
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: if is_named_by_alias {
                ""
            } else {
                &message.topic
            },
            packet_id: delivery.packet_id,
            payload: &message.payload,
            message_expiry: delivery.message_expiry,
            topic_alias: delivery.topic_alias,
            subscription_ids: delivery.subscription_ids,
            properties: message.properties.as_deref(),
        };
        encode_publish(&parts, self.version, self.limit, &mut self.buffer)?;
        self.count(PacketKind::Publish);
        Ok(())
    }

    /// Bytes that wait.
    pub fn queued(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether enough waits for one turn: stop pushing deliveries, the socket comes first.
    pub fn is_full(&self) -> bool {
        self.is_held || self.buffer.len() >= HIGH_WATER_BYTES
    }

    /// While held, [`Outgoing::is_full`] is true.
    pub(crate) const fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// The bytes that wait, in order.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// The buffer itself, for the driver that lends and drains it.
    pub(crate) const fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
}

/// Whether every code of a packet is one that a server may say in it.
fn is_legal(packet: &Packet) -> bool {
    let kind = packet.kind();
    let all = |reasons: &[ReasonCode]| reasons.iter().all(|reason| reason.may_stand_in(kind));
    match packet {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            all(&[ack.reason])
        },
        Packet::SubAck(ack) | Packet::UnsubAck(ack) => all(&ack.reasons),
        Packet::Disconnect(disconnect) => all(&[disconnect.reason]),
        Packet::Auth(auth) => all(&[auth.reason]),
        // What CONNACK has no code for is told as "server unavailable".
        Packet::ConnAck(_)
        | Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp => true,
    }
}

/// The packet without reason string and user properties, if it is one that may not carry them to a client that asked
/// for no problem information. PUBLISH, CONNACK and DISCONNECT may.
fn without_words(packet: &Packet) -> Option<Packet> {
    match packet {
        Packet::PubAck(ack) if ack.properties.is_some() => {
            Some(Packet::PubAck(Ack::new(ack.packet_id, ack.reason)))
        },
        Packet::PubRec(ack) if ack.properties.is_some() => {
            Some(Packet::PubRec(Ack::new(ack.packet_id, ack.reason)))
        },
        Packet::PubRel(ack) if ack.properties.is_some() => {
            Some(Packet::PubRel(Ack::new(ack.packet_id, ack.reason)))
        },
        Packet::PubComp(ack) if ack.properties.is_some() => {
            Some(Packet::PubComp(Ack::new(ack.packet_id, ack.reason)))
        },
        Packet::SubAck(ack) if ack.properties.is_some() => {
            let bare = SubAck {
                properties: None,
                ..ack.as_ref().clone()
            };
            Some(Packet::SubAck(Box::new(bare)))
        },
        Packet::UnsubAck(ack) if ack.properties.is_some() => {
            let bare = SubAck {
                properties: None,
                ..ack.as_ref().clone()
            };
            Some(Packet::UnsubAck(Box::new(bare)))
        },
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Disconnect(_)
        | Packet::Auth(_) => None,
    }
}
