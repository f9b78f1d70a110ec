//! One suite for the state on disk and its twin, then what only a disk can do.

mod damage;
mod suite;
mod tidy;

use std::path::{Path, PathBuf};

use super::*;
use crate::memory::MemoryState;

const S: ShardId = ShardId(1);
const SHARDS: u16 = 4;

/// A state that can lose its process.
trait Site {
    fn state(&self) -> &dyn State;
    /// What a restart after a crash finds.
    fn crash(&mut self);
}

struct Memory(MemoryState);

impl Site for Memory {
    fn state(&self) -> &dyn State {
        &self.0
    }

    fn crash(&mut self) {
        self.0 = self.0.crash_copy();
    }
}

struct Disk {
    store: Option<StateStore>,
    home: tempfile::TempDir,
    life: u32,
}

impl Disk {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("temporary directory");
        let store = Some(open(&home.path().join("0")));
        Self {
            store,
            home,
            life: 0,
        }
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join(self.life.to_string())
    }
}

impl Site for Disk {
    fn state(&self) -> &dyn State {
        self.store.as_ref().expect("open")
    }

    fn crash(&mut self) {
        let old = self.dir();
        self.life += 1;
        copy(&old, &self.dir());
        self.store = Some(open(&self.dir()));
        std::fs::remove_dir_all(&old).expect("removed");
    }
}

fn sites() -> Vec<Box<dyn Site>> {
    vec![Box::new(Memory(MemoryState::new())), Box::new(Disk::new())]
}

fn options(dir: &Path) -> StateOptions {
    StateOptions {
        cache_bytes: 1 << 20,
        ..StateOptions::new(dir, SHARDS)
    }
}

fn open(dir: &Path) -> StateStore {
    StateStore::open(&options(dir)).expect("opens")
}

fn put(key: &str, value: &str) -> Write {
    Write::put(Table::Shadow, key, value.into())
}

fn value(state: &dyn State, shard: ShardId, key: &str) -> Option<String> {
    let value = state
        .get(shard, Table::Shadow, key.as_bytes())
        .expect("sound");
    value.map(|value| String::from_utf8(value).expect("text"))
}

/// Every row of a shard.
fn all(state: &dyn State, shard: ShardId) -> Result<Vec<(Table, Pairs)>, ReadError> {
    let pairs = |table| {
        state
            .scan(shard, table, b"", None, usize::MAX)
            .map(|pairs| (table, pairs))
    };
    Table::ALL.into_iter().map(pairs).collect()
}

/// The digest of a shard, from its rows.
fn recomputed(state: &dyn State, shard: ShardId) -> crate::state::Digest {
    let mut sum = crate::state::Digest::default();
    for (table, pairs) in all(state, shard).expect("sound") {
        for (key, value) in pairs {
            sum = sum.plus(digest::of_row(table as u8, &key, &value));
        }
    }
    sum
}

/// Copies a directory tree, as a crash now would leave it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for file in std::fs::read_dir(from).expect("readable") {
        let path = file.expect("readable").path();
        let target = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            // A temporary file of sled may have got its name meanwhile.
            match std::fs::copy(&path, &target) {
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {},
                copied => drop(copied.expect("copied")),
            }
        }
    }
}
