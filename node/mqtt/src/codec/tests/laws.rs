//! Laws of the codec, each a property test that bears its name.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, option, prelude::*};
use rmqtt_codec::{types::QoS as LibraryQos, v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};
use umbel_core::message::{Properties, Qos};

use crate::{
    codec::{Decoded, Decoder, encode},
    packet::{
        Ack, AckProperties, Auth, Connect, Disconnect, Packet, Publish, PublishProperties,
        RetainHandling, Subscribe, SubscribeOptions, Subscription, Unsubscribe, UserProperties,
        Will,
    },
    reason::{ProtocolVersion, ReasonCode},
};

const LIMIT: u32 = 1 << 20;

fn text() -> impl Strategy<Value = String> {
    "[ -~äß𝄞]{0,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-z$/ ö]{1,16}"
}

fn filter() -> impl Strategy<Value = String> {
    prop_oneof![
        topic(),
        Just("a/+/#".to_owned()),
        Just("$share/g/+/b".to_owned())
    ]
    .prop_filter("shared filters have a group", |filter| {
        !filter.starts_with("$share") || filter == "$share/g/+/b"
    })
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn user() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![
        Just(Qos::AtMostOnce),
        Just(Qos::AtLeastOnce),
        Just(Qos::ExactlyOnce)
    ]
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|id| NonZeroU16::new(id).expect("not zero"))
}

fn properties() -> impl Strategy<Value = Properties> {
    (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic()),
        option::of(bytes()),
        user(),
    )
        .prop_map(
            |(payload_is_utf8, content_type, response_topic, correlation_data, user)| Properties {
                payload_is_utf8,
                content_type,
                response_topic,
                correlation_data,
                user,
            },
        )
}

fn publish_properties() -> impl Strategy<Value = PublishProperties> {
    (option::of(any::<u32>()), option::of(id()), properties()).prop_map(
        |(message_expiry, topic_alias, message)| PublishProperties {
            message_expiry,
            topic_alias,
            subscription_ids: Vec::new(),
            message,
        },
    )
}

fn publish() -> impl Strategy<Value = Publish> {
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic(),
        id(),
        bytes(),
        option::of(publish_properties()),
    )
        .prop_map(
            |(dup, qos, retain, topic, id, payload, properties)| Publish {
                dup: dup && qos != Qos::AtMostOnce,
                qos,
                retain,
                topic,
                packet_id: (qos != Qos::AtMostOnce).then_some(id),
                payload,
                properties: properties
                    .filter(|p| *p != PublishProperties::default())
                    .map(Box::new),
            },
        )
}

fn ack(codes: &'static [u8]) -> impl Strategy<Value = Ack> {
    (
        id(),
        prop::sample::select(codes),
        option::of(text()),
        user(),
    )
        .prop_map(|(packet_id, code, reason_string, user)| {
            let words = AckProperties {
                reason_string,
                user,
            };
            Ack {
                packet_id,
                reason: ReasonCode::from_u8(code).expect("a code"),
                properties: (words != AckProperties::default()).then(|| Box::new(words)),
            }
        })
}

fn will() -> impl Strategy<Value = Will> {
    (
        topic(),
        bytes(),
        qos(),
        any::<bool>(),
        any::<u32>(),
        option::of(1..u32::MAX),
        properties(),
    )
        .prop_map(
            |(topic, payload, qos, retain, delay, message_expiry, properties)| Will {
                topic,
                payload,
                qos,
                retain,
                delay,
                message_expiry,
                properties: (properties != Properties::default()).then(|| Box::new(properties)),
            },
        )
}

fn connect() -> impl Strategy<Value = Connect> {
    let who = (
        "[a-z]{1,20}",
        option::of(text()),
        option::of(bytes()),
        option::of(will()),
    );
    let limits = (
        id(),
        option::of(1..u32::MAX),
        any::<u16>(),
        any::<u32>(),
        any::<u16>(),
    );
    let rest = (
        any::<[bool; 3]>(),
        option::of((text(), option::of(bytes()))),
        user(),
    );
    (who, limits, rest).prop_map(|(who, limits, (flags, authentication, user))| {
        let (method, data) = authentication.map_or((None, None), |(m, d)| (Some(m), d));
        Connect {
            version: ProtocolVersion::V5,
            clean_start: flags[0],
            keep_alive: limits.4,
            client_id: who.0,
            username: who.1,
            password: who.2,
            will: who.3,
            session_expiry: Some(limits.3),
            receive_maximum: limits.0,
            maximum_packet_size: limits.1.and_then(NonZeroU32::new),
            topic_alias_maximum: limits.2,
            request_response_information: flags[1],
            request_problem_information: flags[2],
            authentication_method: method,
            authentication_data: data,
            user,
        }
    })
}

fn subscription() -> impl Strategy<Value = Subscription> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::Never)
    ];
    (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && !filter.starts_with("$share");
            let options = SubscribeOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            };
            Subscription { filter, options }
        },
    )
}

fn subscribe() -> impl Strategy<Value = Subscribe> {
    (
        id(),
        option::of(1..=268_435_455_u32),
        vec(subscription(), 1..4),
        user(),
    )
        .prop_map(|(packet_id, subscription_id, filters, user)| Subscribe {
            packet_id,
            subscription_id: subscription_id.and_then(NonZeroU32::new),
            filters,
            user,
        })
}

fn client_packet() -> impl Strategy<Value = Packet> {
    const ACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASE: &[u8] = &[0x00, 0x92];
    prop_oneof![
        4 => publish().prop_map(Packet::Publish),
        1 => ack(ACK).prop_map(Packet::PubAck),
        1 => ack(ACK).prop_map(Packet::PubRec),
        1 => ack(RELEASE).prop_map(Packet::PubRel),
        1 => ack(RELEASE).prop_map(Packet::PubComp),
        2 => subscribe().prop_map(|subscribe| Packet::Subscribe(Box::new(subscribe))),
        1 => (id(), vec(filter(), 1..4), user()).prop_map(|(packet_id, filters, user)| {
            Packet::Unsubscribe(Box::new(Unsubscribe { packet_id, filters, user }))
        }),
        1 => Just(Packet::PingReq),
        1 => (any::<bool>(), option::of(any::<u32>()), option::of(text()), user()).prop_map(
            |(with_will, session_expiry, reason_string, user)| {
                let reason = if with_will {
                    ReasonCode::DisconnectWithWill
                } else {
                    ReasonCode::NORMAL_DISCONNECTION
                };
                let words = Disconnect::new(reason);
                Packet::Disconnect(Box::new(Disconnect { session_expiry, reason_string, user, ..words }))
            },
        ),
        1 => (text(), option::of(bytes()), option::of(text()), user()).prop_map(
            |(method, data, reason_string, user)| Packet::Auth(Box::new(Auth {
                reason: ReasonCode::ReAuthenticate,
                method: Some(method),
                data,
                reason_string,
                user,
            })),
        ),
        1 => connect().prop_map(|connect| Packet::Connect(Box::new(connect))),
    ]
}

/// What is left of a packet of MQTT 5 for a client of 3.1.1; `None` if it has no such packet.
fn older(packet: Packet) -> Option<Packet> {
    let bare = |ack: Ack| Ack::new(ack.packet_id, ReasonCode::Success);
    Some(match packet {
        Packet::Connect(mut connect) => {
            connect.version = ProtocolVersion::V311;
            connect.password = connect.password.filter(|_| connect.username.is_some());
            connect.session_expiry = None;
            connect.receive_maximum = NonZeroU16::MAX;
            connect.maximum_packet_size = None;
            connect.topic_alias_maximum = 0;
            connect.request_response_information = false;
            connect.request_problem_information = true;
            connect.authentication_method = None;
            connect.authentication_data = None;
            connect.user = Vec::new();
            connect.will = connect.will.map(|will| Will {
                delay: 0,
                message_expiry: None,
                properties: None,
                ..will
            });
            Packet::Connect(connect)
        },
        Packet::Publish(publish) => Packet::Publish(Publish {
            properties: None,
            ..publish
        }),
        Packet::PubAck(ack) => Packet::PubAck(bare(ack)),
        Packet::PubRec(ack) => Packet::PubRec(bare(ack)),
        Packet::PubRel(ack) => Packet::PubRel(bare(ack)),
        Packet::PubComp(ack) => Packet::PubComp(bare(ack)),
        Packet::Subscribe(mut subscribe) => {
            subscribe.subscription_id = None;
            subscribe.user = Vec::new();
            for one in &mut subscribe.filters {
                one.options = SubscribeOptions {
                    qos: one.options.qos,
                    ..Default::default()
                };
            }
            Packet::Subscribe(subscribe)
        },
        Packet::Unsubscribe(mut unsubscribe) => {
            unsubscribe.user = Vec::new();
            Packet::Unsubscribe(unsubscribe)
        },
        Packet::Disconnect(_) => {
            Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)))
        },
        Packet::PingReq => Packet::PingReq,
        Packet::ConnAck(_)
        | Packet::SubAck(_)
        | Packet::UnsubAck(_)
        | Packet::PingResp
        | Packet::Auth(_) => return None,
    })
}

fn decoder(packet: &Packet, version: ProtocolVersion) -> Decoder {
    if matches!(packet, Packet::Connect(_)) {
        Decoder::new(LIMIT)
    } else {
        Decoder::opened(version, LIMIT)
    }
}

fn encoded(packet: &Packet, version: ProtocolVersion) -> BytesMut {
    let mut buffer = BytesMut::new();
    encode(packet, version, u32::MAX, &mut buffer).expect("fits");
    buffer
}

fn comes_back(packet: Packet, version: ProtocolVersion) -> Result<(), TestCaseError> {
    let decoder = decoder(&packet, version);
    let mut bytes = encoded(&packet, version);
    let len = bytes.len();
    // A packet never reads into the next one.
    bytes.extend_from_slice(&[0xC0, 0x00]);
    prop_assert_eq!(decoder.decode(&bytes), Ok(Decoded::Packet(packet, len)));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read(packet in client_packet()) {
        comes_back(packet.clone(), ProtocolVersion::V5)?;
        if let Some(packet) = older(packet) {
            comes_back(packet, ProtocolVersion::V311)?;
        }
    }

    #[test]
    fn a_packet_cut_anywhere_waits_for_the_rest(packet in client_packet()) {
        for (packet, version) in [
            (Some(packet.clone()), ProtocolVersion::V5),
            (older(packet), ProtocolVersion::V311),
        ] {
            let Some(packet) = packet else { continue };
            let decoder = decoder(&packet, version);
            let bytes = encoded(&packet, version);
            for cut in 0..bytes.len() {
                match decoder.decode(&bytes[..cut]) {
                    Ok(Decoded::Incomplete { needed }) => {
                        prop_assert!(needed > cut && needed <= bytes.len().max(2));
                    },
                    other => prop_assert!(false, "cut at {}: {:?}", cut, other),
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..64), mut first in any::<u8>()) {
        for decoder in [
            Decoder::new(LIMIT),
            Decoder::opened(ProtocolVersion::V31, LIMIT),
            Decoder::opened(ProtocolVersion::V311, LIMIT),
            Decoder::opened(ProtocolVersion::V5, LIMIT),
        ] {
            drop(decoder.decode(&bytes));
            // And again as the body of a packet whose length is right, so that bodies are reached.
            first = first.rotate_left(1);
            drop(decoder.decode(&super::packet(first, &bytes)));
        }
    }

    #[test]
    fn changed_packets_never_panic(packet in client_packet(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let decoder = decoder(&packet, ProtocolVersion::V5);
        let mut bytes = encoded(&packet, ProtocolVersion::V5);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Decoded::Packet(_, len)) = decoder.decode(&bytes) {
            prop_assert!(len <= bytes.len());
        }
    }

    #[test]
    fn nothing_above_the_limit_is_written(packet in client_packet(), limit in 2_u32..300) {
        let mut buffer = BytesMut::from(&b"before"[..]);
        if encode(&packet, ProtocolVersion::V5, limit, &mut buffer).is_ok() {
            prop_assert!(buffer.len() - 6 <= limit as usize);
        } else {
            prop_assert_eq!(&buffer[..], b"before");
        }
    }

    #[test]
    fn library_reads_our_publish_as_we_meant_it(publish in publish()) {
        let mut bytes = encoded(&Packet::Publish(publish.clone()), ProtocolVersion::V5);
        let zero_expiry = publish.properties.as_ref().is_some_and(|p| p.message_expiry == Some(0));
        prop_assume!(!zero_expiry); // the library refuses what the standard allows
        let read = v5::Codec::new(0, 0).decode(&mut bytes).expect("valid").expect("whole").0;
        let v5::Packet::Publish(theirs) = read else { panic!("a PUBLISH") };
        prop_assert_eq!(&theirs.payload, &publish.payload);
        prop_assert_eq!(AsRef::<str>::as_ref(&theirs.topic), &publish.topic);
        prop_assert_eq!(theirs.packet_id, publish.packet_id);
        let ours = publish.properties.unwrap_or_default();
        let theirs = theirs.properties.expect("MQTT 5");
        prop_assert_eq!(theirs.topic_alias, ours.topic_alias);
        prop_assert_eq!(theirs.correlation_data, ours.message.correlation_data);
        prop_assert_eq!(theirs.message_expiry_interval.map(NonZeroU32::get), ours.message_expiry);
        prop_assert_eq!(theirs.user_properties.len(), ours.message.user.len());
        prop_assert_eq!(theirs.is_utf8_payload, ours.message.payload_is_utf8 == Some(true));
    }

    #[test]
    fn we_read_publish_of_the_library(publish in publish()) {
        let theirs = rmqtt_codec::types::Publish {
            dup: publish.dup,
            retain: publish.retain,
            qos: LibraryQos::try_from(publish.qos as u8).expect("0 to 2"),
            topic: publish.topic.clone().into(),
            packet_id: publish.packet_id,
            payload: publish.payload.clone(),
            properties: None,
        };
        let expected = Packet::Publish(Publish { properties: None, ..publish });
        let mut bytes = BytesMut::new();
        v5::Codec::new(0, 0).encode(v5::Packet::Publish(Box::new(theirs.clone())), &mut bytes).expect("valid");
        let len = bytes.len();
        prop_assert_eq!(
            Decoder::opened(ProtocolVersion::V5, LIMIT).decode(&bytes),
            Ok(Decoded::Packet(expected.clone(), len))
        );
        let mut bytes = BytesMut::new();
        v3::Codec::new(0).encode(v3::Packet::Publish(Box::new(theirs)), &mut bytes).expect("valid");
        prop_assert_eq!(&bytes, &encoded(&expected, ProtocolVersion::V311));
    }
}
