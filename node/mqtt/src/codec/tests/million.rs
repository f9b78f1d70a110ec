//! A million packets that are almost right, the same ones in every run.

use std::collections::BTreeMap;

use super::{cat, packet, s};
use crate::{
    codec::{Decoded, Decoder},
    reason::ProtocolVersion,
};

const PACKETS: usize = 1_000_000;

/// Small, fast, and good enough to spread changes (xorshift64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let properties = cat(&[
        &[31, 0x01, 1, 0x02, 0, 0, 0, 9, 0x23, 0, 1],
        &[0x03],
        &s("text"),
        &[0x08],
        &s("a/b"),
        &[0x26],
        &s("k"),
        &s("v"),
    ]);
    vec![
        packet(
            0x10,
            &cat(&[
                &s("MQTT"),
                &[4, 0xC6, 0, 9],
                &s("id"),
                &s("w/t"),
                &s("m"),
                &s("user"),
                &s("pass"),
            ]),
        ),
        packet(
            0x10,
            &cat(&[
                &s("MQTT"),
                &[5, 0xC6, 0, 9],
                &[5, 0x11, 0, 0, 0, 9],
                &s("id"),
                &[0],
                &s("w/t"),
                &s("m"),
                &s("user"),
                &s("pass"),
            ]),
        ),
        packet(0x32, &cat(&[&s("some/topic"), &[0, 7], b"payload"])),
        packet(
            0x34,
            &cat(&[&s("some/topic"), &[0, 7], &properties, b"payload"]),
        ),
        packet(0x40, &[0, 1, 0x10, 5, 0x1F, 0, 2, b'o', b'k']),
        packet(0x62, &[0, 1]),
        packet(
            0x82,
            &cat(&[&[0, 1, 2, 0x0B, 1], &s("$share/g/a/+/#"), &[0x2D]]),
        ),
        packet(0x82, &cat(&[&[0, 1], &s("a/+/#"), &[1], &s("b"), &[2]])),
        packet(0xA2, &cat(&[&[0, 1, 0], &s("a/+"), &s("$share/g/#")])),
        packet(0xC0, &[]),
        packet(0xE0, &[0x04, 5, 0x11, 0, 0, 0, 1]),
        packet(
            0xF0,
            &cat(&[&[0x18, 10, 0x15], &s("m"), &[0x16], &s("abc")]),
        ),
    ]
}

/// One to three bytes changed, dropped or added; the length is made right in three of four, so that bodies are reached.
fn spoil(seed: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(3) {
        let at = chance.below(bytes.len());
        let byte = u8::try_from(chance.below(256)).expect("a byte");
        match chance.below(4) {
            0 if bytes.len() > 2 => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            _ => bytes[at] = byte,
        }
    }
    if chance.below(4) > 0 && bytes.len() > 2 {
        bytes = packet(bytes[0], &bytes[2..]);
    }
    bytes
}

#[test]
fn a_million_spoiled_packets_are_read_or_refused() {
    let decoders = [
        Decoder::new(8_192),
        Decoder::opened(ProtocolVersion::V31, 65_536),
        Decoder::opened(ProtocolVersion::V311, 65_536),
        Decoder::opened(ProtocolVersion::V5, 65_536),
    ];
    let (seeds, mut chance) = (seeds(), Chance(0x9E37_79B9_7F4A_7C15));
    let (mut read, mut incomplete, mut refused) = (0, 0, BTreeMap::new());
    for _ in 0..PACKETS {
        let bytes = spoil(&seeds[chance.below(seeds.len())], &mut chance);
        match decoders[chance.below(decoders.len())].decode(&bytes) {
            Ok(Decoded::Packet(_, len)) => {
                assert!(len <= bytes.len());
                read += 1;
            },
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > bytes.len());
                incomplete += 1;
            },
            Err(malformed) => *refused.entry(malformed.cause).or_insert(0) += 1,
        }
    }
    // What was compared, so that a test that reaches nothing cannot pass.
    assert!(
        read > 10_000 && incomplete > 10_000,
        "{read} read, {incomplete} incomplete"
    );
    assert!(refused.len() >= 24, "causes reached: {refused:?}");
}
