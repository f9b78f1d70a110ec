//! What nodes say to each other, as bytes: a format byte and bincode behind it.
//!
//! For serde types whose shape is fixed at compile time; what decides by content while it is read (`untagged`,
//! `flatten`, `skip_serializing_if`) does not survive bincode, which writes no names. The format byte belongs to the
//! encoding, not to the message: a message that changes its shape becomes a new variant of its enum.

use bincode::error::DecodeError;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Format of every message.
const FORMAT: u8 = 1;

/// Most bytes a decoded message may claim: more than a batch of the largest messages, less than a node can spare for
/// each of its peers.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MESSAGE_BYTES_MAX>,
> = bincode::config::standard().with_limit::<MESSAGE_BYTES_MAX>();

/// Why bytes of another node are not understood.
#[derive(Debug, Error)]
pub enum WireError {
    /// There is not even a format byte.
    #[error("the message is empty")]
    Empty,
    /// Sent by a newer release, or not one of ours.
    #[error("the message has format {found}, this release reads up to {FORMAT}")]
    Format {
        /// The format byte found.
        found: u8,
    },
    /// The format is known, the content is not.
    #[error("the message does not decode: {0}")]
    Content(DecodeError),
    /// Bytes are left over behind the message.
    #[error("the message has {left} bytes too many")]
    Trailing {
        /// How many.
        left: usize,
    },
}

/// The bytes of a message.
///
/// A message above [`MESSAGE_BYTES_MAX`] is encoded all the same, and refused by the link: who can meet the limit splits.
///
/// # Panics
///
/// If the type cannot be written as bincode at all, see above.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    let mut bytes = vec![FORMAT];
    bincode::serde::encode_into_std_write(message, &mut bytes, CONFIG)
        .expect("a message is plain data, and a vector takes every byte");
    bytes.into()
}

/// Reads a message back: all of the bytes, or an error.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (&found, body) = bytes.split_first().ok_or(WireError::Empty)?;
    if found != FORMAT {
        return Err(WireError::Format { found });
    }
    let (message, read) =
        bincode::serde::decode_from_slice(body, CONFIG).map_err(WireError::Content)?;
    match body.len().saturating_sub(read) {
        0 => Ok(message),
        left => Err(WireError::Trailing { left }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Message {
        Empty,
        Named { id: u64, text: Option<String> },
        Body(Bytes),
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for message in [
            Message::Empty,
            Message::Named {
                id: u64::MAX,
                text: Some("umbel".into()),
            },
            Message::Body(Bytes::from_static(b"body")),
        ] {
            assert_eq!(decode::<Message>(&encode(&message)).unwrap(), message);
        }
    }

    #[test]
    fn another_format_and_left_over_bytes_are_refused_by_name() {
        assert!(matches!(decode::<Message>(&[]), Err(WireError::Empty)));
        let mut bytes = encode(&Message::Empty).to_vec();
        bytes.push(0);
        assert!(matches!(
            decode::<Message>(&bytes),
            Err(WireError::Trailing { left: 1 })
        ));
        bytes[0] = 2;
        assert!(matches!(
            decode::<Message>(&bytes),
            Err(WireError::Format { found: 2 })
        ));
    }

    #[test]
    fn a_length_that_nothing_follows_allocates_nothing() {
        // Variant 2, then a length of 2^62.
        let mut bytes = vec![FORMAT, 2, 253];
        bytes.extend_from_slice(&(1_u64 << 62).to_le_bytes());
        assert!(matches!(
            decode::<Message>(&bytes),
            Err(WireError::Content(_))
        ));
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            drop(decode::<Message>(&bytes));
            drop(decode::<Vec<(String, Bytes)>>(&bytes));
        }
    }
}
