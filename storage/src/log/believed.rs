//! The log on disk.

use std::{
    fmt, io,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem};

use super::{
    Done, GroupId, GroupLog, LogError, Meta, OpenError, Pace,
    disk::{Sizes, WriteFailure},
    open,
    queue::{Change, Fatal, Shared},
    reader::Reader,
    rewritten::Rewritten,
    view::View,
    writer::Writer,
};
use crate::{
    guard::guarded,
    metrics::log as names,
    space::{PROBE_EVERY, Probe, Space, probe_of},
};

/// Files that nothing needs are looked for this often.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(5);

/// How to open a [`Log`].
#[derive(Clone)]
pub struct LogOptions {
    /// Where the log lives; created when missing. One process at a time.
    pub dir: PathBuf,
    /// Free bytes below which [`GroupLog::admit`] refuses.
    pub reserve_bytes: u64,
    /// A log file is closed at this size.
    pub file_bytes: u64,
    /// Groups are asked to purge, and old files rewritten, when the log is larger than this.
    pub purge_bytes: u64,
    /// How to learn the free space; by default from the file system of `dir`.
    pub probe: Option<Probe>,
    /// The probe is asked at most once in this time.
    pub probe_every: Duration,
    /// Called once, with the reason, when a write or sync failed: ends the process with exit code 1 in production.
    pub fatal: Fatal,
}

impl LogOptions {
    /// The defaults for a directory: 64 MiB reserve, files of 32 MiB, purge beyond 256 MiB.
    pub fn new(dir: impl Into<PathBuf>, fatal: Fatal) -> Self {
        Self {
            dir: dir.into(),
            reserve_bytes: 64 << 20,
            file_bytes: 32 << 20,
            purge_bytes: 256 << 20,
            probe: None,
            probe_every: PROBE_EVERY,
            fatal,
        }
    }
}

impl fmt::Debug for LogOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOptions")
            .field("dir", &self.dir)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("file_bytes", &self.file_bytes)
            .field("purge_bytes", &self.purge_bytes)
            .finish_non_exhaustive()
    }
}

/// The log of a node: many groups, one writer, one sync for all that waits.
///
/// Dropping it writes what is queued and ends the threads.
pub struct Log {
    shared: Arc<Shared>,
    /// Taken when the log is dropped, which ends the thread.
    reader: Option<Reader>,
    wanted: Arc<Mutex<Vec<GroupId>>>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("space", &self.shared.space)
            .finish_non_exhaustive()
    }
}

impl Log {
    /// Opens or creates a log.
    pub fn open(options: &LogOptions) -> Result<Self, OpenError> {
        Self::open_on(options, &Arc::new(DefaultFileSystem))
    }

    /// The same on a file system of the test's choice.
    pub(super) fn open_on<F: FileSystem + 'static>(
        options: &LogOptions,
        files: &Arc<F>,
    ) -> Result<Self, OpenError> {
        let sizes = Sizes {
            file_bytes: options.file_bytes,
            purge_bytes: options.purge_bytes,
        };
        let found = open::recover(&options.dir, sizes, files)?;
        let probe = options
            .probe
            .clone()
            .unwrap_or_else(|| probe_of(&options.dir));
        let space = Space::new(probe, options.reserve_bytes, options.probe_every);
        let fatal = Arc::clone(&options.fatal);
        let shared = Arc::new(Shared::new(found.disk, space, found.views, fatal));
        let wanted = Arc::new(Mutex::new(Vec::new()));

        let writer = Writer::new(
            Arc::clone(&shared),
            found.high_water,
            found.flush,
            found.cuts,
        );
        let rewritten = found.rewritten;
        let (written, cleaned) = (Arc::clone(&shared), Arc::clone(&shared));
        let wants = Arc::clone(&wanted);
        let start = || -> io::Result<(Reader, Vec<JoinHandle<()>>)> {
            let (reader, reading) = Reader::start(Arc::clone(&shared))?;
            let writing = Builder::new()
                .name("log-writer".to_owned())
                .spawn(move || or_fail(&written, || writer.run()))?;
            let cleaning = Builder::new()
                .name("log-cleaner".to_owned())
                .spawn(move || {
                    or_fail(&cleaned, || {
                        clean_up_until_stopped(&cleaned, &wants, rewritten);
                    });
                })?;
            Ok((reader, vec![reading, writing, cleaning]))
        };
        let (reader, threads) = start().map_err(|source| OpenError::Io {
            path: options.dir.clone(),
            source,
        })?;
        Ok(Self {
            shared,
            reader: Some(reader),
            wanted,
            threads,
        })
    }

    /// Bytes on disk.
    pub fn size_bytes(&self) -> u64 {
        self.shared.disk.size_bytes()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.stop();
        self.reader = None;
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // the last owner may have been an answer, which the writer itself gives
            if thread.thread().id() != own && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
        if self.shared.not_failed().is_err() {
            // closing the engine would sync, and a sync after a failed one says nothing true
            let _forgotten = std::mem::ManuallyDrop::new(Arc::clone(&self.shared));
        }
    }
}

/// A thread of the log that panics takes the log with it: nobody would be answered any more.
fn or_fail(shared: &Shared, run: impl FnOnce()) {
    if let Err(reason) = guarded("a thread of the log", run) {
        shared.fail(&reason);
    }
}

fn clean_up_until_stopped(shared: &Shared, wanted: &Mutex<Vec<GroupId>>, mut rewritten: Rewritten) {
    while !shared.is_stopping() {
        match shared.disk.clean_up() {
            Ok(groups) => {
                *wanted.lock() = groups;
                if let Err(error) = rewritten.note() {
                    // an old note is a lower bound too
                    tracing::warn!(%error, "what clean-up rewrote is not noted");
                }
            },
            Err(WriteFailure::Full) => shared.space.note_full(),
            Err(WriteFailure::Fatal(reason)) => return shared.fail(&reason),
        }
        names::size(shared.disk.size_bytes());
        shared.wait_for_stop(CLEAN_UP_EVERY);
    }
}

impl GroupLog for Log {
    fn range(&self, group: GroupId) -> Range<u64> {
        self.shared.look(group, View::range).unwrap_or_default()
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, LogError> {
        let found = self.shared.look(group, |view| view.read(range.clone()));
        let Some((from_disk, recent)) = found else {
            return Ok(Vec::new());
        };
        let wanted = from_disk.end - from_disk.start;
        let mut entries = Vec::new();
        if wanted > 0 {
            let Some(reader) = &self.reader else {
                return Ok(Vec::new());
            };
            entries = reader
                .fetch(group, from_disk, bytes_max)
                .map_err(|detail| LogError::Damaged { group, detail })?;
            if (entries.len() as u64) < wanted {
                return Ok(entries);
            }
        }
        let mut bytes: usize = entries.iter().map(|(_, data)| data.len()).sum();
        for (index, data) in recent {
            if !entries.is_empty() && bytes + data.len() > bytes_max {
                break;
            }
            bytes += data.len();
            entries.push((index, data));
        }
        Ok(entries)
    }

    fn append(&self, group: GroupId, entries: Vec<(u64, Bytes)>, done: Done) {
        self.shared.request(group, Change::Append(entries), done);
    }

    fn truncate(&self, group: GroupId, since: u64, done: Done) {
        self.shared.request(group, Change::Truncate(since), done);
    }

    fn purge(&self, group: GroupId, upto: u64, purged: Bytes, done: Done) {
        self.shared
            .request(group, Change::Purge(upto, purged), done);
    }

    fn meta(&self, group: GroupId, key: Meta) -> Option<Bytes> {
        self.shared.look(group, |view| view.meta(key)).flatten()
    }

    fn set_meta(&self, group: GroupId, key: Meta, value: Bytes, done: Done) {
        self.shared.request(group, Change::Meta(key, value), done);
    }

    fn remove(&self, group: GroupId, done: Done) {
        self.shared.request(group, Change::Remove, done);
    }

    fn admit(&self) -> Result<(), LogError> {
        self.shared.not_failed()?;
        if self.shared.space.is_low() {
            Err(LogError::Full)
        } else {
            Ok(())
        }
    }

    fn pace(&self) -> Pace {
        self.shared.pulse.look(Instant::now())
    }

    fn wants_purge(&self) -> Vec<GroupId> {
        self.wanted.lock().clone()
    }
}
