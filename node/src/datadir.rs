//! The data folder, locked by one process. What it was made for (node id, number of shards) is checked where the
//! shards start.

use std::{
    fs::{self, File, TryLockError},
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
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
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
}
