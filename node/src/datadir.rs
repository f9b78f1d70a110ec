//! The data folder, locked by one process. What it was made for (node id, number of shards) is checked where the
//! shards start.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum DataError {
    /// The folder could not be made, or its lock not be taken.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A backup was being restored into it when the process ended: part of the data is there.
    #[error(
        "{path} holds a part of a backup only, because `umbel restore` did not come to its end: empty it and restore again"
    )]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

/// The file that says so.
const UNFINISHED: &str = "restore.unfinished";

/// From now on the folder holds a part of a backup, also after a crash: no node starts with it. It is made if it is not
/// there.
pub(crate) fn begin_restore(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    File::create(path.join(UNFINISHED))?.sync_all()?;
    File::open(path)?.sync_all()
}

/// All of the backup is there, durably.
pub(crate) fn end_restore(path: &Path) -> io::Result<()> {
    fs::remove_file(path.join(UNFINISHED))?;
    File::open(path)?.sync_all()
}

/// Removes everything of a backup that could not be restored; what says that it is a part goes last.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?.path();
        if entry.file_name().is_some_and(|name| name == UNFINISHED) {
            continue;
        }
        if entry.is_dir() {
            fs::remove_dir_all(entry)?;
        } else {
            fs::remove_file(entry)?;
        }
    }
    File::open(path)?.sync_all()?;
    end_restore(path)
}

/// Whether a node may start with what is in the folder.
pub(crate) fn check_whole(path: &Path) -> Result<(), DataError> {
    if path.join(UNFINISHED).exists() {
        let path = path.to_owned();
        return Err(DataError::Unfinished { path });
    }
    Ok(())
}

/// A data folder in use by this process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Makes the folder if it is not there, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataError::File { path, source }
        };
        fs::create_dir_all(path).map_err(at(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(at(&lock_path)(source)),
        }
    }

    /// A folder inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let second = DataDir::open(folder.path());
        assert!(matches!(second, Err(DataError::InUse { .. })));
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_with_a_part_of_a_backup_is_not_whole_until_it_is_empty_or_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let whole = || check_whole(&path).is_ok();
        assert!(whole(), "nothing is not a part");
        begin_restore(&path).unwrap();
        fs::create_dir(path.join("log")).unwrap();
        fs::write(path.join("lock"), "").unwrap();
        assert!(!whole());
        end_restore(&path).unwrap();
        assert!(whole());
        begin_restore(&path).unwrap();
        empty(&path).unwrap();
        assert!(whole() && fs::read_dir(&path).unwrap().next().is_none());
    }
}
