//! What a server process costs, read from `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Clock ticks of `/proc/PID/stat` in a second: 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory and CPU time of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident set in bytes.
    pub(crate) resident: u64,
    /// CPU time since its start, user and system.
    pub(crate) cpu: Duration,
}

/// Reads the usage of a process.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("server process")?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
        .context("VmRSS in /proc/PID/status")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command name may hold spaces; the fields count from behind its closing bracket.
    let fields = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest)
        .context("/proc/PID/stat")?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(times.next().context("/proc/PID/stat")?.parse()?) };
    let total = ticks()? + ticks()?;
    Ok(Usage {
        resident: kib * 1024,
        cpu: Duration::from_millis(total * 1000 / TICKS_PER_SECOND),
    })
}
