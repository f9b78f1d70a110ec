//! One entry's writes into rows: what changes, in what order it is written, and what that does to the digest.

use std::collections::BTreeMap;

use umbel_core::ids::ShardId;

use super::{
    progress::{Intent, Progress, Touched},
    rows::{Fault, OWN, Rows, row_key, split},
    shard::Applied,
};
use crate::{
    crash, digest,
    state::Digest,
    table::{Operation, Write},
};

/// Rows named in one intent; a large batch has several. sled would put a larger record into a file of its own.
const TOUCHED_MAX: usize = 64;

/// A row that changes: its whole key, hash of the old value, new value and its hash.
struct Change {
    row_key: Vec<u8>,
    before: Option<u128>,
    after: Option<(Vec<u8>, u128)>,
}

/// Applies the writes of entry `index`; `applied` is brought up to date as far as rows were written. Returns how many
/// rows changed.
pub(super) fn apply(
    rows: &Rows,
    shard: ShardId,
    applied: &mut Applied,
    index: u64,
    meta: &[u8],
    writes: &[Write],
) -> Result<usize, Fault> {
    let changes = changes(rows, shard, plan(rows, shard, writes)?)?;
    let count = changes.len();
    let before = (applied.mark.index, applied.mark.meta.clone());
    let mut rest = changes.into_iter().peekable();
    loop {
        let chunk: Vec<_> = rest.by_ref().take(TOUCHED_MAX).collect();
        let more = rest.peek().is_some();
        let others = chunk.iter().filter_map(|change| change.before);
        let others = others.fold(applied.mark.digest, Digest::minus);
        let intent = Intent {
            index,
            meta: meta.to_vec(),
            index_before: before.0,
            meta_before: before.1.clone(),
            more,
            others: others.0,
            touched: chunk.iter().map(touched).collect(),
        };
        put_progress(rows, shard, &Progress::Intent(intent))?;
        for change in chunk {
            write(rows, applied, change)?;
        }
        if !more {
            break;
        }
    }
    applied.mark.index = index;
    applied.mark.meta = meta.to_vec();
    Ok(count)
}

/// Writes the shard's own record.
pub(super) fn put_progress(rows: &Rows, shard: ShardId, progress: &Progress) -> Result<(), Fault> {
    let bytes = progress
        .encode()
        .map_err(|error| Fault::Store(error.to_string()))?;
    rows.put(&row_key(shard, OWN, &[]), &bytes)
}

/// The last word of the writes on each key they touch.
fn plan(
    rows: &Rows,
    shard: ShardId,
    writes: &[Write],
) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, Fault> {
    let mut plan = BTreeMap::new();
    for write in writes {
        let key = row_key(shard, write.table as u8, &write.key);
        match &write.operation {
            Operation::Put(value) => {
                plan.insert(key, Some(value.clone()));
            },
            Operation::Delete => {
                plan.insert(key, None);
            },
            Operation::DeletePrefix => {
                let planned = plan.range_mut(key.clone()..);
                for (_, value) in planned.take_while(|(planned, _)| planned.starts_with(&key)) {
                    *value = None;
                }
                for existing in rows.keys(&key, usize::MAX)? {
                    plan.insert(existing, None);
                }
            },
        }
    }
    Ok(plan)
}

/// Leaves out what is already as it should be: applying again writes nothing.
fn changes(
    rows: &Rows,
    shard: ShardId,
    plan: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> Result<Vec<Change>, Fault> {
    debug_assert!(
        plan.keys()
            .all(|key| key.starts_with(&shard.0.to_be_bytes())),
        "own shard only"
    );
    let mut changes = Vec::with_capacity(plan.len());
    for (row_key, value) in plan {
        let old = rows.get(&row_key)?;
        if old == value {
            continue;
        }
        let (table, key) = split(&row_key);
        let before = old.map(|old| digest::of_row(table, key, &old));
        let after = value.map(|value| {
            let hash = digest::of_row(table, key, &value);
            (value, hash)
        });
        changes.push(Change {
            row_key,
            before,
            after,
        });
    }
    Ok(changes)
}

fn touched(change: &Change) -> Touched {
    // without the shard, which the progress record itself stands under
    let key = change.row_key.get(2..).unwrap_or_default().to_vec();
    let after = change.after.as_ref().map(|(_, hash)| *hash);
    Touched {
        key,
        before: change.before,
        after,
    }
}

fn write(rows: &Rows, applied: &mut Applied, change: Change) -> Result<(), Fault> {
    let Change {
        row_key,
        before,
        after,
    } = change;
    let hash = after.as_ref().map(|(_, hash)| *hash);
    crash::point("state.row.before");
    match &after {
        Some((value, _)) => rows.put(&row_key, value)?,
        None => rows.remove(&row_key)?,
    }
    applied.replaced(&row_key, before, hash);
    Ok(())
}
