//! The only file of this room that names bincode: what a log entry looks like on disk.
//!
//! Two nested formats, each with its own format byte. The *entry* (who proposed it, where, what kind) has to be
//! understood to run Raft at all; the *batch* inside it only when it is applied. A byte that this release does
//! not know is an error by name, never a skipped record: release N reads what N−1 wrote, not the other way round.
//!
//! Types on disk are the plain tuples below, not the types of memory: renaming a field of [`Write`] must not
//! change what is on disk.

use bincode::{
    Decode, Encode,
    de::Decoder,
    enc::Encoder,
    error::{DecodeError, EncodeError},
};
use thiserror::Error;
use umbel_storage::{Operation, Table, Write};

/// Format of an entry of the log.
const ENTRY_FORMAT: u8 = 1;
/// Format of the batch inside an entry.
const BATCH_FORMAT: u8 = 1;
/// Format of the small records beside the log: votes, log ids, memberships.
const META_FORMAT: u8 = 1;

/// Most bytes any decoded record may claim. An entry holds one batch of at most
/// `Limits::batch_bytes_max + Limits::command_bytes_max`, see [`crate::config::Limits`].
pub(crate) const RECORD_BYTES_MAX: usize = 32 << 20;

/// What a write costs beside its key and value, in memory and on disk. Keeps a command of many tiny writes
/// within what [`RECORD_BYTES_MAX`] lets a reader claim.
pub(crate) const WRITE_OVERHEAD_BYTES: usize = 64;

/// What an entry costs beside its batch, and more than any small record takes.
const ENTRY_OVERHEAD_BYTES: usize = 64;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<RECORD_BYTES_MAX>,
> = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();

/// Why bytes of the log are not understood.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    /// There is not even a format byte.
    #[error("the {what} is empty")]
    Empty {
        /// Which record.
        what: &'static str,
    },
    /// Written by a newer release, or not one of ours.
    #[error("the {what} has format {found}, this release reads up to {known}")]
    Format {
        /// Which record.
        what: &'static str,
        /// The format byte found.
        found: u8,
        /// The newest format this release reads.
        known: u8,
    },
    /// The format is known, the content is damaged.
    #[error("the {what} does not decode: {source}")]
    Content {
        /// Which record.
        what: &'static str,
        /// What bincode says.
        source: DecodeError,
    },
    /// Bytes are left over behind the record.
    #[error("the {what} has {left} bytes too many")]
    Trailing {
        /// Which record.
        what: &'static str,
        /// How many.
        left: usize,
    },
}

/// Commands proposed together: each a list of writes that stand or fall together.
///
/// `term` is the term of the owner that decided them. Applied under any other term, the whole batch is refused,
/// on every replica alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The term in which the proposers owned the shard.
    pub(crate) term: u64,
    /// The writes of each command, in the order of the proposals.
    pub(crate) commands: Vec<Vec<Write>>,
}

impl Batch {
    /// The bytes of a batch, from the commands where they lie.
    pub(crate) fn encode<'a>(
        term: u64,
        commands: impl Iterator<Item = &'a [Write]>,
    ) -> Result<Vec<u8>, EncodeError> {
        let commands: Vec<Rows<'_>> = commands.map(Rows).collect();
        let at_most = commands.iter().map(|Rows(writes)| weight(writes)).sum();
        encode(BATCH_FORMAT, at_most, (term, commands))
    }

    /// Reads a batch back.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (term, commands): (u64, Vec<Vec<Row>>) = decode("batch", BATCH_FORMAT, bytes)?;
        let commands = commands
            .into_iter()
            .map(|rows| rows.into_iter().map(|Row(write)| write).collect())
            .collect();
        Ok(Self { term, commands })
    }
}

/// What the batcher counts a command as.
pub(crate) fn weight(writes: &[Write]) -> usize {
    writes.iter().fold(WRITE_OVERHEAD_BYTES, |sum, write| {
        let value = match &write.operation {
            Operation::Put(value) => value.len(),
            Operation::Delete | Operation::DeletePrefix => 0,
        };
        sum.saturating_add(WRITE_OVERHEAD_BYTES + write.key.len() + value)
    })
}

/// An entry of the log, as it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredEntry {
    /// Where it stands.
    pub(crate) id: StoredLogId,
    /// What it says.
    pub(crate) body: StoredBody,
}

/// A place in the log: (term, node) of the leader that proposed it, and the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredLogId {
    /// The leader's term.
    pub(crate) term: u64,
    /// The leader.
    pub(crate) node: u64,
    /// The index.
    pub(crate) index: u64,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoredBody {
    /// A new leader's first word.
    Blank,
    /// An encoded [`Batch`].
    Batch(Vec<u8>),
    /// Who votes and who learns from here on.
    Membership(StoredMembers),
}

/// The voters (one set, or two while they change) and all nodes, learners included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredMembers {
    /// Sets of voters.
    pub(crate) voters: Vec<Vec<u64>>,
    /// Every node.
    pub(crate) nodes: Vec<u64>,
}

const BODY_BLANK: u8 = 0;
const BODY_BATCH: u8 = 1;
const BODY_MEMBERSHIP: u8 = 2;

impl StoredEntry {
    /// The bytes of this entry.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let body = match &self.body {
            StoredBody::Batch(batch) => batch.len(),
            StoredBody::Blank | StoredBody::Membership(_) => 0,
        };
        encode(ENTRY_FORMAT, ENTRY_OVERHEAD_BYTES + body, self)
    }

    /// Reads an entry back.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode("entry", ENTRY_FORMAT, bytes)
    }
}

/// The bytes of a small record beside the log.
pub(crate) fn encode_meta(value: impl Encode) -> Result<Vec<u8>, EncodeError> {
    encode(META_FORMAT, ENTRY_OVERHEAD_BYTES, value)
}

/// Reads a small record back.
pub(crate) fn decode_meta<T: Decode<()>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    decode(what, META_FORMAT, bytes)
}

/// `expected` is how many bytes it will be, about: a batch that grows by doubling is copied on its way.
fn encode(format: u8, expected: usize, value: impl Encode) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(expected);
    bytes.push(format);
    bincode::encode_into_std_write(value, &mut bytes, CONFIG)?;
    Ok(bytes)
}

fn decode<T: Decode<()>>(what: &'static str, known: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let (&found, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if found != known {
        return Err(CodecError::Format { what, found, known });
    }
    let (value, read) = bincode::decode_from_slice(body, CONFIG)
        .map_err(|source| CodecError::Content { what, source })?;
    match body.len().saturating_sub(read) {
        0 => Ok(value),
        left => Err(CodecError::Trailing { what, left }),
    }
}

/// The writes of one command, borrowed for encoding.
struct Rows<'a>(&'a [Write]);

/// One write, owned after decoding.
struct Row(Write);

const OPERATION_PUT: u8 = 0;
const OPERATION_DELETE: u8 = 1;
const OPERATION_DELETE_PREFIX: u8 = 2;

impl Encode for Rows<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        // A `usize` is a varint of at most `u64`: the same bytes as the length of a `Vec`.
        self.0.len().encode(encoder)?;
        for write in self.0 {
            (write.table as u8).encode(encoder)?;
            write.key.encode(encoder)?;
            match &write.operation {
                Operation::Put(value) => {
                    OPERATION_PUT.encode(encoder)?;
                    value.encode(encoder)?;
                },
                Operation::Delete => OPERATION_DELETE.encode(encoder)?,
                Operation::DeletePrefix => OPERATION_DELETE_PREFIX.encode(encoder)?,
            }
        }
        Ok(())
    }
}

impl<C> Decode<C> for Row {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let table = table(u8::decode(decoder)?)?;
        let key = Vec::<u8>::decode(decoder)?;
        let operation = match u8::decode(decoder)? {
            OPERATION_PUT => Operation::Put(Vec::<u8>::decode(decoder)?),
            OPERATION_DELETE => Operation::Delete,
            OPERATION_DELETE_PREFIX => Operation::DeletePrefix,
            other => {
                return Err(DecodeError::OtherString(format!(
                    "unknown operation {other}"
                )));
            },
        };
        Ok(Self(Write {
            table,
            key,
            operation,
        }))
    }
}

/// The table of a number on disk. Numbers are never reused, so an unknown one is from a newer release.
fn table(number: u8) -> Result<Table, DecodeError> {
    Table::from_number(number)
        .ok_or_else(|| DecodeError::OtherString(format!("unknown table {number}")))
}

impl Encode for StoredEntry {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.id.encode(encoder)?;
        match &self.body {
            StoredBody::Blank => BODY_BLANK.encode(encoder),
            StoredBody::Batch(bytes) => {
                BODY_BATCH.encode(encoder)?;
                bytes.encode(encoder)
            },
            StoredBody::Membership(members) => {
                BODY_MEMBERSHIP.encode(encoder)?;
                members.encode(encoder)
            },
        }
    }
}

impl<C> Decode<C> for StoredEntry {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id = StoredLogId::decode(decoder)?;
        let body = match u8::decode(decoder)? {
            BODY_BLANK => StoredBody::Blank,
            BODY_BATCH => StoredBody::Batch(Vec::<u8>::decode(decoder)?),
            BODY_MEMBERSHIP => StoredBody::Membership(StoredMembers::decode(decoder)?),
            other => return Err(DecodeError::OtherString(format!("unknown kind {other}"))),
        };
        Ok(Self { id, body })
    }
}

impl Encode for StoredLogId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.term, self.node, self.index).encode(encoder)
    }
}

impl<C> Decode<C> for StoredLogId {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (term, node, index) = Decode::decode(decoder)?;
        Ok(Self { term, node, index })
    }
}

impl Encode for StoredMembers {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.voters.encode(encoder)?;
        self.nodes.encode(encoder)
    }
}

impl<C> Decode<C> for StoredMembers {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self {
            voters: Decode::decode(decoder)?,
            nodes: Decode::decode(decoder)?,
        })
    }
}

#[cfg(test)]
mod tests;
