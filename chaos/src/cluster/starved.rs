//! A process that gets little of the processor: a control group with a quota. Needs root and control groups of version 1.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const ROOT: &str = "/sys/fs/cgroup/cpu";

/// A group with a quota; its process is given back and it is removed when dropped.
pub(super) struct Starved {
    folder: PathBuf,
    id: u32,
}

impl Starved {
    /// Leaves a process so many thousandths of one processor.
    pub(super) fn new(id: u32, permille: u32) -> Result<Self> {
        let folder = Path::new(ROOT).join(format!("umbel-chaos-{}-{id}", std::process::id()));
        fs::create_dir(&folder)
            .context("a processor is taken away in control groups; `--faults` chooses others")?;
        let this = Self { folder, id };
        // A quota counts in tenths of a second.
        let quota = (permille * 100).to_string();
        fs::write(this.folder.join("cpu.cfs_quota_us"), quota).context("quota")?;
        fs::write(this.folder.join("cgroup.procs"), id.to_string()).context("process")?;
        Ok(this)
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // A process that is gone cannot be given back.
        let back = fs::write(Path::new(ROOT).join("cgroup.procs"), self.id.to_string());
        drop(back);
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("{}: {error}", self.folder.display());
        }
    }
}
