//! A slow disk, for one process: its syncs are held up in the kernel's door by `strace`, on the one thread that makes them,
//! so that nothing else of the process is any slower.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The thread that writes the log.
const WRITER: &str = "log-writer";

/// The disk is slow until this is dropped.
pub struct SlowDisk {
    tracer: Child,
}

impl SlowDisk {
    /// Every sync of the log of this process takes so much longer from now on.
    pub(crate) fn of(process: u32, by: Duration) -> Self {
        let thread = writer(process);
        let inject = format!(
            "inject=fsync,fdatasync,sync_file_range:delay_enter={}",
            by.as_micros()
        );
        let mut tracer = Command::new("strace")
            .args(["-e", "trace=fsync,fdatasync,sync_file_range", "-e", &inject])
            .args(["-o", "/dev/null", "-p", &thread])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(tracer.stderr.take().unwrap()).lines();
        let first = said.next().unwrap().unwrap();
        assert!(first.contains("attached"), "{first} (strace needs root)");
        Self { tracer }
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // What is held up at this moment goes on at once.
        drop(self.tracer.kill());
        drop(self.tracer.wait());
    }
}

fn writer(process: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut tasks = tasks.map(|task| task.unwrap());
    let writer = tasks.find(|task| {
        let name = fs::read_to_string(task.path().join("comm"));
        name.is_ok_and(|name| name.trim() == WRITER)
    });
    writer.unwrap().file_name().into_string().unwrap()
}
