//! Bytes to the library's packets, and to ours.

use std::num::NonZeroU32;

use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::{types::QoS, v3, v5};
use tokio_util::codec::Decoder;
use umbel_core::message::{Properties, Qos};

use super::RECEIVE_MAXIMUM_DEFAULT;
use crate::{
    codec::malformed::{Malformed, MalformedCause},
    packet::{
        Auth, Connect, Disconnect, Packet, RetainHandling, Subscribe, SubscribeOptions,
        Subscription, Unsubscribe, UserProperties, Will,
    },
    reason::{ProtocolVersion, ReasonCode},
};

/// Reads one validated frame, fixed header included.
pub(in crate::codec) fn decode(
    frame: BytesMut,
    version: ProtocolVersion,
) -> Result<Packet, Malformed> {
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

const fn from_qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}
