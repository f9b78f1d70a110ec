//! Rubbish closes its own connection, with the right code where the protocol has one, and nobody else's.

use umbel_tests::{Node, Wire, connect_packet, framed};

/// A neighbour that must not notice anything.
struct Neighbour(Wire);

impl Neighbour {
    fn on(node: &Node) -> Self {
        Self(Wire::connected(node.at.mqtt, "neighbour", 600))
    }

    fn still_lives(&mut self) {
        self.0.send(&[0xc0, 0]);
        assert_eq!(self.0.packet().expect("PINGRESP"), [0xd0, 0]);
    }
}

#[test]
fn packets_before_connect_close_the_connection() {
    let node = Node::start();
    let mut neighbour = Neighbour::on(&node);
    for first in [
        0x20, 0x30, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
    ] {
        let mut wire = Wire::open(node.at.mqtt);
        wire.send(&[first, 0]);
        assert!(wire.closes(), "{first:#x}");
    }
    neighbour.still_lives();
}

#[test]
fn packets_only_a_server_sends_close_the_connection() {
    let node = Node::start();
    let mut neighbour = Neighbour::on(&node);
    for first in [0x00, 0x10, 0x20, 0x90, 0xb0, 0xd0, 0xf0] {
        let mut wire = Wire::connected(node.at.mqtt, "rude", 60);
        wire.send(&[first, 2, 0, 1]);
        assert!(wire.closes(), "{first:#x}");
    }
    neighbour.still_lives();
}

#[test]
fn an_unsupported_version_is_told_so() {
    let node = Node::start();
    let mut wire = Wire::open(node.at.mqtt);
    wire.send(&connect_packet(9, "x", 60, 0x02));
    let answer = wire.packet().expect("CONNACK");
    assert_eq!(answer.first(), Some(&0x20));
    assert!(matches!(answer.get(3), Some(0x01 | 0x84)), "{answer:?}");
    assert!(wire.closes());
}

#[test]
fn a_claim_of_a_huge_packet_is_refused_at_its_header() {
    let node = Node::start();
    let mut wire = Wire::connected(node.at.mqtt, "huge", 60);
    wire.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
    assert!(wire.closes());
    let mut wire = Wire::open(node.at.mqtt);
    wire.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
    assert!(wire.closes());
}

#[test]
fn a_length_of_five_bytes_is_malformed() {
    let node = Node::start();
    let mut wire = Wire::connected(node.at.mqtt, "long", 60);
    wire.send(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01]);
    assert!(wire.closes());
}

#[test]
fn version_5_says_why_it_closes() {
    let node = Node::start();
    let mut wire = Wire::open(node.at.mqtt);
    wire.send(&connect_packet(5, "five", 60, 0x02));
    assert_eq!(wire.packet().expect("CONNACK").get(3), Some(&0));
    // A PUBLISH with QoS 3.
    wire.send(&framed(0x36, &[0, 1, b'a', 0, 1, 0]));
    let answer = wire.packet().expect("DISCONNECT");
    assert_eq!(answer.first(), Some(&0xe0));
    assert!(matches!(answer.get(2), Some(0x81 | 0x82)), "{answer:?}");
    assert!(wire.closes());
}

#[test]
fn a_wildcard_in_a_topic_name_closes_the_connection() {
    let node = Node::start();
    let mut neighbour = Neighbour::on(&node);
    let mut wire = Wire::connected(node.at.mqtt, "wild", 60);
    wire.send(&framed(0x30, &[0, 3, b'a', b'/', b'+', b'x']));
    assert!(wire.closes());
    neighbour.still_lives();
}

#[test]
fn what_a_client_may_never_publish_is_refused() {
    let node = Node::start();
    for topic in [
        "$SYS/x",
        "$aws/things/a/shadow/update/accepted",
        "$aws/events/presence/connected/a",
    ] {
        let mut wire = Wire::connected(node.at.mqtt, "liar", 60);
        let mut body = u16::try_from(topic.len())
            .expect("short")
            .to_be_bytes()
            .to_vec();
        body.extend(topic.as_bytes());
        body.extend([0, 1]);
        wire.send(&framed(0x32, &body));
        assert!(wire.closes(), "{topic}");
    }
}
