//! Every row of the strictness table, for the versions it concerns.

use super::{cat, packet, s};
use crate::{
    codec::{Decoded, Decoder, MalformedCause as Cause},
    packet::Packet,
    reason::{ProtocolVersion, ReasonCode},
};

const LIMIT: u32 = 1024;

fn decode(version: Option<ProtocolVersion>, bytes: &[u8]) -> Result<Decoded, Cause> {
    let decoder = version.map_or_else(
        || Decoder::new(LIMIT),
        |version| Decoder::opened(version, LIMIT),
    );
    decoder.decode(bytes).map_err(|error| error.cause)
}

fn refuses(version: ProtocolVersion, name: &str, bytes: &[u8], cause: Cause) {
    assert_eq!(
        decode(Some(version), bytes),
        Err(cause),
        "{name} ({version:?})"
    );
}

fn accepts(version: ProtocolVersion, name: &str, bytes: &[u8]) -> Packet {
    match decode(Some(version), bytes) {
        Ok(Decoded::Packet(packet, len)) => {
            assert_eq!(len, bytes.len(), "{name} ({version:?})");
            packet
        },
        other => panic!("{name} ({version:?}): {other:?}"),
    }
}

const V3: ProtocolVersion = ProtocolVersion::V311;
const V5: ProtocolVersion = ProtocolVersion::V5;

/// CONNECT from its variable parts.
fn connect(name: &str, level: u8, flags: u8, after_keep_alive: &[u8]) -> Vec<u8> {
    packet(
        0x10,
        &cat(&[&s(name), &[level, flags, 0, 60], after_keep_alive]),
    )
}

fn connect3(flags: u8, payload: &[u8]) -> Vec<u8> {
    connect("MQTT", 4, flags, payload)
}

fn connect5(flags: u8, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = [u8::try_from(properties.len()).expect("short")];
    connect("MQTT", 5, flags, &cat(&[&len, properties, payload]))
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn connect_is_judged_bit_by_bit() {
    let id = s("c");
    let will = cat(&[&id, &s("t"), &s("m")]);
    let rows: Vec<(&str, Vec<u8>, Cause)> = vec![
        ("header flags", packet(0x11, &[]), Cause::HeaderFlags),
        (
            "wrong name",
            connect("MQTX", 4, 2, &id),
            Cause::ProtocolName,
        ),
        (
            "name in lower case",
            connect("mqtt", 4, 2, &id),
            Cause::ProtocolName,
        ),
        (
            "level 3 with the new name",
            connect("MQTT", 3, 2, &id),
            Cause::ProtocolLevel,
        ),
        (
            "level 4 with the old name",
            connect("MQIsdp", 4, 2, &id),
            Cause::ProtocolLevel,
        ),
        ("level 0", connect("MQTT", 0, 2, &id), Cause::ProtocolLevel),
        ("level 6", connect("MQTT", 6, 2, &id), Cause::ProtocolLevel),
        (
            "bridge bit",
            connect("MQTT", 0x84, 2, &id),
            Cause::ProtocolLevel,
        ),
        (
            "reserved flag",
            connect3(0b0000_0011, &id),
            Cause::ConnectFlags,
        ),
        (
            "will qos without will",
            connect3(0b0000_1010, &id),
            Cause::ConnectFlags,
        ),
        (
            "will retain without will",
            connect3(0b0010_0010, &id),
            Cause::ConnectFlags,
        ),
        (
            "will qos 3",
            connect3(0b0001_1110, &will),
            Cause::ConnectFlags,
        ),
        (
            "password without user",
            connect3(0b0100_0010, &cat(&[&id, &s("p")])),
            Cause::ConnectFlags,
        ),
        ("no id, not clean", connect3(0, &s("")), Cause::ClientId),
        (
            "no id in 3.1",
            connect("MQIsdp", 3, 2, &s("")),
            Cause::ClientId,
        ),
        (
            "control character in id",
            connect3(2, &s("a\x01")),
            Cause::Text,
        ),
        ("nul in id", connect3(2, &s("a\0")), Cause::Text),
        ("del in id", connect3(2, &s("a\x7F")), Cause::Text),
        ("c1 control in id", connect3(2, &s("a\u{85}")), Cause::Text),
        (
            "noncharacter in id",
            connect3(2, &s("a\u{FFFF}")),
            Cause::Text,
        ),
        (
            "surrogate in id",
            connect3(2, &s(b"\xED\xA0\x80")),
            Cause::Text,
        ),
        (
            "overlong in user",
            connect3(0b1000_0010, &cat(&[&id, &s(b"\xC0\x80")])),
            Cause::Text,
        ),
        (
            "nul in will topic",
            connect3(6, &cat(&[&id, &s("t\0"), &s("m")])),
            Cause::Text,
        ),
        (
            "wildcard in will topic",
            connect3(6, &cat(&[&id, &s("t/#"), &s("m")])),
            Cause::TopicName,
        ),
        (
            "empty will topic",
            connect3(6, &cat(&[&id, &s(""), &s("m")])),
            Cause::TopicName,
        ),
        ("will missing", connect3(6, &id), Cause::Truncated),
        (
            "user name missing",
            connect3(0b1000_0010, &id),
            Cause::Truncated,
        ),
        ("id missing", connect3(2, &[]), Cause::Truncated),
        (
            "bytes after the end",
            connect3(2, &cat(&[&id, &[0]])),
            Cause::TrailingBytes,
        ),
        (
            "v5 reserved flag",
            connect5(3, &[], &id),
            Cause::ConnectFlags,
        ),
        (
            "v5 unknown property",
            connect5(2, &[0x7E, 0], &id),
            Cause::Property,
        ),
        (
            "v5 property of publish",
            connect5(2, &[0x23, 0, 1], &id),
            Cause::Property,
        ),
        (
            "v5 doubled",
            connect5(2, &[0x21, 0, 1, 0x21, 0, 1], &id),
            Cause::DuplicateProperty,
        ),
        (
            "v5 receive maximum 0",
            connect5(2, &[0x21, 0, 0], &id),
            Cause::PropertyValue,
        ),
        (
            "v5 maximum packet 0",
            connect5(2, &[0x27, 0, 0, 0, 0], &id),
            Cause::PropertyValue,
        ),
        (
            "v5 problem info 2",
            connect5(2, &[0x17, 2], &id),
            Cause::PropertyValue,
        ),
        (
            "v5 response info 2",
            connect5(2, &[0x19, 2], &id),
            Cause::PropertyValue,
        ),
        (
            "v5 data without method",
            connect5(2, &[0x16, 0, 0], &id),
            Cause::PropertyValue,
        ),
        (
            "v5 truncated property",
            connect5(2, &[0x21, 0], &id),
            Cause::Truncated,
        ),
        (
            "v5 will alias",
            connect5(6, &[], &cat(&[&id, &[3, 0x23, 0, 1], &s("t"), &s("m")])),
            Cause::Property,
        ),
        (
            "v5 will response topic",
            connect5(6, &[], &cat(&[&id, &[4, 8, 0, 1, b'#'], &s("t"), &s("m")])),
            Cause::PropertyValue,
        ),
    ];
    for (name, bytes, cause) in rows {
        assert_eq!(decode(None, &bytes), Err(cause), "{name}");
    }
}

#[test]
fn connect_takes_what_the_library_would_not() {
    let Ok(Decoded::Packet(Packet::Connect(packet), _)) = decode(None, &connect5(0, &[], &s("")))
    else {
        panic!("MQTT 5 assigns identifiers without clean start, too");
    };
    assert!(packet.client_id.is_empty() && !packet.clean_start);

    let will = [2, 0, 0, 0, 0, 0x18, 0, 0, 0, 9];
    let payload = cat(&[&s("c"), &[10], &will, &s("t"), &s("m")]);
    let Ok(Decoded::Packet(Packet::Connect(packet), _)) = decode(None, &connect5(6, &[], &payload))
    else {
        panic!("a will may expire at once");
    };
    let will = packet.will.expect("there is a will");
    assert_eq!((will.message_expiry, will.delay), (Some(0), 9));

    assert!(
        decode(
            None,
            &connect5(0b0100_0010, &[], &cat(&[&s("c"), &s("token")]))
        )
        .is_ok()
    );
    assert!(decode(None, &connect("MQIsdp", 3, 2, &s("c"))).is_ok());
    assert!(decode(None, &connect3(0b1000_0010, &cat(&[&s("c"), &s("?SDK=x")]))).is_ok());
}

#[test]
fn refused_versions_say_in_which_form_to_answer() {
    let version = |bytes: &[u8]| {
        Decoder::new(LIMIT)
            .decode(bytes)
            .expect_err("refused")
            .version
    };
    assert_eq!(version(&connect("MQTT", 6, 2, &s("c"))), Some(V5));
    assert_eq!(version(&connect("MQTT", 2, 2, &s("c"))), Some(V3));
    assert_eq!(version(&connect5(3, &[], &s("c"))), Some(V5));
    assert_eq!(version(&connect3(3, &s("c"))), Some(V3));
    assert_eq!(version(&connect("MQTX", 4, 2, &s("c"))), None);
}

#[test]
fn first_bytes_decide_before_the_rest_comes() {
    for version in [V3, V5] {
        refuses(version, "type 0", &[0x00], Cause::PacketType);
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            refuses(version, "a server's packet", &[first], Cause::Direction);
        }
        refuses(version, "second connect", &[0x10], Cause::SecondConnect);
        for first in [0x41, 0x52, 0x60, 0x63, 0x74, 0x80, 0x83, 0xA0, 0xC1, 0xE8] {
            refuses(version, "reserved bits", &[first], Cause::HeaderFlags);
        }
        refuses(version, "qos 3", &[0x36], Cause::Qos);
        refuses(
            version,
            "five byte length",
            &[0x30, 0xFF, 0xFF, 0xFF, 0xFF],
            Cause::Length,
        );
        refuses(version, "padded length", &[0x30, 0x80, 0x00], Cause::Length);
        refuses(
            version,
            "256 MiB claimed",
            &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
            Cause::TooLarge,
        );
        refuses(
            version,
            "one byte too many",
            &[0x30, 0xFE, 0x07],
            Cause::TooLarge,
        );
        refuses(
            version,
            "ping with a body",
            &[0xC0, 0x01],
            Cause::TrailingBytes,
        );
    }
    refuses(V3, "auth before 5", &[0xF0], Cause::PacketType);
    refuses(
        V3,
        "disconnect with a body",
        &[0xE0, 0x01],
        Cause::TrailingBytes,
    );
    refuses(
        V3,
        "puback with a reason",
        &[0x40, 0x03],
        Cause::TrailingBytes,
    );
    refuses(V3, "puback without an id", &[0x40, 0x01], Cause::Truncated);
    for first in [0x30, 0x40, 0x62, 0x82, 0xA2, 0xC0, 0xE0, 0xF0] {
        assert_eq!(decode(None, &[first]), Err(Cause::NotConnect));
    }
    for first in [0x20, 0x90, 0xB0, 0xD0] {
        assert_eq!(decode(None, &[first]), Err(Cause::Direction));
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn publish_is_judged() {
    for (version, none) in [(V3, &[][..]), (V5, &[0][..])] {
        let with = |topic: &[u8]| packet(0x30, &cat(&[&s(topic), none, b"x"]));
        refuses(version, "plus", &with(b"a/+"), Cause::TopicName);
        refuses(version, "hash", &with(b"#"), Cause::TopicName);
        refuses(version, "nul", &with(b"a\0"), Cause::Text);
        refuses(version, "control", &with(b"a\x1F"), Cause::Text);
        refuses(version, "not utf-8", &with(b"\xFF"), Cause::Text);
        refuses(
            version,
            "dup with qos 0",
            &packet(0x38, &cat(&[&s("a"), none])),
            Cause::Qos,
        );
        refuses(
            version,
            "id 0",
            &packet(0x32, &cat(&[&s("a"), &[0, 0], none])),
            Cause::PacketId,
        );
        refuses(version, "no id", &packet(0x32, &s("a")), Cause::Truncated);
        refuses(
            version,
            "short topic",
            &packet(0x30, &[0, 9, b'a']),
            Cause::Truncated,
        );
        accepts(
            version,
            "empty payload",
            &packet(0x31, &cat(&[&s("a/b"), none])),
        );
        accepts(
            version,
            "dup",
            &packet(0x3A, &cat(&[&s("/"), &[0, 1], none])),
        );
    }
    refuses(V3, "no topic", &packet(0x30, &s("")), Cause::TopicName);
    let with = |properties: &[u8]| {
        let len = [u8::try_from(properties.len()).expect("short")];
        packet(0x30, &cat(&[&s("a"), &len, properties, b"x"]))
    };
    let rows: [(&str, &[u8], Cause); 11] = [
        ("subscription id", &[0x0B, 1], Cause::SubscriptionId),
        ("property of connect", &[0x11, 0, 0, 0, 1], Cause::Property),
        ("no such property", &[0x00], Cause::Property),
        ("property above 0x3F", &[0xFF, 0x01], Cause::Property),
        ("alias 0", &[0x23, 0, 0], Cause::TopicAlias),
        (
            "alias twice",
            &[0x23, 0, 1, 0x23, 0, 1],
            Cause::DuplicateProperty,
        ),
        ("format 2", &[0x01, 2], Cause::PropertyValue),
        (
            "response topic with wildcard",
            &[0x08, 0, 1, b'+'],
            Cause::PropertyValue,
        ),
        ("empty response topic", &[0x08, 0, 0], Cause::PropertyValue),
        ("nul in user property", &[0x26, 0, 1, 0, 0, 0], Cause::Text),
        ("half a property", &[0x02, 0, 0], Cause::Truncated),
    ];
    for (name, properties, cause) in rows {
        refuses(V5, name, &with(properties), cause);
    }
    refuses(
        V5,
        "no topic, no alias",
        &packet(0x30, &[0, 0, 0]),
        Cause::MissingTopic,
    );
    refuses(
        V5,
        "block longer than packet",
        &packet(0x30, &[0, 1, b'a', 9]),
        Cause::Truncated,
    );
    refuses(
        V5,
        "padded block length",
        &packet(0x30, &[0, 1, b'a', 0x80, 0]),
        Cause::Length,
    );
    accepts(
        V5,
        "alias for the topic",
        &packet(0x30, &[0, 0, 3, 0x23, 0, 1]),
    );
    accepts(V5, "expiry 0", &with(&[0x02, 0, 0, 0, 0]));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn subscribe_is_judged() {
    let id = [0, 1];
    for (version, none) in [(V3, &[][..]), (V5, &[0][..])] {
        let with =
            |filter: &[u8], options: u8| packet(0x82, &cat(&[&id, none, &s(filter), &[options]]));
        let without = |filter: &[u8]| packet(0xA2, &cat(&[&id, none, &s(filter)]));
        let filters: [&[u8]; 14] = [
            b"",
            b"a/#/b",
            b"a#",
            b"#a",
            b"a+",
            b"+a/b",
            b"a/b+",
            b"##",
            b"++",
            b"$share",
            b"$share/",
            b"$share/g",
            b"$share/g/",
            b"$share//f",
        ];
        for filter in filters {
            refuses(version, "filter", &with(filter, 0), Cause::TopicFilter);
            refuses(version, "filter", &without(filter), Cause::TopicFilter);
        }
        for filter in [&b"$share/+/f"[..], b"$share/g#/f", b"$share/g/a#"] {
            refuses(version, "group", &with(filter, 0), Cause::TopicFilter);
        }
        for filter in [
            &b"#"[..],
            b"+",
            b"+/+",
            b"a/+/#",
            b"/",
            b"$share/g/#",
            b"$shared",
            b"$SYS/#",
        ] {
            accepts(version, "filter", &with(filter, 2));
            accepts(version, "filter", &without(filter));
        }
        refuses(version, "nul", &with(b"a\0", 0), Cause::Text);
        refuses(version, "qos 3", &with(b"a", 3), Cause::SubscribeOptions);
        refuses(
            version,
            "reserved",
            &with(b"a", 0b0100_0000),
            Cause::ReservedBits,
        );
        refuses(
            version,
            "reserved",
            &with(b"a", 0b1000_0000),
            Cause::ReservedBits,
        );
        refuses(
            version,
            "no filters",
            &packet(0x82, &cat(&[&id, none])),
            Cause::EmptyList,
        );
        refuses(
            version,
            "no filters",
            &packet(0xA2, &cat(&[&id, none])),
            Cause::EmptyList,
        );
        refuses(
            version,
            "id 0",
            &packet(0x82, &cat(&[&[0, 0], none])),
            Cause::PacketId,
        );
        refuses(
            version,
            "id 0",
            &packet(0xA2, &cat(&[&[0, 0], none])),
            Cause::PacketId,
        );
        let no_options = packet(0x82, &cat(&[&id, none, &s("a")]));
        refuses(version, "no options", &no_options, Cause::Truncated);
    }
    let filter = s("a");
    let with = |options: u8| packet(0x82, &cat(&[&id, &filter, &[options]]));
    for bit in [0b100, 0b1000, 0b1_0000, 0b10_0000] {
        refuses(V3, "options of 5", &with(bit), Cause::ReservedBits);
    }
    let with = |properties: &[u8], filter: &[u8], options: u8| {
        let len = [u8::try_from(properties.len()).expect("short")];
        packet(0x82, &cat(&[&id, &len, properties, &s(filter), &[options]]))
    };
    refuses(
        V5,
        "retain handling 3",
        &with(&[], b"a", 0b11_0000),
        Cause::SubscribeOptions,
    );
    refuses(
        V5,
        "no local, shared",
        &with(&[], b"$share/g/a", 0b100),
        Cause::SubscribeOptions,
    );
    refuses(V5, "id 0", &with(&[0x0B, 0], b"a", 0), Cause::PropertyValue);
    refuses(
        V5,
        "two ids",
        &with(&[0x0B, 1, 0x0B, 2], b"a", 0),
        Cause::DuplicateProperty,
    );
    refuses(
        V5,
        "reason string",
        &with(&[0x1F, 0, 0], b"a", 0),
        Cause::Property,
    );
    accepts(
        V5,
        "every option",
        &with(&[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], b"a", 0b10_1110),
    );
}

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
