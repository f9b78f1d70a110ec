//! What a client is told, read back from the bytes by another codec.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;

use super::V5;
use crate::reason::ProtocolVersion;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Said {
    Publish(Got),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Pong,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Got {
    pub(in super::super) topic: String,
    pub(in super::super) payload: String,
    pub(in super::super) qos: u8,
    pub(in super::super) id: u16,
    pub(in super::super) dup: bool,
    pub(in super::super) retain: bool,
    pub(in super::super) alias: Option<u16>,
    pub(in super::super) expiry: Option<u32>,
    pub(in super::super) subscription_ids: Vec<u32>,
    pub(in super::super) user: Vec<(String, String)>,
}

pub(in super::super) fn messages(said: Vec<Said>) -> Vec<Got> {
    said.into_iter()
        .filter_map(|said| match said {
            Said::Publish(got) => Some(got),
            _ => None,
        })
        .collect()
}

pub(in super::super) fn only(said: &[Said]) -> &Said {
    assert_eq!(said.len(), 1, "{said:?}");
    &said[0]
}

pub(super) fn decode(version: ProtocolVersion, bytes: &[u8]) -> Vec<Said> {
    let mut bytes = BytesMut::from(bytes);
    let mut said = Vec::new();
    if version == V5 {
        let mut codec = v5::Codec::new(1 << 20, 1 << 20);
        while let Some((packet, _)) = codec.decode(&mut bytes).expect("a valid packet") {
            said.push(said_v5(packet));
        }
    } else {
        let mut codec = v3::Codec::new(1 << 20);
        while let Some((packet, _)) = codec.decode(&mut bytes).expect("a valid packet") {
            said.push(said_v3(packet));
        }
    }
    said
}

fn said_v5(packet: v5::Packet) -> Said {
    match packet {
        v5::Packet::Publish(publish) => {
            let properties = publish.properties.clone().unwrap_or_default();
            Said::Publish(Got {
                topic: publish.topic.to_string(),
                payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                qos: publish.qos as u8,
                id: publish.packet_id.map_or(0, NonZeroU16::get),
                dup: publish.dup,
                retain: publish.retain,
                alias: properties.topic_alias.map(NonZeroU16::get),
                expiry: properties.message_expiry_interval.map(NonZeroU32::get),
                subscription_ids: {
                    let mut ids: Vec<_> = properties
                        .subscription_ids
                        .iter()
                        .map(|id| id.get())
                        .collect();
                    ids.sort_unstable();
                    ids
                },
                user: properties
                    .user_properties
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
            })
        },
        v5::Packet::PublishAck(ack) => Said::PubAck(ack.packet_id.get(), ack.reason_code as u8),
        v5::Packet::PublishReceived(ack) => {
            Said::PubRec(ack.packet_id.get(), ack.reason_code as u8)
        },
        v5::Packet::PublishRelease(ack) => Said::PubRel(ack.packet_id.get(), ack.reason_code as u8),
        v5::Packet::PublishComplete(ack) => {
            Said::PubComp(ack.packet_id.get(), ack.reason_code as u8)
        },
        v5::Packet::SubscribeAck(ack) => Said::SubAck(
            ack.packet_id.get(),
            ack.status.iter().map(|code| *code as u8).collect(),
        ),
        v5::Packet::UnsubscribeAck(ack) => Said::UnsubAck(
            ack.packet_id.get(),
            ack.status.iter().map(|code| *code as u8).collect(),
        ),
        v5::Packet::PingResponse => Said::Pong,
        other => panic!("not for a client in a session: {other:?}"),
    }
}

fn said_v3(packet: v3::Packet) -> Said {
    match packet {
        v3::Packet::Publish(publish) => Said::Publish(Got {
            topic: publish.topic.to_string(),
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            qos: publish.qos as u8,
            id: publish.packet_id.map_or(0, NonZeroU16::get),
            dup: publish.dup,
            retain: publish.retain,
            ..Got::default()
        }),
        v3::Packet::PublishAck { packet_id } => Said::PubAck(packet_id.get(), 0),
        v3::Packet::PublishReceived { packet_id } => Said::PubRec(packet_id.get(), 0),
        v3::Packet::PublishRelease { packet_id } => Said::PubRel(packet_id.get(), 0),
        v3::Packet::PublishComplete { packet_id } => Said::PubComp(packet_id.get(), 0),
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |code: &v3::SubscribeReturnCode| match code {
                v3::SubscribeReturnCode::Success(qos) => *qos as u8,
                v3::SubscribeReturnCode::Failure => 0x80,
            };
            Said::SubAck(packet_id.get(), status.iter().map(code).collect())
        },
        v3::Packet::UnsubscribeAck { packet_id } => Said::UnsubAck(packet_id.get(), Vec::new()),
        v3::Packet::PingResponse => Said::Pong,
        other => panic!("not for a client in a session: {other:?}"),
    }
}
