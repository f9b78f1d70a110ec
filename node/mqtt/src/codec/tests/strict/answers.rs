//! Acknowledgements, DISCONNECT and AUTH of a client, and the codes that causes have.

use super::*;
use crate::reason::ReasonCode;

#[test]
fn acknowledgements_are_judged() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        for version in [V3, V5] {
            refuses(version, "id 0", &packet(first, &[0, 0]), Cause::PacketId);
            accepts(version, "short form", &packet(first, &[0, 1]));
        }
        refuses(V5, "no id", &packet(first, &[0]), Cause::Truncated);
        refuses(
            V5,
            "no such code",
            &packet(first, &[0, 1, 0x03]),
            Cause::ReasonCode,
        );
        refuses(
            V5,
            "trailing",
            &packet(first, &[0, 1, 0, 0, 9]),
            Cause::TrailingBytes,
        );
        refuses(
            V5,
            "alias",
            &packet(first, &[0, 1, 0, 3, 0x23, 0, 1]),
            Cause::Property,
        );
        let twice = [0, 1, 0, 6, 0x1F, 0, 0, 0x1F, 0, 0];
        refuses(
            V5,
            "two reasons",
            &packet(first, &twice),
            Cause::DuplicateProperty,
        );
        accepts(V5, "with reason", &packet(first, &[0, 1, 0]));
        accepts(V5, "without properties", &packet(first, &[0, 1, 0, 0]));
    }
    for first in [0x62, 0x70] {
        refuses(
            V5,
            "a code of puback",
            &packet(first, &[0, 1, 0x10]),
            Cause::ReasonCode,
        );
        accepts(V5, "not found", &packet(first, &[0, 1, 0x92]));
    }
    for first in [0x40, 0x50] {
        refuses(
            V5,
            "a code of pubrel",
            &packet(first, &[0, 1, 0x92]),
            Cause::ReasonCode,
        );
        accepts(V5, "quota", &packet(first, &[0, 1, 0x97]));
    }
}

#[test]
fn a_client_may_not_disconnect_like_a_server() {
    let of_servers = [
        0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9A, 0x9C, 0x9D, 0xA0, 0xA2,
    ];
    for code in of_servers.into_iter().chain([0x01, 0x10, 0x85, 0x8C]) {
        refuses(V5, "code", &packet(0xE0, &[code]), Cause::ReasonCode);
    }
    for code in [
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        let Packet::Disconnect(disconnect) = accepts(V5, "code", &packet(0xE0, &[code])) else {
            panic!("a DISCONNECT");
        };
        assert_eq!(disconnect.reason.value(), code);
    }
    refuses(
        V5,
        "server reference",
        &packet(0xE0, &[0, 3, 0x1C, 0, 0]),
        Cause::Property,
    );
    refuses(
        V5,
        "trailing",
        &packet(0xE0, &[0, 0, 0]),
        Cause::TrailingBytes,
    );
    refuses(
        V5,
        "doubled",
        &packet(0xE0, &[0, 10, 0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1]),
        Cause::DuplicateProperty,
    );
    accepts(V5, "empty", &packet(0xE0, &[]));
    accepts(V3, "empty", &packet(0xE0, &[]));
    accepts(V5, "expiry", &packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 1]));
}

#[test]
fn auth_of_a_client_continues_or_starts_again() {
    let method = [0x15, 0, 1, b'm'];
    accepts(V5, "continue", &packet(0xF0, &cat(&[&[0x18, 4], &method])));
    accepts(V5, "again", &packet(0xF0, &cat(&[&[0x19, 4], &method])));
    refuses(
        V5,
        "success",
        &packet(0xF0, &cat(&[&[0x00, 4], &method])),
        Cause::ReasonCode,
    );
    refuses(V5, "empty", &packet(0xF0, &[]), Cause::ReasonCode);
    refuses(
        V5,
        "no method",
        &packet(0xF0, &[0x19, 0]),
        Cause::PropertyValue,
    );
    refuses(
        V5,
        "alias",
        &packet(0xF0, &[0x19, 3, 0x23, 0, 1]),
        Cause::Property,
    );
    refuses(
        V5,
        "trailing",
        &packet(0xF0, &cat(&[&[0x19, 4], &method, &[0]])),
        Cause::TrailingBytes,
    );
}

#[test]
fn causes_map_to_the_codes_of_the_specification() {
    assert_eq!(Cause::TooLarge.reason(), ReasonCode::PacketTooLarge);
    assert_eq!(Cause::Text.reason(), ReasonCode::MalformedPacket);
    assert_eq!(Cause::DuplicateProperty.reason(), ReasonCode::ProtocolError);
    assert_eq!(Cause::TopicAlias.reason(), ReasonCode::TopicAliasInvalid);
    assert_eq!(Cause::TopicFilter.reason(), ReasonCode::TopicFilterInvalid);
    assert_eq!(
        Cause::ProtocolLevel.reason(),
        ReasonCode::UnsupportedProtocolVersion
    );
}
