//! What MQTT 5 calls a client's mistake, for each mistake: the code of DISCONNECT, then the end.

use umbel_tests::{Node, Wire, connect_packet, framed};

const MALFORMED: u8 = 0x81;
const PROTOCOL: u8 = 0x82;
const TOPIC_NAME: u8 = 0x90;
const TOPIC_ALIAS: u8 = 0x94;

fn text(value: &str) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short text");
    [&length.to_be_bytes(), value.as_bytes()].concat()
}

/// A PUBLISH of "x" with these properties, packet id 1 above QoS 0.
fn publish(first: u8, topic: &str, properties: &[u8]) -> Vec<u8> {
    let id: &[u8] = if first & 0x06 == 0 { &[] } else { &[0, 1] };
    let length = u8::try_from(properties.len()).expect("few properties");
    framed(
        first,
        &[&text(topic), id, &[length], properties, b"x"].concat(),
    )
}

/// A SUBSCRIBE to one filter with these properties.
fn subscribe(filter: &str, options: u8, properties: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).expect("few properties");
    framed(
        0x82,
        &[&[0, 1, length], properties, &text(filter), &[options]].concat(),
    )
}

/// What is wrong, the code, the packet.
type Mistake = (&'static str, u8, Vec<u8>);

fn mistakes_beside_publishing() -> Vec<Mistake> {
    vec![
        (
            "a second CONNECT",
            PROTOCOL,
            connect_packet(5, "mistaken", 60, 2),
        ),
        (
            "AUTH that nobody asked for",
            PROTOCOL,
            framed(0xf0, &[0x18, 0]),
        ),
        (
            "a session expiry after none",
            PROTOCOL,
            framed(0xe0, &[0, 5, 0x11, 0, 0, 0, 5]),
        ),
        (
            "SUBSCRIBE without a filter",
            PROTOCOL,
            framed(0x82, &[0, 1, 0]),
        ),
        (
            "SUBSCRIBE with other flags",
            MALFORMED,
            framed(0x80, &[0, 1, 0, 0, 1, b'a', 0]),
        ),
        (
            "subscription identifier 0",
            PROTOCOL,
            subscribe("a", 0, &[0x0b, 0]),
        ),
        (
            "no local and shared",
            PROTOCOL,
            subscribe("$share/g/a", 4, &[]),
        ),
        ("QoS 3 asked for", MALFORMED, subscribe("a", 3, &[])),
        (
            "reserved bits of options",
            MALFORMED,
            subscribe("a", 0x40, &[]),
        ),
        ("retain handling 3", PROTOCOL, subscribe("a", 0x30, &[])),
    ]
}

fn mistakes_in_publishing() -> Vec<Mistake> {
    let response_topic = [&[8][..], &text("a/#")].concat();
    vec![
        (
            "a wildcard in a topic",
            TOPIC_NAME,
            publish(0x30, "a/+", &[]),
        ),
        ("neither topic nor alias", PROTOCOL, publish(0x30, "", &[])),
        (
            "an alias nobody set",
            PROTOCOL,
            publish(0x30, "", &[0x23, 0, 1]),
        ),
        ("alias 0", TOPIC_ALIAS, publish(0x30, "a", &[0x23, 0, 0])),
        (
            "an alias above our maximum",
            TOPIC_ALIAS,
            publish(0x30, "a", &[0x23, 0xff, 0xff]),
        ),
        ("NUL in a topic", MALFORMED, publish(0x30, "a\0b", &[])),
        (
            "half a character",
            MALFORMED,
            framed(0x30, b"\0\x03\xed\xa0\x80\0x"),
        ),
        ("QoS 3", MALFORMED, publish(0x36, "a", &[])),
        ("DUP with QoS 0", MALFORMED, publish(0x38, "a", &[])),
        (
            "a subscription identifier from a client",
            PROTOCOL,
            publish(0x30, "a", &[0x0b, 1]),
        ),
        (
            "a property twice",
            PROTOCOL,
            publish(0x30, "a", &[1, 0, 1, 0]),
        ),
        (
            "a property of another packet",
            MALFORMED,
            publish(0x30, "a", &[0x11, 0, 0, 0, 1]),
        ),
        (
            "a response topic with a wildcard",
            PROTOCOL,
            publish(0x30, "a", &response_topic),
        ),
        ("PUBREL with other flags", MALFORMED, framed(0x60, &[0, 1])),
    ]
}

#[test]
fn version_5_names_every_mistake_and_closes() {
    let node = Node::start();
    for (mistake, code, packet) in mistakes_beside_publishing()
        .into_iter()
        .chain(mistakes_in_publishing())
    {
        let mut wire = Wire::open(node.at.mqtt);
        wire.send(&connect_packet(5, "mistaken", 60, 2));
        let answer = wire.packet().expect("CONNACK");
        assert_eq!(answer.get(3), Some(&0), "{mistake}: {answer:?}");
        wire.send(&packet);
        let answer = wire.packet().expect(mistake);
        // The standard leaves the choice between the two to the server where a packet is both.
        let said = answer.get(2).copied().map(|said| {
            if said == PROTOCOL && code == MALFORMED {
                code
            } else {
                said
            }
        });
        assert_eq!(
            (answer.first(), said),
            (Some(&0xe0), Some(code)),
            "{mistake}: {answer:?}"
        );
        assert!(wire.closes(), "{mistake}");
    }
}

/// The answers of CONNACK that a server gives before it knows anybody.
#[test]
fn connect_is_judged_before_anybody_is_let_in() {
    let node = Node::start();
    let connect = |flags: u8, properties: &[u8], rest: &[u8]| {
        let length = u8::try_from(properties.len()).expect("few properties");
        let head = [&text("MQTT")[..], &[5, flags, 0, 60, length], properties].concat();
        framed(0x10, &[&head, &text("new")[..], rest].concat())
    };
    let method = [&[0x15][..], &text("SCRAM")].concat();
    for (mistake, codes, packet) in [
        (
            "receive maximum 0",
            &[PROTOCOL][..],
            connect(2, &[0x21, 0, 0], &[]),
        ),
        (
            "maximum packet size 0",
            &[PROTOCOL],
            connect(2, &[0x27, 0, 0, 0, 0], &[]),
        ),
        (
            "the reserved flag",
            &[MALFORMED, PROTOCOL],
            connect(3, &[], &[]),
        ),
        (
            "a will of QoS 3",
            &[MALFORMED, PROTOCOL],
            connect(0x1e, &[], &[0, 0, 1, b'w', 0, 0]),
        ),
        (
            "will flags without a will",
            &[MALFORMED, PROTOCOL],
            connect(0x22, &[], &[]),
        ),
        (
            "a method we do not speak",
            &[0x8c],
            connect(2, &method, &[]),
        ),
    ] {
        let mut wire = Wire::open(node.at.mqtt);
        wire.send(&packet);
        let answer = wire.packet().expect(mistake);
        assert_eq!(answer.first(), Some(&0x20), "{mistake}: {answer:?}");
        assert!(
            answer.get(3).is_some_and(|said| codes.contains(said)),
            "{mistake}: {answer:?}"
        );
        assert!(wire.closes(), "{mistake}");
    }
}
