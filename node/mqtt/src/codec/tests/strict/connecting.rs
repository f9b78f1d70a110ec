//! CONNECT, bit by bit, and what is said to versions that nobody speaks.

use super::*;

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
