//! PUBLISH: topics, identifiers, properties.

use super::*;

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
