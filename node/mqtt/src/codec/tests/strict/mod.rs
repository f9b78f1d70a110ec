//! Every row of the strictness table, for the versions it concerns.

mod answers;
mod connecting;
mod publishing;
mod subscribing;

use super::{cat, packet, s};
use crate::{
    codec::{Decoded, Decoder, MalformedCause as Cause},
    packet::Packet,
    reason::ProtocolVersion,
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
