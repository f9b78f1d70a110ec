//! Rows in sled. Nothing else in the house names sled's tree, and nothing but [`Rows::durable`] flushes it.
//!
//! A key is shard (u16, big endian), table (u8), key; table 0 holds the shard's progress. A value is sealed under its
//! key. Rules learned from measuring sled 0.34 (its `apply_batch` leaks, its `flush` is no fsync): insert in a loop, and
//! fsync the data file ourselves.

use std::{
    fs::File,
    io,
    ops::Bound,
    path::{Path, PathBuf},
};

use umbel_core::ids::ShardId;

use crate::codec;

/// Number of the table of the shard's own record.
pub(super) const OWN: u8 = 0;

/// Bytes of shard and table in front of a key.
const PREFIX_BYTES: usize = 3;

/// sled's background thread rewrites half-empty segments, and only it does; it runs this often. Its syncs promise
/// nothing to us.
const BACKGROUND_MS: u64 = 3_000;

/// Why a row was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The row does not have the bytes that were written.
    Record(String),
    /// The disk is full.
    Full,
    /// sled failed.
    Store(String),
}

impl From<sled::Error> for Fault {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => Self::Full,
            other @ (sled::Error::Io(_)
            | sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. }) => Self::Store(other.to_string()),
        }
    }
}

/// The whole key of a row.
pub(super) fn row_key(shard: ShardId, table: u8, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + key.len());
    bytes.extend_from_slice(&shard.0.to_be_bytes());
    bytes.push(table);
    bytes.extend_from_slice(key);
    bytes
}

/// Table and key of a whole key.
pub(super) fn split(row_key: &[u8]) -> (u8, &[u8]) {
    match row_key {
        [_, _, table, key @ ..] => (*table, key),
        _ => (OWN, &[]),
    }
}

/// A row found by a scan: its whole key and its value.
pub(super) type Row = (Vec<u8>, Vec<u8>);

/// The open store.
pub(super) struct Rows {
    db: sled::Db,
    dir: PathBuf,
}

impl Rows {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, Fault> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(BACKGROUND_MS))
            .open()?;
        Ok(Self {
            db,
            dir: dir.to_owned(),
        })
    }

    pub(super) fn get(&self, row_key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(sealed) = self.db.get(row_key)? else {
            return Ok(None);
        };
        Ok(Some(unseal(row_key, &sealed)?.to_vec()))
    }

    pub(super) fn put(&self, row_key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.db.insert(row_key, codec::seal(row_key, value))?;
        Ok(())
    }

    /// Writes bytes as they are, to play damage.
    #[cfg(test)]
    pub(super) fn put_raw(&self, row_key: &[u8], bytes: &[u8]) {
        self.db.insert(row_key, bytes).expect("inserted");
    }

    pub(super) fn remove(&self, row_key: &[u8]) -> Result<(), Fault> {
        self.db.remove(row_key)?;
        Ok(())
    }

    /// Up to `limit` rows whose whole key begins with `prefix` and is greater than `after`.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, Fault> {
        let mut rows = Vec::new();
        for row in self.range(prefix, after).take(limit) {
            let (key, sealed) = row?;
            let value = unseal(&key, &sealed)?.to_vec();
            rows.push((key.to_vec(), value));
        }
        Ok(rows)
    }

    /// The same for keys alone, whatever their values.
    pub(super) fn keys(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let keys = self.range(prefix, None).take(limit);
        keys.map(|row| row.map(|(key, _)| key.to_vec()).map_err(Fault::from))
            .collect()
    }

    fn range<'a>(
        &self,
        prefix: &'a [u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>> + use<'a> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            Some(_) | None => Bound::Included(prefix.to_vec()),
        };
        let rows = self.db.range::<Vec<u8>, _>((start, Bound::Unbounded));
        rows.take_while(move |row| {
            row.as_ref()
                .map_or(true, |(key, _)| key.starts_with(prefix))
        })
    }

    /// Makes everything written durable: sled's own flush does not reach the disk's platter, our fsync does. The only
    /// place that flushes sled.
    pub(super) fn durable(&self) -> Result<(), Fault> {
        self.db.flush()?;
        for path in [self.dir.join("db"), self.dir.clone()] {
            File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|error| Fault::Store(format!("fsync of {}: {error}", path.display())))?;
        }
        Ok(())
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or_default()
    }
}

fn unseal<'a>(row_key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Fault> {
    codec::unseal(row_key, sealed).map_err(|error| {
        let (table, key) = split(row_key);
        let key = String::from_utf8_lossy(key).escape_debug().to_string();
        Fault::Record(format!("row {key} of table {table}: {error}"))
    })
}
