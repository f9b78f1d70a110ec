//! A slow disk for one node (F17): `strace` holds up the syncs of the one thread that writes its log, and nothing else.

use std::{fs, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

/// The thread that writes the log.
const WRITER: &str = "log-writer";
const CALLS: &str = "fsync,fdatasync,sync_file_range";

/// Every sync of the process takes so much longer, until this is dropped. Needs root and strace.
pub(super) struct SlowDisk {
    _tracer: Child,
}

impl SlowDisk {
    pub(super) async fn of(process: u32, by: Duration) -> Result<Self> {
        let thread = writer(process)?;
        let inject = format!("inject={CALLS}:delay_enter={}", by.as_micros());
        let mut tracer = Command::new("strace")
            .args(["-e", &format!("trace={CALLS}"), "-e", &inject])
            .args(["-o", "/dev/null", "-p", &thread])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("strace, which makes a disk slow, does not start")?;
        let said = tracer.stderr.take().context("strace has no output")?;
        let first = BufReader::new(said).lines().next_line().await?;
        match first {
            Some(line) if line.contains("attached") => Ok(Self { _tracer: tracer }),
            other => bail!("strace does not attach: {other:?}"),
        }
    }
}

fn writer(process: u32) -> Result<String> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?;
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.trim() == WRITER {
            return Ok(task.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("process {process} has no thread {WRITER}")
}
