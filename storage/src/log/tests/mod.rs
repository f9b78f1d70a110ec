//! One suite for the log on disk and its twin, then what only a disk can do.

mod damage;
mod faults;
mod suite;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use super::*;

/// Group of most tests.
const G: GroupId = GroupId(3);

/// Makes a request and waits for its answer.
fn wait(request: impl FnOnce(Done)) -> Result<(), LogError> {
    let (sender, receiver) = mpsc::channel();
    request(Box::new(move |outcome| {
        sender.send(outcome).expect("the test waits");
    }));
    receiver.recv().expect("every request is answered")
}

fn entry(index: u64, data: &str) -> (u64, Bytes) {
    (index, Bytes::copy_from_slice(data.as_bytes()))
}

fn append(log: &dyn GroupLog, group: GroupId, first: u64, data: &[&str]) -> Result<(), LogError> {
    let entries = (first..)
        .zip(data)
        .map(|(index, data)| entry(index, data))
        .collect();
    wait(|done| log.append(group, entries, done))
}

/// Everything a group has, as text.
fn all(log: &dyn GroupLog, group: GroupId) -> Vec<(u64, String)> {
    let entries = log
        .read(group, log.range(group), usize::MAX)
        .expect("readable");
    let text = |data: Bytes| String::from_utf8(data.to_vec()).expect("text");
    entries
        .into_iter()
        .map(|(index, data)| (index, text(data)))
        .collect()
}

fn no_fatal() -> Fatal {
    Arc::new(|reason| panic!("unexpected end: {reason}"))
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        reserve_bytes: 0,
        ..LogOptions::new(dir, no_fatal())
    }
}

/// Copies a directory tree, as a crash now would leave it. A file that is renamed meanwhile is there under its name.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for file in std::fs::read_dir(from).expect("readable") {
        let path: PathBuf = file.expect("readable").path();
        let target = to.join(path.file_name().expect("has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match std::fs::copy(&path, &target) {
                Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {},
                copied => drop(copied.expect("copied")),
            }
        }
    }
}
