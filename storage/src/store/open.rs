//! Opening the state: check every shard, and set the whole store aside when sled itself cannot be trusted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use umbel_core::ids::ShardId;

use super::{
    StateOptions, StateStore,
    check::check,
    rows::{Fault, Rows},
    shard::Shard,
    snapshots::{Snapshots, failure},
};
use crate::{guard::guarded, state::StateError};

/// Damaged stores kept for a look; older ones are deleted.
const SET_ASIDE_MAX: usize = 2;

/// Opens or creates the state.
pub(super) fn open(options: &StateOptions) -> Result<StateStore, StateError> {
    fs::create_dir_all(&options.dir).map_err(failure)?;
    let snapshots = Snapshots::open(options.dir.join("snapshots")).map_err(failure)?;
    let dir = options.dir.join("sled");
    let opened = match open_and_check(&dir, options) {
        Ok(opened) => opened,
        Err(reason) if is_in_use(&reason) => return Err(StateError::Io(reason)),
        Err(reason) => {
            let aside = set_aside(&options.dir, &dir).map_err(failure)?;
            tracing::error!(
                reason,
                aside = %aside.display(),
                "the state does not open: set aside, to be rebuilt from snapshots and log"
            );
            open_and_check(&dir, options).map_err(StateError::Io)?
        },
    };
    let (rows, shards) = opened;
    Ok(StateStore::new(rows, shards, snapshots))
}

fn open_and_check(dir: &Path, options: &StateOptions) -> Result<(Rows, Vec<Shard>), String> {
    let rows = guarded("opening sled", || Rows::open(dir, options.cache_bytes))?
        .map_err(|fault| format!("{fault:?}"))?;
    let mut shards = Vec::with_capacity(usize::from(options.shards) + 1);
    for id in (0..options.shards).map(ShardId).chain([ShardId::META]) {
        let shard = Shard::default();
        match guarded("reading sled", || check(&rows, id))? {
            Ok(mark) => shard.applied.lock().mark = mark,
            Err(Fault::Record(detail)) => {
                tracing::error!(shard = %id, detail, "shard is damaged: to be rebuilt");
                shard.set_damaged(detail);
            },
            Err(fault @ (Fault::Full | Fault::Store(_))) => return Err(format!("{fault:?}")),
        }
        shards.push(shard);
    }
    Ok((rows, shards))
}

/// Another process has it open: that is not damage.
fn is_in_use(reason: &str) -> bool {
    reason.contains("could not acquire lock")
}

fn set_aside(home: &Path, dir: &Path) -> io::Result<PathBuf> {
    let mut numbers: Vec<u32> = Vec::new();
    for file in fs::read_dir(home)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("damaged-"));
        numbers.extend(number.and_then(|number| number.parse::<u32>().ok()));
    }
    numbers.sort_unstable();
    let path = |number: u32| home.join(format!("damaged-{number}"));
    let excess = (numbers.len() + 1).saturating_sub(SET_ASIDE_MAX);
    for number in numbers.iter().take(excess) {
        fs::remove_dir_all(path(*number))?;
    }
    let aside = path(numbers.last().map_or(1, |last| last + 1));
    fs::rename(dir, &aside)?;
    Ok(aside)
}
