//! Reading a shard to see whether it is what was written.

use umbel_core::ids::ShardId;

use super::{
    progress::{Intent, Progress, Proof},
    rows::{Fault, OWN, Rows, row_key, split},
};
use crate::{digest, state::Mark};

/// Rows read at a time.
pub(super) const PAGE: usize = 512;

/// How far a shard is applied, if every row of it is whole and none is missing.
pub(super) fn check(rows: &Rows, shard: ShardId) -> Result<Mark, Fault> {
    let own = row_key(shard, OWN, &[]);
    let progress = match rows.get(&own)? {
        Some(bytes) => {
            Progress::decode(&bytes).map_err(|error| Fault::Record(error.to_string()))?
        },
        // a shard never touched; if it has rows, their digest will not be zero
        None => Progress::Intent(Intent::default()),
    };
    let Progress::Intent(intent) = progress else {
        return Err(Fault::Record(
            "a rebuild of the shard was interrupted".to_owned(),
        ));
    };
    let mut proof = Proof::of(intent);
    each_row(rows, shard, |key, value| {
        let (table, row) = split(key);
        proof.row(
            key.get(2..).unwrap_or_default(),
            digest::of_row(table, row, value),
        );
        Ok(())
    })?;
    proof.conclude().map_err(Fault::Record)
}

/// Calls `each` with the whole key and value of every row of a shard, the shard's own record left out.
pub(super) fn each_row(
    rows: &Rows,
    shard: ShardId,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let prefix = shard.0.to_be_bytes();
    let mut after = row_key(shard, OWN, &[]);
    loop {
        let page = rows.scan(&prefix, Some(&after), PAGE)?;
        for (key, value) in &page {
            each(key, value)?;
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = last,
            None => return Ok(()),
        }
    }
}

/// Removes every row of a shard, its own record left in.
pub(super) fn clear(rows: &Rows, shard: ShardId) -> Result<(), Fault> {
    for table in 1..=u8::MAX {
        loop {
            let keys = rows.keys(&row_key(shard, table, &[]), PAGE)?;
            for key in &keys {
                rows.remove(key)?;
            }
            if keys.len() < PAGE {
                break;
            }
        }
    }
    Ok(())
}
