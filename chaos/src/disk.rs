//! A disk whose power can be cut: a file system in a file, shut down by force.
//!
//! `xfs_io -x -c shutdown` makes the kernel drop everything that was not written to the image, which is what a power
//! cut does. The writer is frozen first: a cut that races with a returning `fsync` would blame a correct writer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

/// Rest between freezing the writer and the cut, so that no system call is on its way.
pub(crate) const SETTLE: Duration = Duration::from_millis(100);
const IMAGE_BYTES: u64 = 1 << 30;

/// The file system on the disk.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

/// A mounted disk; unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts an empty file system in `folder`.
    pub(crate) fn create(folder: &Path, file_system: FileSystem) -> Result<Self> {
        let image = folder.join("disk.img");
        let mount = folder.join("disk");
        fs::create_dir_all(&mount)?;
        fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
        match file_system {
            FileSystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?,
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&image))?,
        }
        let disk = Self { image, mount };
        disk.attach()?;
        Ok(disk)
    }

    /// Where files go.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Drops what was not made durable. The writer must be frozen.
    pub(crate) fn cut(&self) -> Result<()> {
        run(Command::new("xfs_io")
            .args(["-x", "-c", "shutdown"])
            .arg(&self.mount))
    }

    /// Mounts what is left. The writer must be gone.
    pub(crate) fn restore(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.attach()
    }

    fn attach(&self) -> Result<()> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.image)
            .arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.mount)) {
            eprintln!("{}: {error:#}", self.mount.display());
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
