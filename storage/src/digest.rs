//! The digest of a shard: a sum that can be kept up to date row by row.

use xxhash_rust::xxh3::Xxh3;

use crate::state::Digest;

/// What one row adds to its shard's digest.
pub(crate) fn of_row(table: u8, key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = Xxh3::new();
    hasher.update(&[table]);
    // the length keeps key and value apart
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.digest128()
}

impl Digest {
    /// With one more row.
    #[must_use]
    pub(crate) fn plus(self, row: u128) -> Self {
        Self(self.0.wrapping_add(row))
    }

    /// With one row less.
    #[must_use]
    pub(crate) fn minus(self, row: u128) -> Self {
        Self(self.0.wrapping_sub(row))
    }
}
