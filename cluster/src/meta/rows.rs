//! Rows of the map as bytes: the key is a byte for the kind and a name, the value a format byte and a record.
//!
//! A kind or a format that this release does not know stops the node by name: a map read with holes would be believed.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use umbel_core::{
    cluster::{ClusterMap, Counters, Row},
    ids::{NodeId, ShardId},
};
use umbel_storage::{
    Ledger, ReadError, Table, Write,
    codec::{self, CodecError},
};

/// Format of the value of each kind of row. A new one gets a new number and a reader of the old.
const FORMAT: u8 = 1;
/// Rows read at once.
const PAGE: usize = 256;

/// The first byte of a key. Never reused.
mod kind {
    /// Names no row: see [`super::barrier`].
    pub(super) const NOTHING: u8 = 0;
    pub(super) const IDENTITY: u8 = 1;
    pub(super) const COUNTERS: u8 = 2;
    pub(super) const SETTINGS: u8 = 3;
    pub(super) const AUTHORITY: u8 = 4;
    pub(super) const NODE: u8 = 5;
    pub(super) const SHARD: u8 = 6;
    pub(super) const TOKEN: u8 = 7;
    pub(super) const GOSSIP_KEY: u8 = 8;
    pub(super) const REQUEST: u8 = 9;
}

/// Why the rows of the meta group are not a map.
#[derive(Debug, Error)]
pub enum RowError {
    /// They cannot be read.
    #[error("read the cluster map")]
    Read(#[source] ReadError),
    /// A row of a kind this release does not know.
    #[error("the cluster map has a row of kind {0}, which this release does not know")]
    Kind(u8),
    /// A key that names nothing.
    #[error("the cluster map has a row of kind {0} without a name")]
    Name(u8),
    /// A value that is not understood.
    #[error("a row of kind {kind} of the cluster map: {source}")]
    Value {
        /// Kind of the row.
        kind: u8,
        /// What is wrong with it.
        source: CodecError,
    },
}

/// The write that stores a row.
pub(super) fn write(row: &Row) -> Result<Write, RowError> {
    match row {
        Row::Identity(value) => put(kind::IDENTITY, &[], Some(value)),
        Row::Counters(value) => put(kind::COUNTERS, &[], Some(value)),
        Row::Settings(value) => put(kind::SETTINGS, &[], Some(value)),
        Row::Authority(value) => put(kind::AUTHORITY, &[], Some(value)),
        Row::Node(id, value) => put(kind::NODE, &id.0.to_be_bytes(), Some(value)),
        Row::Shard(id, value) => put(kind::SHARD, &id.0.to_be_bytes(), Some(value)),
        Row::Token(hash, value) => put(kind::TOKEN, hash, value.as_ref()),
        Row::GossipKey(id, value) => put(kind::GOSSIP_KEY, &id.to_be_bytes(), value.as_ref()),
        Row::Request(place, value) => put(kind::REQUEST, &place.to_be_bytes(), value.as_ref()),
    }
}

/// A write that changes nothing: when it is committed, so is everything that was proposed before.
pub(super) fn barrier() -> Write {
    Write::delete(Table::Cluster, vec![kind::NOTHING])
}

fn put<T: Serialize>(kind: u8, name: &[u8], value: Option<&T>) -> Result<Write, RowError> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(kind);
    key.extend_from_slice(name);
    let Some(value) = value else {
        return Ok(Write::delete(Table::Cluster, key));
    };
    let value = codec::encode(FORMAT, value).map_err(|source| RowError::Value { kind, source })?;
    Ok(Write::put(Table::Cluster, key, value))
}

/// The row of a key and a value.
fn row(key: &[u8], value: &[u8]) -> Result<Row, RowError> {
    let (kind, name) = key.split_first().ok_or(RowError::Name(0))?;
    let kind = *kind;
    Ok(match kind {
        kind::IDENTITY => Row::Identity(decode(kind, value)?),
        kind::COUNTERS => Row::Counters(decode(kind, value)?),
        kind::SETTINGS => Row::Settings(decode(kind, value)?),
        kind::AUTHORITY => Row::Authority(decode(kind, value)?),
        kind::NODE => {
            let id = NodeId(u64::from_be_bytes(fixed(kind, name)?));
            Row::Node(id, decode(kind, value)?)
        },
        kind::SHARD => {
            let id = ShardId(u16::from_be_bytes(fixed(kind, name)?));
            Row::Shard(id, decode(kind, value)?)
        },
        kind::TOKEN => Row::Token(fixed(kind, name)?, Some(decode(kind, value)?)),
        kind::GOSSIP_KEY => {
            let id = u32::from_be_bytes(fixed(kind, name)?);
            Row::GossipKey(id, Some(decode(kind, value)?))
        },
        kind::REQUEST => {
            let place = u64::from_be_bytes(fixed(kind, name)?);
            Row::Request(place, Some(decode(kind, value)?))
        },
        other => return Err(RowError::Kind(other)),
    })
}

fn fixed<const N: usize>(kind: u8, name: &[u8]) -> Result<[u8; N], RowError> {
    name.try_into()
        .map_err(|_wrong_length| RowError::Name(kind))
}

fn decode<T: DeserializeOwned>(kind: u8, value: &[u8]) -> Result<T, RowError> {
    let (format, body) =
        codec::format_of(value).map_err(|source| RowError::Value { kind, source })?;
    let value = match format {
        FORMAT => codec::decode_body(body),
        other => Err(CodecError::Format(other)),
    };
    value.map_err(|source| RowError::Value { kind, source })
}

/// The map of the rows applied here so far.
///
/// Rows of one decision are applied together, pages are not read together: a map that was read while rows changed may mix
/// two decisions: [`read_settled`] is for readers beside whom decisions are made.
pub(super) fn read(ledger: &dyn Ledger) -> Result<ClusterMap, RowError> {
    let mut map = ClusterMap::default();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = ledger
            .scan(ShardId::META, Table::Cluster, &[], after.as_deref(), PAGE)
            .map_err(RowError::Read)?;
        let full = page.len() == PAGE;
        for (key, value) in &page {
            map.apply(row(key, value)?);
        }
        match page.into_iter().next_back() {
            Some((key, _)) if full => after = Some(key),
            _ => return Ok(map),
        }
    }
}

/// The counters alone: their revision says whether a map is still that of the rows.
pub(super) fn revision(ledger: &dyn Ledger) -> Result<u64, RowError> {
    let key = [kind::COUNTERS];
    let found = ledger
        .get(ShardId::META, Table::Cluster, &key)
        .map_err(RowError::Read)?;
    let Some(value) = found else { return Ok(0) };
    let counters: Counters = decode(kind::COUNTERS, &value)?;
    Ok(counters.revision)
}

/// A map of one moment: read again while rows changed meanwhile, a few times.
pub(super) fn read_settled(ledger: &dyn Ledger) -> Result<ClusterMap, RowError> {
    let mut map = read(ledger)?;
    for _ in 0..8 {
        let unchanged = revision(ledger)? == map.counters.revision;
        if unchanged {
            return Ok(map);
        }
        map = read(ledger)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests;
