//! Bytes to packets, as a server reads them: only what a client may send is accepted.

use std::{cmp::Ordering, num::NonZeroU16};

use bytes::{Bytes, BytesMut};
use umbel_core::message::{Properties, Qos};

use super::{
    library,
    malformed::{Malformed, MalformedCause},
    property::{Allowed, Value, walk},
    reader::{Reader, varint},
    validate,
    wire::property as id,
};
use crate::{
    packet::{Ack, AckProperties, Packet, PacketKind, Publish, PublishProperties},
    reason::{ProtocolVersion, ReasonCode},
};

/// Reads packets of one connection from the start of whatever bytes there are. Keeps no bytes itself.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Unknown until CONNECT came.
    version: Option<ProtocolVersion>,
    limit: u32,
}

/// What the start of some bytes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A packet, and how many bytes it took.
    Packet(Packet, usize),
    /// A packet that has not come completely.
    Incomplete {
        /// How many bytes it takes, as far as known: at least one more than there are.
        needed: usize,
    },
}

impl Decoder {
    /// For a new connection: the only packet accepted is a CONNECT of at most `limit` bytes.
    pub const fn new(limit: u32) -> Self {
        Self {
            version: None,
            limit,
        }
    }

    /// For a connection that has been opened with `version` and may send packets of at most `limit` bytes.
    pub const fn opened(version: ProtocolVersion, limit: u32) -> Self {
        Self {
            version: Some(version),
            limit,
        }
    }

    /// Reads the packet at the start of `bytes`. What can be refused by its first bytes is, before the rest has come.
    pub fn decode(self, bytes: &[u8]) -> Result<Decoded, Malformed> {
        self.split(bytes).map_err(|error| Malformed {
            version: self.version.or(error.version),
            ..error
        })
    }

    fn split(self, bytes: &[u8]) -> Result<Decoded, Malformed> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(Decoded::Incomplete { needed: 2 });
        };
        let kind = self.kind(first)?;
        let Some((remaining, len_bytes)) = varint(rest)? else {
            return Ok(Decoded::Incomplete {
                needed: bytes.len() + 1,
            });
        };
        let header = 1 + len_bytes;
        let total = header as u64 + u64::from(remaining);
        if total > u64::from(self.limit) {
            return Err(MalformedCause::TooLarge.into());
        }
        self.check_remaining(kind, remaining)?;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let Some(frame) = bytes.get(..total) else {
            return Ok(Decoded::Incomplete { needed: total });
        };
        let body = frame.get(header..).unwrap_or_default();
        Ok(Decoded::Packet(
            self.packet(kind, first, frame, body)?,
            total,
        ))
    }

    /// Judges the first byte: the type, whether it may come from a client, and come now, and its flags.
    fn kind(self, first: u8) -> Result<PacketKind, Malformed> {
        let kind =
            PacketKind::of_first_byte(first).ok_or(Malformed::new(MalformedCause::PacketType))?;
        let required_flags = match kind {
            PacketKind::Publish if first & 0b0110 == 0b0110 => {
                return Err(MalformedCause::Qos.into());
            },
            PacketKind::Publish => first & 0x0F,
            PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => 0b0010,
            PacketKind::ConnAck
            | PacketKind::SubAck
            | PacketKind::UnsubAck
            | PacketKind::PingResp => {
                return Err(MalformedCause::Direction.into());
            },
            PacketKind::Auth if self.version.is_some_and(|version| !version.is_v5()) => {
                return Err(MalformedCause::PacketType.into());
            },
            PacketKind::Connect
            | PacketKind::PubAck
            | PacketKind::PubRec
            | PacketKind::PubComp
            | PacketKind::PingReq
            | PacketKind::Disconnect
            | PacketKind::Auth => 0,
        };
        match (self.version, kind) {
            (None, PacketKind::Connect) => {},
            (None, _) => return Err(MalformedCause::NotConnect.into()),
            (Some(_), PacketKind::Connect) => return Err(MalformedCause::SecondConnect.into()),
            (Some(_), _) => {},
        }
        if first & 0x0F != required_flags {
            return Err(MalformedCause::HeaderFlags.into());
        }
        Ok(kind)
    }

    /// Judges the length of packets that have only one.
    fn check_remaining(self, kind: PacketKind, remaining: u32) -> Result<(), Malformed> {
        let is_v5 = self.version.is_some_and(ProtocolVersion::is_v5);
        let is_ack = matches!(
            kind,
            PacketKind::PubAck | PacketKind::PubRec | PacketKind::PubRel | PacketKind::PubComp
        );
        let exact = if kind == PacketKind::PingReq || (kind == PacketKind::Disconnect && !is_v5) {
            0
        } else if is_ack && !is_v5 {
            2
        } else {
            return Ok(());
        };
        match remaining.cmp(&exact) {
            Ordering::Greater => Err(MalformedCause::TrailingBytes.into()),
            Ordering::Less => Err(MalformedCause::Truncated.into()),
            Ordering::Equal => Ok(()),
        }
    }

    fn packet(
        self,
        kind: PacketKind,
        first: u8,
        frame: &[u8],
        body: &[u8],
    ) -> Result<Packet, Malformed> {
        let Some(version) = self.version else {
            return connect(frame, body);
        };
        match kind {
            PacketKind::Publish => publish(first, body, version).map(Packet::Publish),
            PacketKind::PubAck => ack(kind, body, version).map(Packet::PubAck),
            PacketKind::PubRec => ack(kind, body, version).map(Packet::PubRec),
            PacketKind::PubRel => ack(kind, body, version).map(Packet::PubRel),
            PacketKind::PubComp => ack(kind, body, version).map(Packet::PubComp),
            PacketKind::PingReq => Ok(Packet::PingReq),
            PacketKind::Subscribe => {
                validate::subscribe(body, version)?;
                library::decode(BytesMut::from(frame), version)
            },
            PacketKind::Unsubscribe => {
                validate::unsubscribe(body, version)?;
                library::decode(BytesMut::from(frame), version)
            },
            PacketKind::Disconnect => {
                validate::disconnect(body, version)?;
                library::decode(BytesMut::from(frame), version)
            },
            PacketKind::Auth => {
                validate::auth(body)?;
                library::decode(BytesMut::from(frame), version)
            },
            // Refused by their first byte.
            PacketKind::Connect
            | PacketKind::ConnAck
            | PacketKind::SubAck
            | PacketKind::UnsubAck
            | PacketKind::PingResp => Err(MalformedCause::Direction.into()),
        }
    }
}

/// Reads a CONNECT. Two things MQTT 5 allows and the library does not are bent before and straightened after.
fn connect(frame: &[u8], body: &[u8]) -> Result<Packet, Malformed> {
    let valid = validate::connect(body)?;
    let header = frame.len() - body.len();
    let mut bytes = BytesMut::from(frame);
    if let Some(at) = valid.assign_without_clean_start
        && let Some(flags) = bytes.get_mut(header + at)
    {
        *flags |= validate::ValidConnect::CLEAN_START;
    }
    if let Some(at) = valid.will_expiry_zero
        && let Some(lowest) = bytes.get_mut(header + at + 3)
    {
        *lowest = 1;
    }
    let mut packet = library::decode(bytes, valid.version).map_err(|error| Malformed {
        version: Some(valid.version),
        ..error
    })?;
    if let Packet::Connect(connect) = &mut packet {
        if valid.assign_without_clean_start.is_some() {
            connect.clean_start = false;
        }
        if let (Some(_), Some(will)) = (valid.will_expiry_zero, &mut connect.will) {
            will.message_expiry = Some(0);
        }
    }
    Ok(packet)
}

fn publish(first: u8, body: &[u8], version: ProtocolVersion) -> Result<Publish, Malformed> {
    let dup = first & 0b1000 != 0;
    let qos = match first & 0b0110 {
        0 => Qos::AtMostOnce,
        0b0010 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    };
    if dup && qos == Qos::AtMostOnce {
        return Err(MalformedCause::Qos.into()); // MQTT-3.3.1-2
    }
    let mut reader = Reader::new(body);
    // An empty topic is judged when it is known whether an alias stands for it.
    let is_topic_empty = body.starts_with(&[0, 0]);
    let topic = if is_topic_empty {
        reader.text()?
    } else {
        reader.topic()?
    };
    let packet_id = if qos == Qos::AtMostOnce {
        None
    } else {
        Some(reader.packet_id()?)
    };
    let properties = if version.is_v5() {
        publish_properties(&mut reader)?
    } else {
        None
    };
    let has_alias = properties.as_ref().is_some_and(|p| p.topic_alias.is_some());
    if is_topic_empty && !has_alias {
        return Err(match version {
            ProtocolVersion::V5 => MalformedCause::MissingTopic,
            ProtocolVersion::V31 | ProtocolVersion::V311 => MalformedCause::TopicName,
        }
        .into());
    }
    Ok(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        topic: topic.to_owned(),
        packet_id,
        payload: Bytes::copy_from_slice(reader.rest()),
        properties,
    })
}

fn publish_properties(
    reader: &mut Reader<'_>,
) -> Result<Option<Box<PublishProperties>>, Malformed> {
    if reader.rest().first() == Some(&0) {
        reader.u8()?;
        return Ok(None);
    }
    let mut properties = Box::<PublishProperties>::default();
    let Properties {
        payload_is_utf8,
        content_type,
        response_topic,
        correlation_data,
        user,
    } = &mut properties.message;
    let (message_expiry, topic_alias) =
        (&mut properties.message_expiry, &mut properties.topic_alias);
    walk(reader, Allowed::PUBLISH, |id, value, _| match (id, value) {
        (id::PAYLOAD_FORMAT, Value::Byte(byte)) => *payload_is_utf8 = Some(byte == 1),
        (id::MESSAGE_EXPIRY, Value::Four(seconds)) => *message_expiry = Some(seconds),
        (id::CONTENT_TYPE, Value::Text(text)) => *content_type = Some(text.to_owned()),
        (id::RESPONSE_TOPIC, Value::Text(text)) => *response_topic = Some(text.to_owned()),
        (id::CORRELATION_DATA, Value::Binary(bytes)) => {
            *correlation_data = Some(Bytes::copy_from_slice(bytes));
        },
        (id::TOPIC_ALIAS, Value::Two(alias)) => *topic_alias = NonZeroU16::new(alias),
        (id::USER, Value::Pair(name, value)) => user.push((name.to_owned(), value.to_owned())),
        _ => {},
    })?;
    Ok(Some(properties))
}

fn ack(kind: PacketKind, body: &[u8], version: ProtocolVersion) -> Result<Ack, Malformed> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if !version.is_v5() || reader.is_empty() {
        reader.finish()?;
        return Ok(Ack::new(packet_id, ReasonCode::Success));
    }
    let code = reader.u8()?;
    let is_release = matches!(kind, PacketKind::PubRel | PacketKind::PubComp);
    let is_allowed = if is_release {
        matches!(code, 0x00 | 0x92)
    } else {
        matches!(
            code,
            0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
        )
    };
    let reason = ReasonCode::from_u8(code)
        .filter(|_| is_allowed)
        .ok_or(Malformed::new(MalformedCause::ReasonCode))?;
    let mut words = AckProperties::default();
    if !reader.is_empty() {
        walk(&mut reader, Allowed::ACK, |id, value, _| {
            match (id, value) {
                (id::REASON_STRING, Value::Text(text)) => {
                    words.reason_string = Some(text.to_owned());
                },
                (id::USER, Value::Pair(name, value)) => {
                    words.user.push((name.to_owned(), value.to_owned()));
                },
                _ => {},
            }
        })?;
    }
    reader.finish()?;
    let properties = (words != AckProperties::default()).then(|| Box::new(words));
    Ok(Ack {
        packet_id,
        reason,
        properties,
    })
}
