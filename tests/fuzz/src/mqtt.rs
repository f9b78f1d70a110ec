//! A connection's bytes, from the first CONNECT on.

use bytes::BytesMut;
use umbel_mqtt::{
    codec::{Decoded, Decoder, encode},
    packet::Packet,
    reason::ProtocolVersion,
};

/// What an open connection may send at once.
const LIMIT: u32 = 64 * 1024;

/// What may come before CONNECT was accepted.
const FIRST_LIMIT: u32 = 8 * 1024;

/// Packet after packet; laws: a packet takes bytes that are there, no part of it is taken for a packet, and written
/// again it reads the same.
pub fn run(data: &[u8]) -> bool {
    let mut version = None;
    let mut rest = data;
    loop {
        let decoder = match version {
            None => Decoder::new(FIRST_LIMIT),
            Some(version) => Decoder::opened(version, LIMIT),
        };
        match decoder.decode(rest) {
            Err(_) => return false,
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > rest.len(), "{needed} of {}", rest.len());
                return version.is_some() && rest.is_empty();
            },
            Ok(Decoded::Packet(packet, used)) => {
                assert!((2..=rest.len()).contains(&used), "{used} of {}", rest.len());
                check(decoder, &packet, &rest[..used], &mut version);
                rest = &rest[used..];
            },
        }
    }
}

fn check(decoder: Decoder, packet: &Packet, frame: &[u8], version: &mut Option<ProtocolVersion>) {
    if let Packet::Connect(connect) = packet {
        *version = Some(connect.version);
    }
    for end in [frame.len() - 1, frame.len() / 2] {
        let part = decoder.decode(&frame[..end]);
        assert!(
            !matches!(part, Ok(Decoded::Packet(..))),
            "a part passed: {packet:?}"
        );
    }
    let Some(version) = *version else { return };
    let mut written = BytesMut::new();
    // a packet may be longer in our words than in the client's, never by more than this
    let limit = u32::try_from(frame.len() + 16).unwrap_or(u32::MAX);
    if encode(packet, version, limit, &mut written).is_ok() {
        let again = decoder.decode(&written);
        assert_eq!(again, Ok(Decoded::Packet(packet.clone(), written.len())));
    }
}
