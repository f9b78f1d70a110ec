//! How members are written: foca's types through mirrors of ours, bincode, and a bound.

use bytes::{Buf, BufMut};
use foca::{Header, Member, Message, ProbeNumber, State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::identity::{Identity, ZONE_BYTES_MAX};

/// Most bytes of what foca says at once. With the seal and our own head it stays below 1,400, hence unfragmented.
pub(super) const MESSAGE_BYTES_MAX: usize = 1300;

type Bounded = bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<MESSAGE_BYTES_MAX>,
>;

const CONFIG: Bounded = bincode::config::standard().with_limit();

/// What cannot be written or read.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// It does not fit into what is left of the packet.
    #[error("no room in the packet")]
    Room,
    /// Not what this release writes.
    #[error("cannot be understood")]
    Content,
}

/// What one packet holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Content {
    /// One of foca's, for the life `boot` of the receiver: said to an earlier life it is not for this one.
    Member {
        /// The receiver's life.
        boot: u64,
        /// Its bytes.
        message: Vec<u8>,
    },
    /// "Here I am, who are you?": to an address of which no more is known, or that was silent.
    Hello {
        /// Who asks or answers.
        me: Identity,
        /// Whether an answer is wanted.
        answer: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct HeaderRow {
    src: Identity,
    src_incarnation: u16,
    dst: Identity,
    message: MessageRow,
}

#[derive(Serialize, Deserialize)]
enum MessageRow {
    Ping(ProbeNumber),
    Ack(ProbeNumber),
    PingReq(Identity, ProbeNumber),
    IndirectPing(Identity, ProbeNumber),
    IndirectAck(Identity, ProbeNumber),
    ForwardedAck(Identity, ProbeNumber),
    Announce,
    Feed,
    Gossip,
    Broadcast,
    TurnUndead,
}

#[derive(Serialize, Deserialize)]
struct MemberRow {
    id: Identity,
    incarnation: u16,
    state: StateRow,
}

#[derive(Serialize, Deserialize)]
enum StateRow {
    Alive,
    Suspect,
    Down,
}

/// Bytes of one value.
pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|_error| WireError::Content)
}

/// One value that fills the bytes.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let (value, read) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|_error| WireError::Content)?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(WireError::Content)
    }
}

/// foca's codec.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire;

impl foca::Codec<Identity> for Wire {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        put(&HeaderRow::from(header.clone()), buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, WireError> {
        let row: HeaderRow = take(buf)?;
        check(&row.src)?;
        check(&row.dst)?;
        Ok(row.into())
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        buf: impl BufMut,
    ) -> Result<(), WireError> {
        let state = match member.state() {
            State::Alive => StateRow::Alive,
            State::Suspect => StateRow::Suspect,
            State::Down => StateRow::Down,
        };
        let row = MemberRow {
            id: member.id().clone(),
            incarnation: member.incarnation(),
            state,
        };
        put(&row, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, WireError> {
        let row: MemberRow = take(buf)?;
        check(&row.id)?;
        let state = match row.state {
            StateRow::Alive => State::Alive,
            StateRow::Suspect => State::Suspect,
            StateRow::Down => State::Down,
        };
        Ok(Member::new(row.id, row.incarnation, state))
    }
}

/// Whole or not at all: foca goes on with the buffer when something did not fit.
fn put(row: &impl Serialize, mut buf: impl BufMut) -> Result<(), WireError> {
    let bytes = encode(row)?;
    if bytes.len() > buf.remaining_mut() {
        return Err(WireError::Room);
    }
    buf.put_slice(&bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut buf: impl Buf) -> Result<T, WireError> {
    let (row, read) = bincode::serde::decode_from_slice(buf.chunk(), CONFIG)
        .map_err(|_error| WireError::Content)?;
    buf.advance(read);
    Ok(row)
}

/// What serde does not know about identities.
pub(super) fn check(identity: &Identity) -> Result<(), WireError> {
    if identity.zone.len() > ZONE_BYTES_MAX {
        return Err(WireError::Content);
    }
    Ok(())
}

impl From<Header<Identity>> for HeaderRow {
    fn from(header: Header<Identity>) -> Self {
        let message = match header.message {
            Message::Ping(n) => MessageRow::Ping(n),
            Message::Ack(n) => MessageRow::Ack(n),
            Message::PingReq {
                target,
                probe_number,
            } => MessageRow::PingReq(target, probe_number),
            Message::IndirectPing {
                origin,
                probe_number,
            } => MessageRow::IndirectPing(origin, probe_number),
            Message::IndirectAck {
                target,
                probe_number,
            } => MessageRow::IndirectAck(target, probe_number),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => MessageRow::ForwardedAck(origin, probe_number),
            Message::Announce => MessageRow::Announce,
            Message::Feed => MessageRow::Feed,
            Message::Gossip => MessageRow::Gossip,
            Message::Broadcast => MessageRow::Broadcast,
            Message::TurnUndead => MessageRow::TurnUndead,
        };
        Self {
            src: header.src,
            src_incarnation: header.src_incarnation,
            dst: header.dst,
            message,
        }
    }
}

impl From<HeaderRow> for Header<Identity> {
    fn from(row: HeaderRow) -> Self {
        let message = match row.message {
            MessageRow::Ping(n) => Message::Ping(n),
            MessageRow::Ack(n) => Message::Ack(n),
            MessageRow::PingReq(target, probe_number) => Message::PingReq {
                target,
                probe_number,
            },
            MessageRow::IndirectPing(origin, probe_number) => Message::IndirectPing {
                origin,
                probe_number,
            },
            MessageRow::IndirectAck(target, probe_number) => Message::IndirectAck {
                target,
                probe_number,
            },
            MessageRow::ForwardedAck(origin, probe_number) => Message::ForwardedAck {
                origin,
                probe_number,
            },
            MessageRow::Announce => Message::Announce,
            MessageRow::Feed => Message::Feed,
            MessageRow::Gossip => Message::Gossip,
            MessageRow::Broadcast => Message::Broadcast,
            MessageRow::TurnUndead => Message::TurnUndead,
        };
        Self {
            src: row.src,
            src_incarnation: row.src_incarnation,
            dst: row.dst,
            message,
        }
    }
}
