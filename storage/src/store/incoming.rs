//! Snapshots that come from elsewhere, piece by piece, beside the ones that count.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use umbel_core::ids::ShardId;

use super::snapshots::failure;
use crate::{
    crash,
    snapshot::{self, Snapshot},
    state::StateError,
};

/// Of the files; removed at the next start.
pub(super) const EXTENSION: &str = "incoming";

/// What is being gathered.
#[derive(Debug)]
pub(super) struct Incoming {
    dir: PathBuf,
    /// Id of what is gathered for a shard. Not held while files are worked on: the caller does one thing after the other
    /// with a shard, and shards need not wait for one another.
    ids: Mutex<BTreeMap<ShardId, u64>>,
}

impl Incoming {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            ids: Mutex::default(),
        }
    }

    fn path(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("shard-{:05}.{EXTENSION}", shard.0))
    }

    /// How many bytes of that id are here.
    pub(super) fn begin(&self, shard: ShardId, id: u64) -> Result<u64, StateError> {
        let path = self.path(shard);
        let before = self.ids.lock().insert(shard, id);
        if before != Some(id) {
            remove(&path)?;
        }
        match fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(failure(error)),
        }
    }

    /// Adds bytes that follow.
    pub(super) fn add(
        &self,
        shard: ShardId,
        id: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u64, StateError> {
        let here = self.begin(shard, id)?;
        if here != offset {
            return Ok(here);
        }
        let path = self.path(shard);
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .open(&path)
            .map_err(failure)?;
        crash::point("snapshot.piece.before");
        if let Err(error) = file.write_all(bytes) {
            // Part of the piece may be there: it goes on from where it was.
            file.set_len(offset).map_err(failure)?;
            return Err(failure(error));
        }
        crash::point("snapshot.piece.after");
        Ok(offset + bytes.len() as u64)
    }

    /// Checks all bytes and makes them durable.
    pub(super) fn check(&self, shard: ShardId, id: u64) -> Result<Snapshot, StateError> {
        self.begin(shard, id)?;
        let path = self.path(shard);
        let checked = File::open(&path).map_err(failure).and_then(|file| {
            let mark = snapshot::read(&mut BufReader::new(&file), shard, |_, _, _| Ok(()))?;
            file.sync_all().map_err(failure)?;
            Ok(mark)
        });
        // What comes next under any id begins anew.
        self.ids.lock().remove(&shard);
        match checked {
            Ok(mark) => Ok(Snapshot::in_file(shard, mark, path)),
            Err(error) => {
                remove(&path)?;
                Err(error)
            },
        }
    }
}

fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure(error)),
    }
}
