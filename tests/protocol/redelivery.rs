//! What was in flight when a connection broke comes again: same identifiers, same order, DUP set.

use umbel_tests::{Node, Wire, connect_packet, framed};

/// A PUBLISH as it came.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    qos: u8,
    dup: bool,
    id: [u8; 2],
    payload: Vec<u8>,
}

fn came(packet: Option<Vec<u8>>) -> Came {
    let packet = packet.expect("a PUBLISH");
    assert_eq!(packet[0] >> 4, 3, "{packet:?}");
    let topic = 4 + usize::from(packet[3]);
    Came {
        qos: packet[0] >> 1 & 3,
        dup: packet[0] & 8 != 0,
        id: [packet[topic], packet[topic + 1]],
        payload: packet[topic + 2..].to_vec(),
    }
}

/// An MQTT 3.1.1 connection that keeps its session.
fn resumed(node: &Node, client: &str) -> Wire {
    let mut wire = Wire::open(node.at.mqtt);
    wire.send(&connect_packet(4, client, 60, 0));
    assert_eq!(wire.packet().expect("CONNACK")[3], 0);
    wire
}

fn quiet(wire: &mut Wire) {
    wire.send(&[0xc0, 0]);
    assert_eq!(wire.packet().expect("PINGRESP"), [0xd0, 0]);
}

#[test]
fn a_broken_connection_gets_its_messages_again_also_after_a_kill() {
    let mut node = Node::start();
    let mut receiver = resumed(&node, "receiver");
    receiver.send(&framed(0x82, b"\0\x01\0\x01t\x02"));
    assert_eq!(receiver.packet().expect("SUBACK"), b"\x90\x03\0\x01\x02");
    let mut sender = Wire::connected(node.at.mqtt, "sender", 60);
    for (first, n) in [(0x32, b'0'), (0x34, b'1'), (0x32, b'2')] {
        sender.send(&framed(first, &[0, 1, b't', 0, n, n]));
        let answer = sender.packet().expect("PUBACK or PUBREC");
        if answer[0] == 0x50 {
            sender.send(&[0x62, 2, 0, n]);
            assert_eq!(sender.packet().expect("PUBCOMP"), [0x70, 2, 0, n]);
        }
    }
    let first: Vec<_> = (0..3).map(|_| came(receiver.packet())).collect();
    assert_eq!(
        first.iter().map(|m| m.payload[0]).collect::<Vec<_>>(),
        b"012"
    );
    assert!(first.iter().all(|m| !m.dup), "{first:?}");
    receiver.reset();

    let mut receiver = resumed(&node, "receiver");
    let again: Vec<_> = (0..3).map(|_| came(receiver.packet())).collect();
    let marked: Vec<_> = first.into_iter().map(|m| Came { dup: true, ..m }).collect();
    assert_eq!(again, marked);
    let [one, two, three] = [0, 1, 2].map(|n: usize| again[n].id);
    receiver.send(&framed(0x40, &one));
    receiver.send(&framed(0x50, &two));
    assert_eq!(
        receiver.packet().expect("PUBREL"),
        [0x62, 2, two[0], two[1]]
    );

    node.restart();
    let mut receiver = resumed(&node, "receiver");
    // what was acknowledged in the last instant may come once more: QoS 1 allows it
    let mut left = vec![receiver.packet().expect("a packet")];
    if left[0][0] != 0x62 {
        assert_eq!(came(left.pop()).id, one);
        receiver.send(&framed(0x40, &one));
        left.push(receiver.packet().expect("PUBREL"));
    }
    assert_eq!(left, [[0x62, 2, two[0], two[1]]]);
    assert_eq!(came(receiver.packet()).id, three);
    receiver.send(&framed(0x70, &two));
    receiver.send(&framed(0x40, &three));
    quiet(&mut receiver);
    receiver.reset();
    quiet(&mut resumed(&node, "receiver"));
}

#[test]
fn a_repeated_exactly_once_message_has_one_effect_also_after_a_kill() {
    let mut node = Node::start();
    let message = |first: u8| framed(first, b"\0\x01t\0\x07once");
    let mut sender = resumed(&node, "sender");
    sender.send(&message(0x34));
    assert_eq!(sender.packet().expect("PUBREC"), [0x50, 2, 0, 7]);
    node.restart();
    let mut receiver = Wire::connected(node.at.mqtt, "receiver", 60);
    receiver.send(&framed(0x82, b"\0\x01\0\x01t\x01"));
    assert_eq!(receiver.packet().expect("SUBACK"), b"\x90\x03\0\x01\x01");
    let mut sender = resumed(&node, "sender");
    sender.send(&message(0x3c));
    assert_eq!(sender.packet().expect("PUBREC"), [0x50, 2, 0, 7]);
    sender.send(&[0x62, 2, 0, 7]);
    assert_eq!(sender.packet().expect("PUBCOMP"), [0x70, 2, 0, 7]);
    quiet(&mut receiver);
    sender.send(&message(0x34));
    assert_eq!(sender.packet().expect("PUBREC"), [0x50, 2, 0, 7]);
    assert_eq!(came(receiver.packet()).payload, b"once");
}
