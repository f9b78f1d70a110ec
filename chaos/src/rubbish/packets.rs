//! Packets of every kind, valid, and what chance makes of them.

use rand::{Rng, rngs::StdRng};

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1
    V4,
    /// 5.0
    V5,
}

/// First byte and body of a valid packet.
type Packet = (u8, &'static [u8]);

const CONNECTS_4: [Packet; 2] = [
    (0x10, b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"),
    (
        0x10,
        b"\x00\x04MQTT\x04\xee\x00\x3c\x00\x01a\x00\x01w\x00\x03bye\x00\x01u\x00\x01p",
    ),
];
const CONNECTS_5: [Packet; 2] = [
    (0x10, b"\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x00\x0a\x00\x01a"),
    (
        0x10,
        b"\x00\x04MQTT\x05\xc6\x00\x3c\x08\x21\x00\x0a\x27\x00\x01\x00\x00\x00\x01a\x05\x18\x00\x00\x00\x01\x00\x01w\
          \x00\x03bye\x00\x01u\x00\x01p",
    ),
];
/// What a client sends after CONNECT, and what only a server sends.
const REST_4: [Packet; 15] = [
    (0x30, b"\x00\x03t/aab"),
    (0x32, b"\x00\x03t/a\x00\x01ab"),
    (0x3c, b"\x00\x03t/a\x00\x02"),
    (0x40, b"\x00\x01"),
    (0x50, b"\x00\x01"),
    (0x62, b"\x00\x02"),
    (0x70, b"\x00\x02"),
    (0x82, b"\x00\x03\x00\x03t/#\x01\x00\x03u/+\x00"),
    (0xa2, b"\x00\x04\x00\x03t/#"),
    (0xc0, b""),
    (0xe0, b""),
    (0x20, b"\x00\x00"),
    (0x90, b"\x00\x03\x01"),
    (0xb0, b"\x00\x04"),
    (0xd0, b""),
];
const REST_5: [Packet; 15] = [
    (0x30, b"\x00\x03t/a\x03\x23\x00\x01abc"),
    (
        0x32,
        b"\x00\x03t/a\x00\x01\x07\x01\x01\x02\x00\x00\x00\x09ab",
    ),
    (
        0x34,
        b"\x00\x03t/a\x00\x02\x10\x08\x00\x03r/a\x26\x00\x01k\x00\x01v\x09\x00\x00x",
    ),
    (0x40, b"\x00\x01\x10"),
    (0x50, b"\x00\x01\x00\x00"),
    (0x62, b"\x00\x02\x92\x00"),
    (0x70, b"\x00\x02"),
    (0x82, b"\x00\x03\x02\x0b\x01\x00\x03t/#\x2c"),
    (0x82, b"\x00\x05\x00\x00\x0c$share/g/t/#\x01"),
    (0xa2, b"\x00\x04\x00\x00\x03t/#"),
    (0xc0, b""),
    (0xe0, b"\x04\x05\x11\x00\x00\x00\x00"),
    (0xf0, b"\x18\x05\x15\x00\x02me"),
    (0x20, b"\x00\x00\x03\x21\x00\x0a"),
    (0x90, b"\x00\x03\x00\x01"),
];
/// Pieces that mean something somewhere.
const WORDS: [&[u8]; 12] = [
    b"\x00\x04MQTT",
    b"\x00\x06MQIsdp\x03",
    b"$aws/things/a/shadow/update",
    b"\x80\x80\x80\x80",
    b"\xff\xff\xff\x7f",
    b"\x00\x00",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\x26\x00\x01a\x00\x01b",
    b"\x23\xff\xff",
    b"+/#",
    b"\x00\x01\x00",
];

/// A CONNECT that is right, with a clean session.
pub(super) fn connect(version: Version, client: &str) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.extend(match version {
        Version::V4 => &b"\x04\x02\x00\x3c"[..],
        Version::V5 => &b"\x05\x02\x00\x3c\x00"[..],
    });
    body.push(0);
    body.push(u8::try_from(client.len()).unwrap_or(0));
    body.extend(client.as_bytes());
    framed(0x10, &body)
}

/// A CONNECT, or now and then another packet, spoiled.
pub(super) fn spoiled_connect(version: Version, chance: &mut StdRng) -> Vec<u8> {
    if chance.random_ratio(1, 8) {
        return spoiled(version, chance);
    }
    match version {
        Version::V4 => spoil(&CONNECTS_4, chance),
        Version::V5 => spoil(&CONNECTS_5, chance),
    }
}

/// A packet of any kind but CONNECT, spoiled.
pub(super) fn spoiled(version: Version, chance: &mut StdRng) -> Vec<u8> {
    match version {
        Version::V4 => spoil(&REST_4, chance),
        Version::V5 => spoil(&REST_5, chance),
    }
}

fn spoil(packets: &[Packet], chance: &mut StdRng) -> Vec<u8> {
    let Some((first, body)) = packets.get(chance.random_range(0..packets.len())) else {
        return Vec::new();
    };
    let mut body = body.to_vec();
    for _ in 0..chance.random_range(1..=3) {
        mutate(&mut body, chance);
    }
    // Mostly with the length that fits, so that what is inside is judged and not its frame.
    let mut packet = framed(*first, &body);
    match chance.random_range(0..8) {
        0 => mutate(&mut packet, chance),
        1 => flip(&mut packet, 0, chance),
        _ => {},
    }
    packet
}

fn mutate(bytes: &mut Vec<u8>, chance: &mut StdRng) {
    let at = chance.random_range(0..=bytes.len());
    match chance.random_range(0..6) {
        0 => flip(bytes, at, chance),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, chance.random()),
        3 => {
            let to = (at + chance.random_range(0..4)).min(bytes.len());
            bytes.drain(at..to);
        },
        4 => {
            let word = WORDS.get(chance.random_range(0..WORDS.len()));
            bytes.splice(
                at..at,
                word.into_iter().flat_map(|word| word.iter().copied()),
            );
        },
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = chance.random();
            }
        },
    }
}

fn flip(bytes: &mut [u8], at: usize, chance: &mut StdRng) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << chance.random_range(0..8);
    }
}

/// A packet with this first byte and body.
pub(super) fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest & 0x7f).unwrap_or_default();
        rest >>= 7;
        packet.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn one_seed_gives_the_same_rubbish_again() {
        let rubbish = |seed| {
            let mut chance = StdRng::seed_from_u64(seed);
            (0..100)
                .map(|_| spoiled(Version::V5, &mut chance))
                .collect::<Vec<_>>()
        };
        assert_eq!(rubbish(7), rubbish(7));
        assert_ne!(rubbish(7), rubbish(8));
    }

    #[test]
    fn lengths_are_written_as_the_protocol_says() {
        assert_eq!(framed(0xc0, b""), [0xc0, 0]);
        assert_eq!(framed(0x30, &[0; 200]).get(..3), Some(&[0x30, 0xc8, 1][..]));
    }
}
