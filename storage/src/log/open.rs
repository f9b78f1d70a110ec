//! Opening the log: believe what is whole, cut off a torn end, refuse when acknowledged data is gone.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use raft_engine::env::FileSystem;
use thiserror::Error;

use super::{
    GroupId, Meta,
    disk::{self, Disk, NODE_REGION, Sizes, region_of},
    files::{Closed, check_headers},
    high_water::HighWater,
    rewritten::Rewritten,
    view::View,
    writer::{KEY_CUT, KEY_FLUSH, key_of},
};

/// Why the log does not open. Nothing was deleted.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("log directory {}", path.display())]
    Io {
        /// What was being opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The files are damaged before their end, or the directory is in use.
    #[error("log in {} does not open: {detail}", path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What was found, with file and offset where known.
        detail: String,
    },
    /// The log is readable, but shorter than what was acknowledged.
    #[error(
        "log in {} has lost acknowledged data: it ends at flush {found}, but flush {expected} was durable; restore the \
         directory, or remove its file `high-water` to accept the loss",
        path.display()
    )]
    Lost {
        /// Where.
        path: PathBuf,
        /// The last flush known to be durable.
        expected: u64,
        /// The last flush found.
        found: u64,
    },
}

/// What was found.
pub(super) struct Recovered {
    pub(super) disk: Box<dyn Disk>,
    pub(super) high_water: HighWater,
    pub(super) rewritten: Rewritten,
    pub(super) flush: u64,
    pub(super) views: BTreeMap<GroupId, View>,
    pub(super) cuts: BTreeMap<GroupId, u64>,
}

/// Opens or creates the log in `dir`.
pub(super) fn recover<F: FileSystem + 'static>(
    dir: &Path,
    sizes: Sizes,
    files: &Arc<F>,
) -> Result<Recovered, OpenError> {
    let io_error = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let damaged = |detail| OpenError::Damaged {
        path: dir.to_owned(),
        detail,
    };
    let engine_dir = dir.join("engine");
    fs::create_dir_all(&engine_dir).map_err(io_error)?;
    let (high_water, expected) = HighWater::open(&dir.join("high-water")).map_err(io_error)?;
    let rewritten = Rewritten::open(dir, &engine_dir).map_err(io_error)?;
    let name = engine_dir
        .to_str()
        .ok_or_else(|| damaged("path is not UTF-8".to_owned()))?;

    check_headers(&engine_dir)
        .map_err(io_error)?
        .map_err(damaged)?;
    let mut guard = Closed::unfinished(dir, &engine_dir).map_err(io_error)?;
    let disk = match disk::open(name, sizes, Arc::clone(files), true) {
        Ok(disk) => disk,
        Err(reason) => {
            guard = Some(Closed::before_repair(dir, &engine_dir).map_err(io_error)?);
            let disk = disk::open(name, sizes, Arc::clone(files), false).map_err(damaged)?;
            tracing::info!(reason, "the log was not closed: its torn end was cut off");
            disk
        },
    };
    if let Some(guard) = guard {
        guard.check().map_err(damaged)?;
        guard.finish().map_err(io_error)?;
    }
    // raft-engine creates its first file without a sync of the directory
    for path in [&engine_dir, dir] {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(io_error)?;
    }
    rewritten.check().map_err(damaged)?;
    let found = number(disk.value(NODE_REGION, KEY_FLUSH));
    if found < expected {
        return Err(OpenError::Lost {
            path: dir.to_owned(),
            expected,
            found,
        });
    }
    let groups = disk.groups();
    let views = groups
        .iter()
        .map(|group| (*group, view_of(disk.as_ref(), *group)))
        .collect();
    let cuts = groups
        .into_iter()
        .filter_map(|group| Some((group, cut_of(disk.as_ref(), group)?)))
        .collect();
    Ok(Recovered {
        disk,
        high_water,
        rewritten,
        flush: found,
        views,
        cuts,
    })
}

/// A group as it is on disk.
pub(super) fn view_of(disk: &dyn Disk, group: GroupId) -> View {
    let mut range = disk.span(group);
    if let Some(since) = cut_of(disk, group) {
        range.end = range.end.min(since).max(range.start);
    }
    let metas = Meta::ALL.into_iter().filter_map(|key| {
        let value = disk.value(region_of(group), key_of(key))?;
        Some((key, Bytes::from(value)))
    });
    View::recovered(range, metas.collect())
}

fn cut_of(disk: &dyn Disk, group: GroupId) -> Option<u64> {
    disk.value(region_of(group), KEY_CUT)
        .map(|value| number(Some(value)))
}

fn number(value: Option<Vec<u8>>) -> u64 {
    let bytes = value.and_then(|value| value.try_into().ok());
    bytes.map_or(0, u64::from_le_bytes)
}
