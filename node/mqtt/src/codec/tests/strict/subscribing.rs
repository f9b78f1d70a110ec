//! SUBSCRIBE and UNSUBSCRIBE: filters, options, identifiers.

use super::*;

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
