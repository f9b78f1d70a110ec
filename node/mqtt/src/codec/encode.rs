//! Packets to bytes, appended to a buffer of the caller: all of the packet, or nothing.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{BufMut, BytesMut};
use thiserror::Error;
use umbel_core::message::{Properties, Qos};

use super::{
    library,
    wire::{VARINT_MAX, property, put_binary, put_varint, varint_len},
};
use crate::{
    packet::{Ack, AckProperties, Packet, PacketKind, Publish, UserProperties},
    reason::{ProtocolVersion, ReasonCode},
};

/// A packet does not fit: it is above the limit, or a string in it is longer than the 65,535 bytes the protocol has
/// room for. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("packet is larger than the receiver takes")]
pub struct TooLarge;

/// Appends `packet` for a receiver of `version` that takes at most `limit` bytes.
///
/// Words beside a reason code (reason string, user properties) are dropped before the packet is refused
/// (MQTT-3.4.2-2 and its like).
pub fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    limit: u32,
    buffer: &mut BytesMut,
) -> Result<(), TooLarge> {
    match packet {
        Packet::Publish(publish) => {
            encode_publish(&PublishParts::of(publish), version, limit, buffer)
        },
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            encode_ack(packet.kind(), ack, version, limit, buffer)
        },
        Packet::PingReq | Packet::PingResp => {
            put_header(packet.kind(), 0, 0, limit, buffer)?;
            Ok(())
        },
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::Disconnect(_)
        | Packet::Auth(_) => library::encode(packet, version, limit, buffer),
    }
}

/// A PUBLISH in borrowed parts, so that a message on its way to many is never cloned.
pub(crate) struct PublishParts<'a> {
    pub(crate) dup: bool,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    /// Empty if the alias stands for it.
    pub(crate) topic: &'a str,
    pub(crate) packet_id: Option<NonZeroU16>,
    pub(crate) payload: &'a [u8],
    pub(crate) message_expiry: Option<u32>,
    pub(crate) topic_alias: Option<NonZeroU16>,
    pub(crate) subscription_ids: &'a [NonZeroU32],
    pub(crate) properties: Option<&'a Properties>,
}

impl<'a> PublishParts<'a> {
    fn of(publish: &'a Publish) -> Self {
        let properties = publish.properties.as_deref();
        Self {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: &publish.topic,
            packet_id: publish.packet_id,
            payload: &publish.payload,
            message_expiry: properties.and_then(|p| p.message_expiry),
            topic_alias: properties.and_then(|p| p.topic_alias),
            subscription_ids: properties.map_or(&[], |p| &p.subscription_ids),
            properties: properties.map(|p| &p.message),
        }
    }

    fn flags(&self) -> u8 {
        u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain)
    }

    fn properties_len(&self) -> Result<usize, TooLarge> {
        let mut len =
            fixed(self.message_expiry.is_some(), 4) + fixed(self.topic_alias.is_some(), 2);
        for id in self.subscription_ids {
            len += 1 + varint_len(id.get());
        }
        if let Some(properties) = self.properties {
            len += fixed(properties.payload_is_utf8.is_some(), 1)
                + binary(properties.content_type.as_deref().map(str::as_bytes))?
                + binary(properties.response_topic.as_deref().map(str::as_bytes))?
                + binary(properties.correlation_data.as_deref())?
                + user_len(&properties.user)?;
        }
        Ok(len)
    }

    fn put_properties(&self, buffer: &mut BytesMut) {
        if let Some(is_utf8) = self.properties.and_then(|p| p.payload_is_utf8) {
            buffer.put_slice(&[property::PAYLOAD_FORMAT, u8::from(is_utf8)]);
        }
        if let Some(seconds) = self.message_expiry {
            buffer.put_u8(property::MESSAGE_EXPIRY);
            buffer.put_u32(seconds);
        }
        if let Some(alias) = self.topic_alias {
            buffer.put_u8(property::TOPIC_ALIAS);
            buffer.put_u16(alias.get());
        }
        for id in self.subscription_ids {
            buffer.put_u8(property::SUBSCRIPTION_ID);
            put_varint(buffer, id.get());
        }
        let Some(properties) = self.properties else {
            return;
        };
        if let Some(text) = &properties.content_type {
            buffer.put_u8(property::CONTENT_TYPE);
            put_binary(buffer, text.as_bytes());
        }
        if let Some(topic) = &properties.response_topic {
            buffer.put_u8(property::RESPONSE_TOPIC);
            put_binary(buffer, topic.as_bytes());
        }
        if let Some(data) = &properties.correlation_data {
            buffer.put_u8(property::CORRELATION_DATA);
            put_binary(buffer, data);
        }
        put_user(buffer, &properties.user);
    }
}

/// Appends a PUBLISH.
pub(crate) fn encode_publish(
    parts: &PublishParts<'_>,
    version: ProtocolVersion,
    limit: u32,
    buffer: &mut BytesMut,
) -> Result<(), TooLarge> {
    let properties = if version.is_v5() {
        Some(parts.properties_len()?)
    } else {
        None
    };
    let remaining = binary_len(parts.topic.as_bytes())?
        + if parts.packet_id.is_some() { 2 } else { 0 }
        + properties.map_or(Ok(0), block_len)?
        + parts.payload.len();
    put_header(PacketKind::Publish, parts.flags(), remaining, limit, buffer)?;
    put_binary(buffer, parts.topic.as_bytes());
    if let Some(id) = parts.packet_id {
        buffer.put_u16(id.get());
    }
    if let Some(len) = properties {
        put_varint(buffer, small(len)?);
        parts.put_properties(buffer);
    }
    buffer.put_slice(parts.payload);
    Ok(())
}

/// Appends one of the four acknowledgements in its shortest form (MQTT 5.0, 3.4.2.1: success without properties has
/// no reason code on the wire).
fn encode_ack(
    kind: PacketKind,
    ack: &Ack,
    version: ProtocolVersion,
    limit: u32,
    buffer: &mut BytesMut,
) -> Result<(), TooLarge> {
    let flags = if kind == PacketKind::PubRel {
        0b0010
    } else {
        0
    };
    let words = ack.properties.as_deref().filter(|_| version.is_v5());
    let len = words.map_or(Ok(0), words_len)?;
    if len > 0 {
        let remaining = 3 + block_len(len)?;
        if put_header(kind, flags, remaining, limit, buffer).is_ok() {
            buffer.put_u16(ack.packet_id.get());
            buffer.put_u8(ack.reason.value());
            put_varint(buffer, small(len)?);
            put_words(buffer, words);
            return Ok(());
        }
    }
    let with_reason = version.is_v5() && ack.reason != ReasonCode::Success;
    put_header(kind, flags, if with_reason { 3 } else { 2 }, limit, buffer)?;
    buffer.put_u16(ack.packet_id.get());
    if with_reason {
        buffer.put_u8(ack.reason.value());
    }
    Ok(())
}

fn words_len(words: &AckProperties) -> Result<usize, TooLarge> {
    Ok(binary(words.reason_string.as_deref().map(str::as_bytes))? + user_len(&words.user)?)
}

fn put_words(buffer: &mut BytesMut, words: Option<&AckProperties>) {
    let Some(words) = words else { return };
    if let Some(text) = &words.reason_string {
        buffer.put_u8(property::REASON_STRING);
        put_binary(buffer, text.as_bytes());
    }
    put_user(buffer, &words.user);
}

/// Reserves room for the whole packet and writes its first bytes, if it fits.
fn put_header(
    kind: PacketKind,
    flags: u8,
    remaining: usize,
    limit: u32,
    buffer: &mut BytesMut,
) -> Result<(), TooLarge> {
    let remaining = small(remaining)?;
    let header = 1 + varint_len(remaining);
    let total = u64::from(remaining) + header as u64;
    if total > u64::from(limit) {
        return Err(TooLarge);
    }
    buffer.reserve(usize::try_from(total).unwrap_or(usize::MAX));
    buffer.put_u8((kind as u8) << 4 | flags);
    put_varint(buffer, remaining);
    Ok(())
}

/// The length as the protocol can say it.
fn small(len: usize) -> Result<u32, TooLarge> {
    u32::try_from(len)
        .ok()
        .filter(|len| *len <= VARINT_MAX)
        .ok_or(TooLarge)
}

/// A property block: its length and its bytes.
fn block_len(len: usize) -> Result<usize, TooLarge> {
    Ok(varint_len(small(len)?) + len)
}

/// A property of fixed size, if it is there.
const fn fixed(there: bool, size: usize) -> usize {
    if there { 1 + size } else { 0 }
}

/// A property with a length, if it is there.
fn binary(bytes: Option<&[u8]>) -> Result<usize, TooLarge> {
    bytes.map_or(Ok(0), |bytes| Ok(1 + binary_len(bytes)?))
}

fn binary_len(bytes: &[u8]) -> Result<usize, TooLarge> {
    if bytes.len() > usize::from(u16::MAX) {
        Err(TooLarge)
    } else {
        Ok(2 + bytes.len())
    }
}

fn user_len(user: &UserProperties) -> Result<usize, TooLarge> {
    let mut len = 0;
    for (name, value) in user {
        len += 1 + binary_len(name.as_bytes())? + binary_len(value.as_bytes())?;
    }
    Ok(len)
}

fn put_user(buffer: &mut BytesMut, user: &UserProperties) {
    for (name, value) in user {
        buffer.put_u8(property::USER);
        put_binary(buffer, name.as_bytes());
        put_binary(buffer, value.as_bytes());
    }
}
