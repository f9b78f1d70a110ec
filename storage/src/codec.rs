//! Bytes with a format byte in front, and bytes with a checksum in front. The only file that names bincode.
//!
//! A *record* is a format byte and a bincode body; a reader states which formats it knows. A *sealed* value is a
//! format byte, a CRC32 over the key it belongs to and the value, and the value: rows on disk are sealed, so that a
//! flipped bit or a value under another key's name is noticed. Nothing here panics on any input.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Most bytes a record may have: lengths beyond it are refused before anything is allocated.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

/// What most records fit into: one that grows by doubling is copied on its way.
const EXPECTED_BYTES: usize = 512;

const SEAL_FORMAT: u8 = 1;
const SEAL_BYTES: usize = 5;

type Config = Configuration<LittleEndian, Varint, Limit<RECORD_BYTES_MAX>>;

const CONFIG: Config = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();

/// Why bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// There are no bytes, or fewer than any value has.
    #[error("{0} bytes are too few")]
    TooShort(usize),
    /// The format byte is not one this release reads.
    #[error("unknown format {0}")]
    Format(u8),
    /// The checksum does not fit the bytes.
    #[error("checksum does not match")]
    Checksum,
    /// The body does not decode, or has bytes left over.
    #[error("body does not decode: {0}")]
    Body(String),
    /// The value is larger than a record may be.
    #[error("value does not encode: {0}")]
    Encode(String),
}

/// Encodes a value behind its format byte.
pub fn encode<T: Serialize>(format: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(EXPECTED_BYTES);
    bytes.push(format);
    bincode::serde::encode_into_std_write(value, &mut bytes, CONFIG)
        .map_err(|error| CodecError::Encode(error.to_string()))?;
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(CodecError::Encode(format!("{} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Splits the format byte from the body. The caller matches on the format and decodes the type of that format.
pub fn format_of(bytes: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    match bytes.split_first() {
        Some((format, body)) => Ok((*format, body)),
        None => Err(CodecError::TooShort(0)),
    }
}

/// Decodes a body; every byte has to be used.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(body, CONFIG)
        .map_err(|error| CodecError::Body(error.to_string()))?;
    all_used(value, used, body)
}

/// Decodes a body into a type that borrows from it; every byte has to be used.
pub fn decode_borrowed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::borrow_decode_from_slice(body, CONFIG)
        .map_err(|error| CodecError::Body(error.to_string()))?;
    all_used(value, used, body)
}

fn all_used<T>(value: T, used: usize, body: &[u8]) -> Result<T, CodecError> {
    if used == body.len() {
        Ok(value)
    } else {
        Err(CodecError::Body(format!(
            "{} bytes left over",
            body.len() - used
        )))
    }
}

/// Decodes a record of the one format given.
pub fn decode<T: DeserializeOwned>(format: u8, bytes: &[u8]) -> Result<T, CodecError> {
    match format_of(bytes)? {
        (found, body) if found == format => decode_body(body),
        (found, _) => Err(CodecError::Format(found)),
    }
}

/// Puts format byte and checksum in front of a value that is stored under `key`.
pub fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SEAL_BYTES + value.len());
    bytes.push(SEAL_FORMAT);
    bytes.extend_from_slice(&checksum(key, value).to_le_bytes());
    bytes.extend_from_slice(value);
    bytes
}

/// The value behind a seal, if it is the one that was sealed under `key`.
pub fn unseal<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let Some(([format, crc @ ..], value)) = bytes.split_first_chunk::<SEAL_BYTES>() else {
        return Err(CodecError::TooShort(bytes.len()));
    };
    if *format != SEAL_FORMAT {
        return Err(CodecError::Format(*format));
    }
    if u32::from_le_bytes(*crc) != checksum(key, value) {
        return Err(CodecError::Checksum);
    }
    Ok(value)
}

/// CRC32 over format, key length, key and value; the length keeps key and value apart.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[SEAL_FORMAT]);
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hostile_length_is_refused_without_allocating() {
        let mut bytes = vec![1, 253];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(
            decode::<Vec<u8>>(1, &bytes),
            Err(CodecError::Body(_))
        ));
        let too_large = vec![0u8; RECORD_BYTES_MAX + 1];
        assert!(matches!(encode(1, &too_large), Err(CodecError::Encode(_))));
    }

    #[test]
    fn every_flipped_bit_of_a_sealed_value_is_noticed() {
        let sealed = seal(b"key", b"some value");
        assert_eq!(unseal(b"key", &sealed), Ok(b"some value".as_slice()));
        assert_eq!(unseal(b"kez", &sealed), Err(CodecError::Checksum));
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &damaged).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(
                unseal(b"key", &sealed[..length]).is_err(),
                "length {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn records_round_trip_and_use_every_byte(value: (u64, String, Vec<u8>, Option<bool>)) {
            let bytes = encode(7, &value).expect("small value");
            prop_assert_eq!(&decode::<(u64, String, Vec<u8>, Option<bool>)>(7, &bytes), &Ok(value));
            let mut longer = bytes.clone();
            longer.push(0);
            prop_assert!(decode::<(u64, String, Vec<u8>, Option<bool>)>(7, &longer).is_err());
            for length in 0..bytes.len() {
                let shorter = &bytes[..length];
                prop_assert!(decode::<(u64, String, Vec<u8>, Option<bool>)>(7, shorter).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(unseal(b"k", &bytes).is_err());
            if let Ok(value) = decode::<Vec<(String, u32)>>(1, &bytes) {
                prop_assert!(value.len() <= bytes.len());
            }
        }
    }
}
