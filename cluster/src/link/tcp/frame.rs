//! Frames: what is on the wire once two nodes have shaken hands.
//!
//! `length u32 | kind u8 | tag u8 | id u64 | rest`, little endian; the length counts what follows it. The tag is the
//! service of a request or a notice, and the outcome of an answer. A request's rest begins with the milliseconds its
//! asker waits. A kind or service that this version does not know ends the connection: versions are negotiated.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::{Service, desk::Outcome};

/// What precedes a body at most.
const HEAD_BYTES: usize = 4 + 1 + 1 + 8 + 4;
/// Of the head, what the length counts always.
const FIXED_BYTES: usize = 1 + 1 + 8;
/// How much room is made for one read: a claimed length makes none.
const READ_BYTES: usize = 16 << 10;
/// A buffer that has grown beyond this for one frame is given back.
const KEEP_BYTES: usize = 256 << 10;
/// Why a node leaves, and a handler's refusal, are sentences.
const REASON_BYTES_MAX: usize = 4096;

const REQUEST: u8 = 1;
const NOTICE: u8 = 2;
const ANSWER: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
const GOAWAY: u8 = 6;

const DONE: u8 = 0;
const REFUSED: u8 = 1;
const BUSY: u8 = 2;
const UNKNOWN: u8 = 3;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Request {
        service: Service,
        id: u64,
        within: Duration,
        body: Bytes,
    },
    Notice {
        service: Service,
        body: Bytes,
    },
    Answer {
        id: u64,
        outcome: Outcome,
    },
    Ping(u64),
    Pong(u64),
    /// The sender is about to close, and says why.
    Goaway(String),
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is too long")]
    Long(usize),
    #[error("a frame of {0} bytes is too short")]
    Short(usize),
    #[error("there is no frame of kind {0}")]
    Kind(u8),
    #[error("there is no service {0}")]
    Service(u8),
    #[error("there is no outcome {0}")]
    Outcome(u8),
}

impl Frame {
    /// Writes the head, and gives back the body that belongs behind it.
    pub(super) fn head(self, into: &mut Vec<u8>) -> Bytes {
        let (kind, tag, id, within, body) = match self {
            Self::Request {
                service,
                id,
                within,
                body,
            } => {
                let within = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
                (REQUEST, service as u8, id, Some(within), body)
            },
            Self::Notice { service, body } => (NOTICE, service as u8, 0, None, body),
            Self::Answer { id, outcome } => {
                let (tag, body) = outcome_parts(outcome);
                (ANSWER, tag, id, None, body)
            },
            Self::Ping(id) => (PING, 0, id, None, Bytes::new()),
            Self::Pong(id) => (PONG, 0, id, None, Bytes::new()),
            Self::Goaway(reason) => (GOAWAY, 0, 0, None, sentence(reason)),
        };
        let length = FIXED_BYTES + within.map_or(0, |_| 4) + body.len();
        into.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        into.put_u8(kind);
        into.put_u8(tag);
        into.put_u64_le(id);
        if let Some(within) = within {
            into.put_u32_le(within);
        }
        body
    }

    /// What it takes on the wire, about.
    pub(super) fn weight(&self) -> usize {
        let body = match self {
            Self::Request { body, .. }
            | Self::Notice { body, .. }
            | Self::Answer {
                outcome: Outcome::Done(body),
                ..
            } => body.len(),
            Self::Answer {
                outcome: Outcome::Refused(why),
                ..
            } => why.len(),
            Self::Goaway(reason) => reason.len(),
            Self::Answer {
                outcome: Outcome::Busy | Outcome::Unknown,
                ..
            }
            | Self::Ping(_)
            | Self::Pong(_) => 0,
        };
        HEAD_BYTES + body
    }

    /// Reads what the length counted.
    fn read(mut bytes: Bytes) -> Result<Self, FrameError> {
        let all = bytes.len();
        if all < FIXED_BYTES {
            return Err(FrameError::Short(all));
        }
        let (kind, tag, id) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u64_le());
        Ok(match kind {
            REQUEST => {
                let Ok(within) = bytes.try_get_u32_le() else {
                    return Err(FrameError::Short(all));
                };
                Self::Request {
                    service: service(tag)?,
                    id,
                    within: Duration::from_millis(within.into()),
                    body: bytes,
                }
            },
            NOTICE => Self::Notice {
                service: service(tag)?,
                body: bytes,
            },
            ANSWER => Self::Answer {
                id,
                outcome: outcome(tag, bytes)?,
            },
            PING => Self::Ping(id),
            PONG => Self::Pong(id),
            GOAWAY => Self::Goaway(String::from_utf8_lossy(&bytes).into_owned()),
            other => return Err(FrameError::Kind(other)),
        })
    }
}

fn outcome_parts(outcome: Outcome) -> (u8, Bytes) {
    match outcome {
        Outcome::Done(body) => (DONE, body),
        Outcome::Refused(why) => (REFUSED, sentence(why)),
        Outcome::Busy => (BUSY, Bytes::new()),
        Outcome::Unknown => (UNKNOWN, Bytes::new()),
    }
}

fn outcome(tag: u8, body: Bytes) -> Result<Outcome, FrameError> {
    Ok(match tag {
        DONE => Outcome::Done(body),
        REFUSED => Outcome::Refused(String::from_utf8_lossy(&body).into_owned()),
        BUSY => Outcome::Busy,
        UNKNOWN => Outcome::Unknown,
        other => return Err(FrameError::Outcome(other)),
    })
}

fn sentence(words: String) -> Bytes {
    let mut bytes = Bytes::from(words);
    bytes.truncate(REASON_BYTES_MAX);
    bytes
}

fn service(tag: u8) -> Result<Service, FrameError> {
    let known = Service::ALL
        .into_iter()
        .find(|service| *service as u8 == tag);
    known.ok_or(FrameError::Service(tag))
}

/// Makes frames of a stream of bytes.
pub(super) struct Decoder {
    buffer: BytesMut,
    frame_bytes_max: usize,
}

impl Decoder {
    /// For bodies up to so many bytes.
    pub(super) fn new(body_bytes_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            frame_bytes_max: body_bytes_max + HEAD_BYTES,
        }
    }

    /// Reads what there is. `0`: the stream is at its end.
    pub(super) async fn fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> std::io::Result<usize> {
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_BYTES);
        from.read_buf(&mut self.buffer).await
    }

    /// The next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.frame_bytes_max {
            return Err(FrameError::Long(length));
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Frame::read(self.buffer.split_to(length).freeze()).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn bytes(frame: Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        let body = frame.head(&mut bytes);
        bytes.extend_from_slice(&body);
        bytes
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Request {
                service: Service::Broker,
                id: 77,
                within: Duration::from_millis(1500),
                body: Bytes::from_static(b"a question"),
            },
            Frame::Notice {
                service: Service::Raft,
                body: Bytes::new(),
            },
            Frame::Answer {
                id: 78,
                outcome: Outcome::Done(Bytes::from_static(b"an answer")),
            },
            Frame::Answer {
                id: 79,
                outcome: Outcome::Refused("no".into()),
            },
            Frame::Answer {
                id: u64::MAX,
                outcome: Outcome::Busy,
            },
            Frame::Answer {
                id: 80,
                outcome: Outcome::Unknown,
            },
            Frame::Ping(1),
            Frame::Pong(2),
            Frame::Goaway("stopping".into()),
        ]
    }

    fn decode(stream: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new(1 << 10);
        let mut found = Vec::new();
        for piece in stream.chunks(piece.max(1)) {
            decoder.buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.next()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_the_stream_is_cut(piece in 1_usize..64) {
            let stream: Vec<u8> = frames().into_iter().flat_map(bytes).collect();
            prop_assert_eq!(decode(&stream, piece).unwrap(), frames());
        }
    }

    #[test]
    fn the_weight_of_a_frame_is_at_least_its_length() {
        for frame in frames() {
            let weight = frame.weight();
            assert!(weight >= bytes(frame).len());
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        assert_eq!(
            decode(&u32::MAX.to_le_bytes(), 4),
            Err(FrameError::Long(u32::MAX as usize))
        );
        assert_eq!(decode(&[1, 0, 0, 0, 1], 5), Err(FrameError::Short(1)));
    }

    #[tokio::test]
    async fn a_claim_allocates_no_more_than_what_has_arrived() {
        let mut decoder = Decoder::new(16 << 20);
        let mut stream: &[u8] = &(16_u32 << 20).to_le_bytes();
        decoder.fill(&mut stream).await.unwrap();
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() <= 2 * READ_BYTES);
    }

    #[test]
    fn a_hundred_thousand_mutated_streams_are_frames_or_errors() {
        let seed = 0x00c0_ffee;
        let mut chance = StdRng::seed_from_u64(seed);
        let whole: Vec<u8> = frames().into_iter().flat_map(bytes).collect();
        let (mut good, mut bad) = (0, 0);
        for _ in 0..100_000 {
            let mut stream = whole.clone();
            for _ in 0..chance.random_range(1..6) {
                let at = chance.random_range(0..stream.len());
                match chance.random_range(0..4) {
                    0 => stream[at] = chance.random(),
                    1 => stream.truncate(at.max(1)),
                    2 => stream.insert(at, chance.random()),
                    _ => drop(stream.remove(at)),
                }
                if stream.is_empty() {
                    stream.push(0);
                }
            }
            match decode(&stream, chance.random_range(1..256)) {
                Ok(_) => good += 1,
                Err(_) => bad += 1,
            }
        }
        assert!(good > 1000 && bad > 1000, "seed {seed}: {good} {bad}");
    }
}
