//! The file: magic, format byte, frames. A frame is its kind (u8), the length (u32, little endian) and CRC32 (u32) of what
//! follows, and that. A file that does not end with the closing frame is not a backup.

use std::io::{self, Read};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

const MAGIC: &[u8; 4] = b"UMBB";
const FORMAT: u8 = 1;
/// Larger than any frame that is written; what claims more is damaged.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Kind, length, checksum.
const HEAD_BYTES: usize = 9;

/// What the backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The cluster's id; none for a node that was alone.
    pub(crate) cluster: Option<String>,
    /// Its number of shards.
    pub(crate) shards: u16,
    /// When the backup was begun: milliseconds since 1970.
    pub(crate) created_at: u64,
    /// The release that wrote it.
    pub(crate) release: String,
}

/// The head of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardHead {
    /// Which shard.
    pub(crate) shard: u16,
    /// Last entry of its log that is in the snapshot.
    pub(crate) index: u64,
    /// The node that owned it.
    pub(crate) node: u64,
}

/// The end of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardEnd {
    /// Which shard.
    pub(crate) shard: u16,
    /// Bytes of all its parts.
    pub(crate) bytes: u64,
    /// Checksum of all its parts.
    pub(crate) crc32: u32,
}

/// The end of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// Shards in it.
    pub(crate) shards: u16,
}

/// A frame of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Manifest(Manifest),
    Shard(ShardHead),
    Part(Vec<u8>),
    ShardEnd(ShardEnd),
    /// The parts of this shard since its head do not count: its owner changed, and it begins anew.
    Abandoned,
    End(End),
}

/// Why a file cannot be read as a backup.
#[derive(Debug, Error)]
pub(crate) enum FormatError {
    #[error("not a backup of Umbel")]
    Magic,
    #[error("written by a newer release (format {0})")]
    Format(u8),
    #[error("damaged at byte {at}: {detail}")]
    Damaged { at: u64, detail: String },
    #[error("it ends before its end, at byte {0}: the backup was not finished")]
    CutOff(u64),
    #[error("read: {0}")]
    Io(#[from] io::Error),
}

/// What every file begins with.
pub(crate) fn opening() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(FORMAT);
    bytes
}

impl Frame {
    /// The frame's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Manifest(manifest) => (1, json(manifest)),
            Self::Shard(head) => (2, json(head)),
            Self::Part(bytes) => (3, bytes.clone()),
            Self::ShardEnd(end) => (4, json(end)),
            Self::Abandoned => (5, Vec::new()),
            Self::End(end) => (6, json(end)),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.push(kind);
        // A part is far smaller than this.
        bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(crc32fast::hash(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data is JSON")
}

/// Reads a file frame by frame.
pub(crate) struct Reader<R> {
    input: R,
    at: u64,
}

impl<R: Read> Reader<R> {
    /// Checks the beginning.
    pub(crate) fn open(mut input: R) -> Result<Self, FormatError> {
        let mut start = [0; MAGIC.len() + 1];
        input
            .read_exact(&mut start)
            .map_err(|error| ended(error, FormatError::Magic))?;
        match start {
            [magic @ .., FORMAT] if magic == *MAGIC => Ok(Self {
                input,
                at: start.len() as u64,
            }),
            [magic @ .., format] if magic == *MAGIC => Err(FormatError::Format(format)),
            _ => Err(FormatError::Magic),
        }
    }

    /// The next frame. After [`Frame::End`] there is none.
    pub(crate) fn next(&mut self) -> Result<Frame, FormatError> {
        let at = self.at;
        let damaged = |detail: String| FormatError::Damaged { at, detail };
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head)?;
        let [kind, a, b, c, d, crc @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(damaged(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        if crc32fast::hash(&body) != u32::from_le_bytes(crc) {
            return Err(damaged("the checksum does not match".to_owned()));
        }
        Ok(match kind {
            1 => Frame::Manifest(read(at, &body)?),
            2 => Frame::Shard(read(at, &body)?),
            3 => Frame::Part(body),
            4 => Frame::ShardEnd(read(at, &body)?),
            5 => Frame::Abandoned,
            6 => Frame::End(read(at, &body)?),
            other => return Err(damaged(format!("unknown kind {other}"))),
        })
    }

    /// Whether nothing follows.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, FormatError> {
        Ok(self.input.read(&mut [0])? == 0)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.input
            .read_exact(bytes)
            .map_err(|error| ended(error, FormatError::CutOff(self.at)))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// What an error while reading means, if the file may have ended.
fn ended(error: io::Error, at_end: FormatError) -> FormatError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        at_end
    } else {
        error.into()
    }
}

fn read<T: DeserializeOwned>(at: u64, body: &[u8]) -> Result<T, FormatError> {
    serde_json::from_slice(body).map_err(|error| FormatError::Damaged {
        at,
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Frame> {
        vec![
            Frame::Manifest(Manifest {
                cluster: Some("00000000000000ab".to_owned()),
                shards: 1,
                created_at: 1_795_194_873_042,
                release: "0.1.0".to_owned(),
            }),
            Frame::Shard(ShardHead {
                shard: 0,
                index: 17,
                node: 2,
            }),
            Frame::Part(vec![1, 2, 3]),
            Frame::Abandoned,
            Frame::ShardEnd(ShardEnd {
                shard: 0,
                bytes: 3,
                crc32: crc32fast::hash(&[1, 2, 3]),
            }),
            Frame::End(End { shards: 1 }),
        ]
    }

    fn file() -> Vec<u8> {
        let mut bytes = opening();
        bytes.extend(sample().iter().flat_map(Frame::encode));
        bytes
    }

    fn frames(bytes: &[u8]) -> Result<Vec<Frame>, FormatError> {
        let mut reader = Reader::open(bytes)?;
        let mut frames = Vec::new();
        loop {
            let frame = reader.next()?;
            let is_end = matches!(frame, Frame::End(_));
            frames.push(frame);
            if is_end {
                return Ok(frames);
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(frames(&file()).unwrap(), sample());
    }

    #[test]
    fn the_bytes_of_the_format_are_fixed() {
        let bytes = file();
        assert!(bytes.starts_with(b"UMBB\x01\x01"));
        let end = br#"{"shards":1}"#;
        assert!(bytes.ends_with(end));
        assert_eq!(
            crc32fast::hash(&bytes),
            0x61FF_C0D7,
            "the format changed: raise FORMAT"
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = file();
        for at in 0..whole.len() {
            assert!(frames(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(frames(&flipped).is_err(), "flipped at {at}");
        }
    }
}
