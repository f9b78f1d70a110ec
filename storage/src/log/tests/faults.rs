//! A file system that fails on request, and what the log makes of it.

use std::{
    io::{self, Seek, SeekFrom, Write},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::*;

/// What is to fail, and what was counted.
#[derive(Default)]
struct Faults {
    sync_fails: AtomicBool,
    full: AtomicBool,
    syncs: AtomicUsize,
}

struct Faulty(DefaultFileSystem, Arc<Faults>);

struct FaultyHandle(Arc<<DefaultFileSystem as FileSystem>::Handle>, Arc<Faults>);

struct FaultyWriter(<DefaultFileSystem as FileSystem>::Writer, Arc<Faults>);

impl Handle for FaultyHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        Handle::truncate(self.0.as_ref(), offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.0.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        if self.1.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.sync()
    }
}

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.full.load(Ordering::SeqCst) {
            // half of it fits, as on a disk that fills up
            if bytes.len() > 64 {
                return self.0.write(&bytes[..bytes.len() / 2]);
            }
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Seek for FaultyWriter {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl WriteExt for FaultyWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        WriteExt::truncate(&mut self.0, offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.0.allocate(offset, size)
    }
}

impl FileSystem for Faulty {
    type Handle = FaultyHandle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = FaultyWriter;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<FaultyHandle> {
        Ok(FaultyHandle(
            Arc::new(self.0.create(path)?),
            Arc::clone(&self.1),
        ))
    }

    fn open<P: AsRef<Path>>(&self, path: P, perm: Permission) -> io::Result<FaultyHandle> {
        Ok(FaultyHandle(
            Arc::new(self.0.open(path, perm)?),
            Arc::clone(&self.1),
        ))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.0.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<FaultyHandle>) -> io::Result<Self::Reader> {
        self.0.new_reader(Arc::clone(&handle.0))
    }

    fn new_writer(&self, handle: Arc<FaultyHandle>) -> io::Result<FaultyWriter> {
        Ok(FaultyWriter(
            self.0.new_writer(Arc::clone(&handle.0))?,
            Arc::clone(&self.1),
        ))
    }
}

struct Rig {
    log: Log,
    faults: Arc<Faults>,
    ends: Arc<Mutex<Vec<String>>>,
    home: tempfile::TempDir,
}

fn rig() -> Rig {
    let home = tempfile::tempdir().expect("temporary directory");
    let ends = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&ends);
    let fatal: Fatal = Arc::new(move |reason| noted.lock().push(reason.to_owned()));
    let options = LogOptions {
        fatal,
        ..options(home.path())
    };
    let faults = Arc::new(Faults::default());
    let files = Arc::new(Faulty(DefaultFileSystem, Arc::clone(&faults)));
    let log = Log::open_on(&options, &files).expect("opens");
    Rig {
        log,
        faults,
        ends,
        home,
    }
}

#[test]
fn a_failed_sync_ends_the_node_once_and_acknowledges_nothing() {
    let Rig {
        log,
        faults,
        ends,
        home,
    } = rig();
    append(&log, G, 1, &["a"]).expect("durable");
    faults.sync_fails.store(true, Ordering::SeqCst);
    let outcome = append(&log, G, 2, &["b"]);
    assert!(matches!(outcome, Err(LogError::Failed(_))), "{outcome:?}");
    // the disk is well again, but a sync that failed once is never believed again
    faults.sync_fails.store(false, Ordering::SeqCst);
    let outcome = wait(|done| log.set_meta(G, Meta::Vote, "v".into(), done));
    assert!(matches!(outcome, Err(LogError::Failed(_))), "{outcome:?}");
    assert_eq!(ends.lock().len(), 1);
    assert!(matches!(log.admit(), Err(LogError::Failed(_))));
    drop(log);
    // the failed log keeps its lock, as a process that is about to end does
    let copied = tempfile::tempdir().expect("temporary directory");
    copy(home.path(), copied.path());
    let again = Log::open(&options(copied.path())).expect("opens");
    assert_eq!(all(&again, G).first(), Some(&(1, "a".into())));
    assert_eq!(again.meta(G, Meta::Vote), None);
}

#[test]
fn every_acknowledgement_has_a_sync_before_it() {
    let Rig { log, faults, .. } = rig();
    for index in 1..20 {
        let before = faults.syncs.load(Ordering::SeqCst);
        append(&log, G, index, &["a"]).expect("durable");
        assert!(
            faults.syncs.load(Ordering::SeqCst) > before,
            "entry {index}"
        );
    }
    let before = faults.syncs.load(Ordering::SeqCst);
    wait(|done| log.set_meta(G, Meta::Vote, "v".into(), done)).expect("durable");
    assert!(faults.syncs.load(Ordering::SeqCst) > before);
}

#[test]
fn a_full_disk_refuses_by_name_takes_nothing_and_recovers_by_itself() {
    let Rig {
        log,
        faults,
        ends,
        home,
    } = rig();
    let long = "x".repeat(5000);
    append(&log, G, 1, &["a", &long]).expect("durable");
    faults.full.store(true, Ordering::SeqCst);
    assert_eq!(append(&log, G, 3, &["b", &long]), Err(LogError::Full));
    assert_eq!(log.admit(), Err(LogError::Full));
    assert_eq!(log.range(G), 1..3, "what was refused is not there");
    assert_eq!(all(&log, G).len(), 2, "reads go on");
    assert_eq!(wait(|done| log.truncate(G, 2, done)), Err(LogError::Full));
    assert_eq!(log.range(G), 1..3);
    faults.full.store(false, Ordering::SeqCst);
    append(&log, G, 3, &["c"]).expect("there is room again");
    assert_eq!(ends.lock().len(), 0);
    drop(log);
    let again = Log::open(&options(home.path())).expect("opens");
    assert_eq!(
        all(&again, G),
        [(1, "a".into()), (2, long), (3, "c".into())]
    );
}

#[test]
fn admission_follows_the_free_space_and_votes_still_get_through() {
    let home = tempfile::tempdir().expect("temporary directory");
    let free = Arc::new(AtomicU64::new(1000));
    let probed = Arc::clone(&free);
    let probe: crate::space::Probe = Arc::new(move || Ok(probed.load(Ordering::SeqCst)));
    let options = LogOptions {
        probe: Some(probe),
        probe_every: Duration::ZERO,
        reserve_bytes: 500,
        ..options(home.path())
    };
    let log = Log::open(&options).expect("opens");
    assert_eq!(log.admit(), Ok(()));
    free.store(499, Ordering::SeqCst);
    assert_eq!(log.admit(), Err(LogError::Full));
    wait(|done| log.set_meta(G, Meta::Vote, "v".into(), done)).expect("the reserve is for votes");
    append(&log, G, 1, &["under way"]).expect("and for what is under way");
    free.store(500, Ordering::SeqCst);
    assert_eq!(log.admit(), Ok(()));
}

#[test]
fn appends_of_many_groups_share_syncs() {
    let Rig { log, faults, .. } = rig();
    let (sender, receiver) = mpsc::channel();
    let before = faults.syncs.load(Ordering::SeqCst);
    for index in 1..=20 {
        for group in 0..64 {
            let sender = sender.clone();
            let done: Done = Box::new(move |outcome| sender.send(outcome).expect("waits"));
            log.append(GroupId(group), vec![entry(index, "data")], done);
        }
    }
    drop(sender);
    assert_eq!(
        receiver
            .iter()
            .map(|outcome| outcome.expect("durable"))
            .count(),
        20 * 64
    );
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs < 20 * 64 / 2, "{syncs} syncs");
}

#[test]
fn an_answer_that_panics_ends_the_log_instead_of_leaving_others_without_answers() {
    let Rig { log, ends, .. } = rig();
    append(&log, G, 1, &["a"]).expect("durable");
    log.set_meta(G, Meta::Vote, "v".into(), Box::new(|_| panic!("a defect")));
    let outcome = append(&log, G, 2, &["b"]);
    assert!(
        outcome.is_ok() || matches!(outcome, Err(LogError::Failed(_))),
        "{outcome:?}"
    );
    let outcome = append(&log, G, 3, &["c"]);
    assert!(matches!(outcome, Err(LogError::Failed(_))), "{outcome:?}");
    assert_eq!(ends.lock().len(), 1);
}
