//! What the process itself takes, as Linux tells it.

use std::fs;

use metrics::{Unit, describe_gauge, gauge};

/// Always 1; the version is its label.
const BUILD_INFO: &str = "umbel_build_info";
const RESIDENT: &str = "umbel_process_resident_bytes";
const OPEN_FILES: &str = "umbel_process_open_files";
const OPEN_FILES_MAX: &str = "umbel_process_open_files_max";

pub(super) fn describe() {
    describe_gauge!(BUILD_INFO, "Version of the program; always 1");
    describe_gauge!(RESIDENT, Unit::Bytes, "Memory of the process");
    describe_gauge!(OPEN_FILES, Unit::Count, "Open files and sockets");
    describe_gauge!(
        OPEN_FILES_MAX,
        Unit::Count,
        "Most files and sockets the process may open"
    );
}

/// Reads the numbers, for a scrape. What the system does not tell is left out.
pub(super) fn record() {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    if let Some(kib) = field("/proc/self/status", "VmRSS:") {
        gauge!(RESIDENT).set(kib * 1024.0);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(f64::from(u32::try_from(files.count()).unwrap_or(u32::MAX)));
    }
    if let Some(most) = field("/proc/self/limits", "Max open files") {
        gauge!(OPEN_FILES_MAX).set(most);
    }
}

/// The number behind a name.
fn field(path: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells() {
        assert!(field("/proc/self/status", "VmRSS:").is_some_and(|kib| kib > 0.0));
        assert!(field("/proc/self/limits", "Max open files").is_some());
        assert!(field("/proc/self/status", "Nothing:").is_none());
    }
}
