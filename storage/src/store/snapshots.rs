//! Snapshots as files: one per shard, replaced as a whole.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use umbel_core::ids::ShardId;

use super::incoming::{self, Incoming};
use crate::{
    crash,
    snapshot::{self, Snapshot},
    state::{Mark, StateError},
};

/// The directory of the snapshots.
#[derive(Debug)]
pub(super) struct Snapshots {
    dir: PathBuf,
    pub(super) incoming: Incoming,
}

impl Snapshots {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            let kind = path.extension().unwrap_or_default();
            if kind == "tmp" || kind == incoming::EXTENSION {
                // a crash came before the rename: never promised to anyone
                fs::remove_file(path)?;
            }
        }
        Ok(Self {
            incoming: Incoming::new(dir.clone()),
            dir,
        })
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("shard-{:05}.snapshot", shard.0))
    }

    /// Writes a snapshot through `fill` and puts it in the place of the older one, both durably or not at all.
    pub(super) fn replace(
        &self,
        shard: ShardId,
        mark: &Mark,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), StateError>,
    ) -> Result<Snapshot, StateError> {
        let temporary = self.dir.join(format!("shard-{:05}.tmp", shard.0));
        let outcome = self.write_and_rename(shard, &temporary, fill);
        if outcome.is_err() {
            remove(&temporary);
        }
        outcome.map(|path| Snapshot::in_file(shard, mark.clone(), path))
    }

    fn write_and_rename(
        &self,
        shard: ShardId,
        temporary: &Path,
        fill: impl FnOnce(&mut BufWriter<File>) -> Result<(), StateError>,
    ) -> Result<PathBuf, StateError> {
        let mut out = BufWriter::new(File::create(temporary).map_err(failure)?);
        crash::point("snapshot.created");
        fill(&mut out)?;
        out.flush().map_err(failure)?;
        crash::point("snapshot.written");
        out.get_ref().sync_all().map_err(failure)?;
        let path = self.path(shard);
        crash::point("snapshot.synced");
        fs::rename(temporary, &path).map_err(failure)?;
        crash::point("snapshot.renamed");
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(failure)?;
        Ok(path)
    }

    /// Puts what was received in the place of the older one, durably.
    pub(super) fn adopt(&self, received: &Snapshot) -> Result<Snapshot, StateError> {
        let shard = received.shard;
        let from = received.path().ok_or_else(|| StateError::Snapshot {
            shard,
            detail: "it is not of this store".to_owned(),
        })?;
        let path = self.path(shard);
        if from != path {
            crash::point("snapshot.received");
            fs::rename(from, &path).map_err(failure)?;
            crash::point("snapshot.adopted");
            File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failure)?;
        }
        Ok(Snapshot::in_file(shard, received.mark.clone(), path))
    }

    /// The shard's snapshot; only its header is checked here.
    pub(super) fn latest(&self, shard: ShardId) -> Result<Option<Snapshot>, StateError> {
        let path = self.path(shard);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failure(error)),
        };
        let mark = snapshot::read_mark(&mut BufReader::new(file), shard)?;
        Ok(Some(Snapshot::in_file(shard, mark, path)))
    }

    /// Removes the shard's snapshot, durably.
    pub(super) fn remove(&self, shard: ShardId) -> Result<(), StateError> {
        match fs::remove_file(self.path(shard)) {
            Ok(()) => File::open(&self.dir)
                .and_then(|dir| dir.sync_all())
                .map_err(failure),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        files
            .filter_map(|file| Some(file.metadata().ok()?.len()))
            .sum()
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "an unfinished snapshot stays until the next start");
    }
}

/// What an I/O error means to the caller.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
pub(super) fn failure(error: io::Error) -> StateError {
    if error.kind() == io::ErrorKind::StorageFull {
        StateError::Full
    } else {
        StateError::Io(error.to_string())
    }
}
