//! What only a server writes, read by a client that is not ours.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{
        ConnectReturnCode, DisconnectReasonCode, Packet as Foreign, PubAckReason,
        SubscribeReasonCode, UnsubAckReason,
    },
};
use umbel_core::{
    message::{Message, Properties, Qos},
    time::Timestamp,
};

use crate::{
    codec::encode,
    outgoing::{Delivery, Outgoing},
    packet::{Ack, AckProperties, ConnAck, Disconnect, Packet, PacketKind, SubAck},
    reason::{ProtocolVersion, ReasonCode},
};

const ID: NonZeroU16 = NonZeroU16::MAX;

fn read(out: &Outgoing) -> Foreign {
    let mut bytes = BytesMut::from(out.bytes());
    let packet = Foreign::read(&mut bytes, None).expect("valid");
    assert!(bytes.is_empty(), "nothing is left over");
    packet
}

fn written(packet: &Packet) -> Foreign {
    let mut out = Outgoing::new(ProtocolVersion::V5, None, true);
    // Below the door that takes no code which a packet does not have.
    encode(packet, ProtocolVersion::V5, u32::MAX, out.buffer_mut()).expect("fits");
    read(&out)
}

fn words() -> AckProperties {
    let user = vec![("k".to_owned(), "v".to_owned())];
    AckProperties {
        reason_string: Some("why".to_owned()),
        user,
    }
}

#[test]
fn connack_says_everything() {
    let ack = ConnAck {
        session_expiry: Some(7),
        receive_maximum: NonZeroU16::new(100),
        maximum_qos: Qos::AtLeastOnce,
        retain_available: false,
        maximum_packet_size: Some(1_000),
        assigned_client_id: Some("auto-1".to_owned()),
        topic_alias_maximum: 8,
        reason_string: Some("hello".to_owned()),
        user: vec![("k".to_owned(), "v".to_owned())],
        wildcard_available: false,
        subscription_ids_available: false,
        shared_available: false,
        server_keep_alive: Some(1_200),
        response_information: Some("r".to_owned()),
        server_reference: Some("other".to_owned()),
        ..ConnAck::accepted(true)
    };
    let Foreign::ConnAck(theirs) = written(&Packet::ConnAck(Box::new(ack))) else {
        panic!("a CONNACK");
    };
    assert!(theirs.session_present);
    assert_eq!(theirs.code, ConnectReturnCode::Success);
    let properties = theirs.properties.expect("properties");
    assert_eq!(properties.session_expiry_interval, Some(7));
    assert_eq!(properties.receive_max, Some(100));
    assert_eq!(properties.max_qos, Some(1));
    assert_eq!(properties.retain_available, Some(0));
    assert_eq!(properties.max_packet_size, Some(1_000));
    assert_eq!(
        properties.assigned_client_identifier.as_deref(),
        Some("auto-1")
    );
    assert_eq!(properties.topic_alias_max, Some(8));
    assert_eq!(properties.reason_string.as_deref(), Some("hello"));
    assert_eq!(properties.user_properties.len(), 1);
    assert_eq!(properties.wildcard_subscription_available, Some(0));
    assert_eq!(properties.subscription_identifiers_available, Some(0));
    assert_eq!(properties.shared_subscription_available, Some(0));
    assert_eq!(properties.server_keep_alive, Some(1_200));
    assert_eq!(properties.response_information.as_deref(), Some("r"));
    assert_eq!(properties.server_reference.as_deref(), Some("other"));
}

#[test]
fn refusals_are_always_told() {
    let code = |reason| {
        let packet = Packet::ConnAck(Box::new(ConnAck::refused(reason)));
        let Foreign::ConnAck(theirs) = written(&packet) else {
            panic!("a CONNACK")
        };
        theirs.code
    };
    assert_eq!(
        code(ReasonCode::NotAuthorized),
        ConnectReturnCode::NotAuthorized
    );
    // CONNACK has no code for this one.
    assert_eq!(
        code(ReasonCode::ServerShuttingDown),
        ConnectReturnCode::ServerUnavailable
    );

    let legal = |reason: &&ReasonCode| reason.may_stand_in(PacketKind::Disconnect);
    for &reason in ReasonCode::ALL.iter().filter(legal) {
        let goodbye = Packet::Disconnect(Box::new(Disconnect::new(reason)));
        let mut out = Outgoing::new(ProtocolVersion::V5, None, true);
        assert!(out.push(&goodbye).is_ok(), "{reason:?}");
    }
    let goodbye = Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::ServerShuttingDown)));
    let Foreign::Disconnect(theirs) = written(&goodbye) else {
        panic!("a DISCONNECT")
    };
    assert_eq!(theirs.reason_code, DisconnectReasonCode::ServerShuttingDown);
}

#[test]
fn answers_to_subscriptions_keep_their_order() {
    let reasons = vec![
        ReasonCode::GrantedQos2,
        ReasonCode::NotAuthorized,
        ReasonCode::GRANTED_QOS0,
        ReasonCode::PacketTooLarge, // not one SUBACK has
    ];
    let ack = SubAck {
        packet_id: ID,
        reasons,
        properties: Some(Box::new(words())),
    };
    let Foreign::SubAck(theirs) = written(&Packet::SubAck(Box::new(ack))) else {
        panic!("a SUBACK");
    };
    assert_eq!(theirs.pkid, ID.get());
    assert_eq!(theirs.return_codes.len(), 4);
    assert_eq!(theirs.return_codes[1], SubscribeReasonCode::NotAuthorized);
    assert_eq!(theirs.return_codes[3], SubscribeReasonCode::Unspecified);
    assert_eq!(
        theirs.properties.expect("words").reason_string.as_deref(),
        Some("why")
    );

    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let ack = SubAck {
        packet_id: ID,
        reasons,
        properties: None,
    };
    let Foreign::UnsubAck(theirs) = written(&Packet::UnsubAck(Box::new(ack))) else {
        panic!("an UNSUBACK");
    };
    assert_eq!(theirs.reasons[1], UnsubAckReason::NoSubscriptionExisted);
}

#[test]
fn words_go_before_the_packet_does() {
    let ack = Ack {
        properties: Some(Box::new(words())),
        ..Ack::new(ID, ReasonCode::QuotaExceeded)
    };
    let packet = Packet::PubAck(ack);
    let Foreign::PubAck(theirs) = written(&packet) else {
        panic!("a PUBACK")
    };
    assert_eq!(theirs.reason, PubAckReason::QuotaExceeded);
    assert_eq!(theirs.properties.expect("words").user_properties.len(), 1);
    // Too little room, and a client that wants no words.
    for mut out in [
        Outgoing::new(ProtocolVersion::V5, std::num::NonZeroU32::new(6), true),
        Outgoing::new(ProtocolVersion::V5, None, false),
    ] {
        out.push(&packet).expect("fits without words");
        assert_eq!(out.bytes(), [0x40, 3, 0xFF, 0xFF, 0x97]);
    }
}

#[test]
fn deliveries_carry_what_the_publisher_and_the_subscription_said() {
    let properties = Properties {
        payload_is_utf8: Some(false),
        content_type: Some("text".to_owned()),
        response_topic: Some("r/t".to_owned()),
        correlation_data: Some(Bytes::from_static(b"data")),
        user: vec![
            ("a".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
        ],
    };
    let now = Timestamp::from_millis(0);
    let payload = Bytes::from_static(b"payload");
    let mut message = Message::from_cluster("t".to_owned(), payload, Qos::AtLeastOnce, now);
    message.properties = Some(Box::new(properties));
    let ids = [3, 268_435_455].map(|id| std::num::NonZeroU32::new(id).expect("not zero"));
    let delivery = Delivery {
        packet_id: Some(ID),
        qos: Qos::AtLeastOnce,
        dup: true,
        retain: true,
        message_expiry: Some(0),
        topic_alias: NonZeroU16::new(5),
        alias_is_known: true,
        subscription_ids: &ids,
    };
    let mut out = Outgoing::new(ProtocolVersion::V5, None, true);
    out.deliver(&message, &delivery).expect("fits");
    let Foreign::Publish(theirs) = read(&out) else {
        panic!("a PUBLISH")
    };
    assert!(theirs.dup && theirs.retain && theirs.topic.is_empty());
    assert_eq!(
        (theirs.pkid, &theirs.payload[..]),
        (ID.get(), &b"payload"[..])
    );
    let properties = theirs.properties.expect("properties");
    assert_eq!(properties.payload_format_indicator, Some(0));
    assert_eq!(properties.message_expiry_interval, Some(0));
    assert_eq!(properties.topic_alias, Some(5));
    assert_eq!(properties.subscription_identifiers, [3, 268_435_455]);
    assert_eq!(properties.user_properties.len(), 2);
    assert_eq!(properties.correlation_data.as_deref(), Some(&b"data"[..]));

    let mut out = Outgoing::new(ProtocolVersion::V311, None, true);
    let delivery = Delivery {
        topic_alias: None,
        alias_is_known: false,
        ..delivery
    };
    out.deliver(&message, &delivery).expect("fits");
    let mut bytes = BytesMut::from(out.bytes());
    let Ok(v4::Packet::Publish(theirs)) = v4::Packet::read(&mut bytes, 1_000) else {
        panic!("a PUBLISH")
    };
    assert_eq!(
        (theirs.topic.as_str(), &theirs.payload[..]),
        ("t", &b"payload"[..])
    );
}
