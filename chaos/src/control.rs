//! Writers whose behaviour is known. The good one syncs before it says so, the bad one does not: a power-cut campaign in
//! which the good one loses or the bad one loses nothing is void.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{sleep, timeout},
};

use crate::disk::{Disk, FileSystem, SETTLE};

const RECORD_BYTES: usize = 8;
/// Time a control writes before the cut.
const WRITING: Duration = Duration::from_millis(300);

/// Which writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Syncs, then tells.
    Good,
    /// Tells without syncing.
    Bad,
}

/// `umbel-chaos control`
#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    file: PathBuf,
}

/// Appends numbers to the file and tells each on standard output, until it is killed.
pub(crate) fn write(options: &Options) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&options.file)?;
    if let Some(folder) = options.file.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    let mut out = io::stdout().lock();
    for number in 1_u64.. {
        file.write_all(&number.to_be_bytes())?;
        if options.kind == Kind::Good {
            file.sync_data()?;
        }
        writeln!(out, "{number}")?;
        out.flush()?;
    }
    Ok(())
}

/// How many of `cycles` cuts lost something that the writer had told.
pub(crate) async fn losses(
    kind: Kind,
    cycles: u32,
    folder: &Path,
    file_system: FileSystem,
) -> Result<u32> {
    let mut lost = 0;
    for _ in 0..cycles {
        let disk = Disk::create(folder, file_system)?;
        let file = disk.path().join("control");
        let told = cut_under(kind, &file, &disk).await?;
        let kept = fs::read(&file).map_or(0, |bytes| bytes.len() / RECORD_BYTES);
        lost += u32::from((kept as u64) < told);
    }
    Ok(lost)
}

/// The last number told before the cut.
async fn cut_under(kind: Kind, file: &Path, disk: &Disk) -> Result<u64> {
    let kind = kind.to_possible_value().context("every kind has a name")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["control", "--kind", kind.get_name(), "--file"])
        .arg(file)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped above")?).lines();
    let mut told = 0;
    let reading = async {
        while let Some(line) = lines.next_line().await? {
            told = line.parse()?;
        }
        anyhow::Ok(())
    };
    if let Ok(ended) = timeout(WRITING, reading).await {
        ended?;
    }
    let id = child.id().context("the control has ended")?;
    kill_process(
        Pid::from_raw(i32::try_from(id)?).context("process id")?,
        Signal::STOP,
    )?;
    sleep(SETTLE).await;
    disk.cut()?;
    child.kill().await?;
    disk.restore()?;
    Ok(told)
}
