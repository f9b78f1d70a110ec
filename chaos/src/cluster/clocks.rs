//! The wall clock of each node, moved by libfaketime; monotonic time is left alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

const HOUR: i64 = 3600;
/// How long it may take to ask, in seconds.
const SLACK: i64 = 60;
const NAME: &str = "libfaketimeMT.so.1";

/// One node's clock.
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, told by a file in `folder`; fails if it cannot be moved.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let clock = Self {
            library: library()?,
            file: folder.join("clock"),
        };
        clock.set(HOUR)?;
        let moved = told(clock.environment())? - told(Vec::new())?;
        clock.set(0)?;
        ensure!(
            (HOUR - SLACK..HOUR + SLACK).contains(&moved),
            "a clock that was moved by an hour is wrong by {moved} s"
        );
        Ok(clock)
    }

    /// Sets it wrong by so many seconds.
    pub(super) fn set(&self, seconds: i64) -> Result<()> {
        // Nobody may read half a number.
        let new = self.file.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))?;
        fs::rename(&new, &self.file)?;
        Ok(())
    }

    /// What makes a process see it.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// The time that a process with these variables is told.
fn told(environment: Vec<(String, String)>) -> Result<i64> {
    let told = Command::new("date").arg("+%s").envs(environment).output()?;
    Ok(String::from_utf8(told.stdout)?.trim().parse()?)
}

/// Debian keeps it in a folder named for the architecture.
fn library() -> Result<PathBuf> {
    fs::read_dir("/usr/lib")?
        .filter_map(|entry| Some(entry.ok()?.path().join("faketime").join(NAME)))
        .find(|path| path.exists())
        .context(
            "clocks are moved by libfaketime, which is not installed; `--faults` chooses others",
        )
}
