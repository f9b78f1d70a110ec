//! Our packets as the library's, and to bytes.

use std::num::NonZeroU32;

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::{
    types::{Protocol, QoS},
    v3, v5,
};
use tokio_util::codec::Encoder;
use umbel_core::message::Qos;

use super::RECEIVE_MAXIMUM_DEFAULT;
use crate::{
    codec::encode::TooLarge,
    packet::{AckProperties, ConnAck, Connect, Packet, Subscription, UserProperties, Will},
    reason::{ProtocolVersion, ReasonCode},
};

/// Appends one of the packets that are rare.
pub(in crate::codec) fn encode(
    packet: &Packet,
    version: ProtocolVersion,
    limit: u32,
    buffer: &mut BytesMut,
) -> Result<(), TooLarge> {
    let start = buffer.len();
    let is_written = if version.is_v5() {
        // The library counts the body only; it needs the limit to know which words to leave out.
        let body = limit.saturating_sub(5).max(1);
        let mut codec = v5::Codec::new(0, if limit == u32::MAX { 0 } else { body });
        to_v5(packet).is_some_and(|packet| codec.encode(packet, buffer).is_ok())
    } else {
        let mut codec = v3::Codec::new(0);
        to_v3(packet, version).is_some_and(|packet| codec.encode(packet, buffer).is_ok())
    };
    let is_small = u32::try_from(buffer.len() - start).is_ok_and(|len| len <= limit);
    if is_written && is_small {
        return Ok(());
    }
    buffer.truncate(start);
    Err(TooLarge)
}

fn to_v3(packet: &Packet, version: ProtocolVersion) -> Option<v3::Packet> {
    Some(match packet {
        Packet::Connect(connect) => v3::Packet::Connect(Box::new(v3::Connect {
            protocol: Protocol(version.level()),
            clean_session: connect.clean_start,
            keep_alive: connect.keep_alive,
            last_will: connect.will.as_ref().map(|will| v3::LastWill {
                qos: to_qos(will.qos),
                retain: will.retain,
                topic: text(&will.topic),
                message: will.payload.clone(),
            }),
            client_id: text(&connect.client_id),
            username: optional(connect.username.as_deref()),
            password: connect.password.clone(),
            cert: None,
        })),
        Packet::ConnAck(ack) => v3::Packet::ConnectAck(v3::ConnectAck {
            return_code: ack.reason.connack_v3().try_into().ok()?,
            session_present: ack.session_present,
        }),
        Packet::Subscribe(subscribe) => v3::Packet::Subscribe {
            packet_id: subscribe.packet_id,
            topic_filters: subscribe
                .filters
                .iter()
                .map(|one| (text(&one.filter), to_qos(one.options.qos)))
                .collect(),
        },
        Packet::SubAck(ack) => v3::Packet::SubscribeAck {
            packet_id: ack.packet_id,
            status: ack
                .reasons
                .iter()
                .map(|reason| suback_v3(*reason))
                .collect(),
        },
        Packet::Unsubscribe(unsubscribe) => v3::Packet::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            topic_filters: unsubscribe
                .filters
                .iter()
                .map(|filter| text(filter))
                .collect(),
        },
        Packet::UnsubAck(ack) => v3::Packet::UnsubscribeAck {
            packet_id: ack.packet_id,
        },
        Packet::Disconnect(_) => v3::Packet::Disconnect,
        // No such packet before MQTT 5, or written by `super::encode`.
        Packet::Auth(_)
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::PingReq
        | Packet::PingResp => return None,
    })
}

fn suback_v3(reason: ReasonCode) -> v3::SubscribeReturnCode {
    QoS::try_from(reason.suback_v3()).map_or(
        v3::SubscribeReturnCode::Failure,
        v3::SubscribeReturnCode::Success,
    )
}

fn to_v5(packet: &Packet) -> Option<v5::Packet> {
    Some(match packet {
        Packet::Connect(connect) => connect_to_v5(connect),
        Packet::ConnAck(ack) => connack_to_v5(ack),
        Packet::Subscribe(subscribe) => v5::Packet::Subscribe(v5::Subscribe {
            packet_id: subscribe.packet_id,
            id: subscribe.subscription_id,
            user_properties: pairs(&subscribe.user),
            topic_filters: subscribe
                .filters
                .iter()
                .map(subscription_to_v5)
                .collect::<Option<_>>()?,
        }),
        Packet::SubAck(ack) => {
            let (properties, reason_string) = words(ack.properties.as_deref());
            v5::Packet::SubscribeAck(v5::SubscribeAck {
                packet_id: ack.packet_id,
                properties,
                reason_string,
                status: codes(&ack.reasons),
            })
        },
        Packet::Unsubscribe(unsubscribe) => v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            user_properties: pairs(&unsubscribe.user),
            topic_filters: unsubscribe
                .filters
                .iter()
                .map(|filter| text(filter))
                .collect(),
        }),
        Packet::UnsubAck(ack) => {
            let (properties, reason_string) = words(ack.properties.as_deref());
            v5::Packet::UnsubscribeAck(v5::UnsubscribeAck {
                packet_id: ack.packet_id,
                properties,
                reason_string,
                status: codes(&ack.reasons),
            })
        },
        Packet::Disconnect(disconnect) => v5::Packet::Disconnect(v5::Disconnect {
            reason_code: disconnect.reason.value().try_into().ok()?,
            session_expiry_interval_secs: disconnect.session_expiry,
            server_reference: optional(disconnect.server_reference.as_deref()),
            reason_string: optional(disconnect.reason_string.as_deref()),
            user_properties: pairs(&disconnect.user),
        }),
        Packet::Auth(auth) => v5::Packet::Auth(v5::Auth {
            reason_code: auth.reason.value().try_into().ok()?,
            auth_method: optional(auth.method.as_deref()),
            auth_data: auth.data.clone(),
            reason_string: optional(auth.reason_string.as_deref()),
            user_properties: pairs(&auth.user),
        }),
        // Written by `super::encode`.
        Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::PingReq
        | Packet::PingResp => return None,
    })
}

fn connect_to_v5(connect: &Connect) -> v5::Packet {
    v5::Packet::Connect(Box::new(v5::Connect {
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        session_expiry_interval_secs: connect.session_expiry.unwrap_or_default(),
        auth_method: optional(connect.authentication_method.as_deref()),
        auth_data: connect.authentication_data.clone(),
        request_problem_info: connect.request_problem_information,
        request_response_info: connect.request_response_information,
        receive_max: (connect.receive_maximum != RECEIVE_MAXIMUM_DEFAULT)
            .then_some(connect.receive_maximum),
        topic_alias_max: connect.topic_alias_maximum,
        user_properties: pairs(&connect.user),
        max_packet_size: connect.maximum_packet_size,
        last_will: connect.will.as_ref().map(will_to_v5),
        client_id: text(&connect.client_id),
        username: optional(connect.username.as_deref()),
        password: connect.password.clone(),
        cert: None,
    }))
}

fn will_to_v5(will: &Will) -> v5::LastWill {
    let properties = will.properties.as_deref();
    v5::LastWill {
        qos: to_qos(will.qos),
        retain: will.retain,
        topic: text(&will.topic),
        message: will.payload.clone(),
        will_delay_interval_sec: (will.delay > 0).then_some(will.delay),
        correlation_data: properties.and_then(|p| p.correlation_data.clone()),
        message_expiry_interval: will.message_expiry.and_then(NonZeroU32::new),
        content_type: optional(properties.and_then(|p| p.content_type.as_deref())),
        user_properties: properties.map(|p| pairs(&p.user)).unwrap_or_default(),
        is_utf8_payload: properties.and_then(|p| p.payload_is_utf8),
        response_topic: optional(properties.and_then(|p| p.response_topic.as_deref())),
    }
}

fn connack_to_v5(ack: &ConnAck) -> v5::Packet {
    v5::Packet::ConnectAck(Box::new(v5::ConnectAck {
        session_present: ack.session_present,
        // What CONNACK has no code for is a reason to come back later.
        reason_code: ack
            .reason
            .value()
            .try_into()
            .unwrap_or(v5::ConnectAckReason::ServerUnavailable),
        session_expiry_interval_secs: ack.session_expiry,
        receive_max: ack.receive_maximum.unwrap_or(RECEIVE_MAXIMUM_DEFAULT),
        max_qos: to_qos(ack.maximum_qos),
        max_packet_size: ack.maximum_packet_size,
        assigned_client_id: optional(ack.assigned_client_id.as_deref()),
        topic_alias_max: ack.topic_alias_maximum,
        retain_available: ack.retain_available,
        wildcard_subscription_available: ack.wildcard_available,
        subscription_identifiers_available: ack.subscription_ids_available,
        shared_subscription_available: ack.shared_available,
        server_keepalive_sec: ack.server_keep_alive,
        response_info: optional(ack.response_information.as_deref()),
        server_reference: optional(ack.server_reference.as_deref()),
        auth_method: None,
        auth_data: None,
        reason_string: optional(ack.reason_string.as_deref()),
        user_properties: pairs(&ack.user),
    }))
}

fn subscription_to_v5(one: &Subscription) -> Option<(ByteString, v5::SubscriptionOptions)> {
    let options = v5::SubscriptionOptions {
        qos: to_qos(one.options.qos),
        no_local: one.options.no_local,
        retain_as_published: one.options.retain_as_published,
        retain_handling: (one.options.retain_handling as u8).try_into().ok()?,
    };
    Some((text(&one.filter), options))
}

/// A code these packets do not have is told as an unspecified error: an answer must not be lost for it.
fn codes<T: TryFrom<u8>>(reasons: &[ReasonCode]) -> Vec<T> {
    let unspecified = ReasonCode::UnspecifiedError.value();
    let code = |reason: &ReasonCode| {
        T::try_from(reason.value())
            .or_else(|_no_such_code| T::try_from(unspecified))
            .ok()
    };
    reasons.iter().filter_map(code).collect()
}

fn words(properties: Option<&AckProperties>) -> (v5::UserProperties, Option<ByteString>) {
    properties.map_or_else(Default::default, |words| {
        (pairs(&words.user), optional(words.reason_string.as_deref()))
    })
}

fn text(text: &str) -> ByteString {
    ByteString::from(text)
}

fn optional(value: Option<&str>) -> Option<ByteString> {
    value.map(ByteString::from)
}

fn pairs(user: &UserProperties) -> v5::UserProperties {
    user.iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

const fn to_qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}
