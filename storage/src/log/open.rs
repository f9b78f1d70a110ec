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
    high_water::HighWater,
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
    let name = engine_dir
        .to_str()
        .ok_or_else(|| damaged("path is not UTF-8".to_owned()))?;

    let disk = match disk::open(name, sizes, Arc::clone(files), true) {
        Ok(disk) => disk,
        Err(first) => {
            let guard = Closed::before_repair(dir, &engine_dir).map_err(io_error)?;
            let disk = disk::open(name, sizes, Arc::clone(files), false).map_err(damaged)?;
            guard.check().map_err(damaged)?;
            guard.finish().map_err(io_error)?;
            tracing::info!(
                reason = first,
                "the log was not closed: its torn end was cut off"
            );
            disk
        },
    };
    // raft-engine creates its first file without a sync of the directory
    for path in [&engine_dir, dir] {
        File::open(path)
            .and_then(|dir| dir.sync_all())
            .map_err(io_error)?;
    }
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

/// Sizes of the files that are closed: recovery may cut the last one of each kind and no other. They are noted before
/// the first attempt, because that attempt changes them.
struct Closed {
    note: PathBuf,
    dir: PathBuf,
    sizes: BTreeMap<String, u64>,
}

impl Closed {
    fn before_repair(dir: &Path, engine_dir: &Path) -> io::Result<Self> {
        let note = dir.join("repairing");
        let sizes = match fs::read_to_string(&note) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => sizes_of(engine_dir)?,
            Err(error) => return Err(error),
        };
        let lines: Vec<_> = sizes
            .iter()
            .map(|(name, bytes)| format!("{bytes} {name}"))
            .collect();
        fs::write(&note, lines.join("\n"))?;
        File::open(&note)?.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self {
            note,
            dir: engine_dir.to_owned(),
            sizes,
        })
    }

    fn check(&self) -> Result<(), String> {
        for kind in [".raftlog", ".rewrite"] {
            let mut files = self
                .sizes
                .iter()
                .filter(|(name, _)| name.ends_with(kind))
                .rev();
            // the last one was being written
            files.next();
            for (name, before) in files {
                let path = self.dir.join(name);
                let now = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                if now < *before {
                    let path = path.display();
                    return Err(format!(
                        "{path} is damaged from offset {now} on, of {before}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        fs::remove_file(self.note)
    }
}

fn sizes_of(dir: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for file in fs::read_dir(dir)? {
        let file = file?;
        if let Ok(name) = file.file_name().into_string() {
            sizes.insert(name, file.metadata()?.len());
        }
    }
    Ok(sizes)
}

fn parse(text: &str) -> BTreeMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(bytes, name)| Some((name.to_owned(), bytes.parse().ok()?)))
        .collect()
}
