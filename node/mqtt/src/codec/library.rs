//! `rmqtt-codec`, and the only file that knows it.
//!
//! Frames come here after [`super::validate`] has judged them, so an error of the library is a difference of opinion: it is
//! reported as malformed, never trusted to be something else.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::{
    types::{Protocol, QoS},
    v3, v5,
};
use tokio_util::codec::{Decoder, Encoder};
use umbel_core::message::{Properties, Qos};

use super::{
    encode::TooLarge,
    malformed::{Malformed, MalformedCause},
};
use crate::{
    packet::{
        AckProperties, Auth, ConnAck, Connect, Disconnect, Packet, RetainHandling, Subscribe,
        SubscribeOptions, Subscription, Unsubscribe, UserProperties, Will,
    },
    reason::{ProtocolVersion, ReasonCode},
};

const RECEIVE_MAXIMUM_DEFAULT: NonZeroU16 = NonZeroU16::MAX;

/// Appends one of the packets that are rare.
pub(super) fn encode(
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

const fn from_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

/// Reads one validated frame, fixed header included.
pub(super) fn decode(frame: BytesMut, version: ProtocolVersion) -> Result<Packet, Malformed> {
    let mut frame = frame;
    let packet = if version.is_v5() {
        v5::Codec::new(0, 0)
            .decode(&mut frame)
            .ok()
            .flatten()
            .and_then(|(p, _)| from_v5(p))
    } else {
        v3::Codec::new(0)
            .decode(&mut frame)
            .ok()
            .flatten()
            .and_then(|(packet, _)| from_v3(packet, version))
    };
    packet.ok_or_else(|| Malformed::new(MalformedCause::Library))
}

fn from_v3(packet: v3::Packet, version: ProtocolVersion) -> Option<Packet> {
    Some(match packet {
        v3::Packet::Connect(connect) => Packet::Connect(Box::new(Connect {
            version,
            clean_start: connect.clean_session,
            keep_alive: connect.keep_alive,
            client_id: string(&connect.client_id),
            username: connect.username.as_ref().map(string),
            password: connect.password,
            will: connect.last_will.map(|will| Will {
                topic: string(&will.topic),
                payload: will.message,
                qos: from_qos(will.qos),
                retain: will.retain,
                delay: 0,
                message_expiry: None,
                properties: None,
            }),
            session_expiry: None,
            receive_maximum: RECEIVE_MAXIMUM_DEFAULT,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user: Vec::new(),
        })),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => {
            let filters = topic_filters.into_iter().map(|(filter, qos)| Subscription {
                filter: string(&filter),
                options: SubscribeOptions {
                    qos: from_qos(qos),
                    ..SubscribeOptions::default()
                },
            });
            Packet::Subscribe(Box::new(Subscribe {
                packet_id,
                subscription_id: None,
                filters: filters.collect(),
                user: Vec::new(),
            }))
        },
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id,
            filters: topic_filters.iter().map(string).collect(),
            user: Vec::new(),
        })),
        v3::Packet::Disconnect => {
            Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)))
        },
        // Never from a client, or read by `super::decode`.
        v3::Packet::ConnectAck(_)
        | v3::Packet::Publish(_)
        | v3::Packet::PublishAck { .. }
        | v3::Packet::PublishReceived { .. }
        | v3::Packet::PublishRelease { .. }
        | v3::Packet::PublishComplete { .. }
        | v3::Packet::SubscribeAck { .. }
        | v3::Packet::UnsubscribeAck { .. }
        | v3::Packet::PingRequest
        | v3::Packet::PingResponse => return None,
    })
}

fn from_v5(packet: v5::Packet) -> Option<Packet> {
    Some(match packet {
        v5::Packet::Connect(connect) => Packet::Connect(Box::new(connect_from_v5(*connect))),
        v5::Packet::Subscribe(subscribe) => Packet::Subscribe(Box::new(Subscribe {
            packet_id: subscribe.packet_id,
            subscription_id: subscribe.id,
            filters: subscribe
                .topic_filters
                .into_iter()
                .map(subscription_from_v5)
                .collect(),
            user: strings(&subscribe.user_properties),
        })),
        v5::Packet::Unsubscribe(unsubscribe) => Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: unsubscribe.packet_id,
            filters: unsubscribe.topic_filters.iter().map(string).collect(),
            user: strings(&unsubscribe.user_properties),
        })),
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(Box::new(Disconnect {
            reason: ReasonCode::from_u8(disconnect.reason_code.into())?,
            session_expiry: disconnect.session_expiry_interval_secs,
            reason_string: disconnect.reason_string.as_ref().map(string),
            user: strings(&disconnect.user_properties),
            server_reference: disconnect.server_reference.as_ref().map(string),
        })),
        v5::Packet::Auth(auth) => Packet::Auth(Box::new(Auth {
            reason: ReasonCode::from_u8(auth.reason_code.into())?,
            method: auth.auth_method.as_ref().map(string),
            data: auth.auth_data,
            reason_string: auth.reason_string.as_ref().map(string),
            user: strings(&auth.user_properties),
        })),
        // Never from a client, or read by `super::decode`.
        v5::Packet::ConnectAck(_)
        | v5::Packet::Publish(_)
        | v5::Packet::PublishAck(_)
        | v5::Packet::PublishReceived(_)
        | v5::Packet::PublishRelease(_)
        | v5::Packet::PublishComplete(_)
        | v5::Packet::SubscribeAck(_)
        | v5::Packet::UnsubscribeAck(_)
        | v5::Packet::PingRequest
        | v5::Packet::PingResponse => return None,
    })
}

fn connect_from_v5(connect: v5::Connect) -> Connect {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: connect.clean_start,
        keep_alive: connect.keep_alive,
        client_id: string(&connect.client_id),
        username: connect.username.as_ref().map(string),
        password: connect.password,
        will: connect.last_will.map(will_from_v5),
        session_expiry: Some(connect.session_expiry_interval_secs),
        receive_maximum: connect.receive_max.unwrap_or(RECEIVE_MAXIMUM_DEFAULT),
        maximum_packet_size: connect.max_packet_size,
        topic_alias_maximum: connect.topic_alias_max,
        request_response_information: connect.request_response_info,
        request_problem_information: connect.request_problem_info,
        authentication_method: connect.auth_method.as_ref().map(string),
        authentication_data: connect.auth_data,
        user: strings(&connect.user_properties),
    }
}

fn will_from_v5(will: v5::LastWill) -> Will {
    let properties = Properties {
        payload_is_utf8: will.is_utf8_payload,
        content_type: will.content_type.as_ref().map(string),
        response_topic: will.response_topic.as_ref().map(string),
        correlation_data: will.correlation_data,
        user: strings(&will.user_properties),
    };
    Will {
        topic: string(&will.topic),
        payload: will.message,
        qos: from_qos(will.qos),
        retain: will.retain,
        delay: will.will_delay_interval_sec.unwrap_or_default(),
        message_expiry: will.message_expiry_interval.map(NonZeroU32::get),
        properties: (properties != Properties::default()).then(|| Box::new(properties)),
    }
}

fn subscription_from_v5(one: (ByteString, v5::SubscriptionOptions)) -> Subscription {
    let (filter, options) = one;
    Subscription {
        filter: string(&filter),
        options: SubscribeOptions {
            qos: from_qos(options.qos),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: match options.retain_handling {
                v5::RetainHandling::AtSubscribe => RetainHandling::Send,
                v5::RetainHandling::AtSubscribeNew => RetainHandling::SendIfNew,
                v5::RetainHandling::NoAtSubscribe => RetainHandling::Never,
            },
        },
    }
}

fn string(text: &ByteString) -> String {
    AsRef::<str>::as_ref(text).to_owned()
}

fn strings(user: &v5::UserProperties) -> UserProperties {
    user.iter()
        .map(|(name, value)| (string(name), string(value)))
        .collect()
}
