//! A log whose syncs fail.

use std::ops::Range;

use umbel_storage::log::{Done, LogError, Pace};

use super::*;

/// A log whose syncs fail once it is told to.
struct FailingLog {
    log: MemoryLog,
    failing: AtomicBool,
    panicking: AtomicBool,
}

impl FailingLog {
    fn outcome(&self, done: Done) -> Done {
        if self.failing.load(Ordering::Relaxed) {
            Box::new(|_| done(Err(LogError::Failed("sync: input/output error".to_owned()))))
        } else {
            done
        }
    }
}

impl GroupLog for FailingLog {
    fn range(&self, group: GroupId) -> Range<u64> {
        self.log.range(group)
    }
    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, LogError> {
        self.log.read(group, range, bytes_max)
    }
    fn append(&self, group: GroupId, entries: Vec<(u64, Bytes)>, done: Done) {
        assert!(!self.panicking.load(Ordering::Relaxed), "as asked");
        self.log.append(group, entries, self.outcome(done));
    }
    fn truncate(&self, group: GroupId, since: u64, done: Done) {
        self.log.truncate(group, since, self.outcome(done));
    }
    fn purge(&self, group: GroupId, upto: u64, purged: Bytes, done: Done) {
        self.log.purge(group, upto, purged, self.outcome(done));
    }
    fn meta(&self, group: GroupId, key: Meta) -> Option<Bytes> {
        self.log.meta(group, key)
    }
    fn set_meta(&self, group: GroupId, key: Meta, value: Bytes, done: Done) {
        self.log.set_meta(group, key, value, self.outcome(done));
    }
    fn remove(&self, group: GroupId, done: Done) {
        self.log.remove(group, self.outcome(done));
    }
    fn admit(&self) -> Result<(), LogError> {
        self.log.admit()
    }
    fn pace(&self) -> Pace {
        self.log.pace()
    }
    fn wants_purge(&self) -> Vec<GroupId> {
        self.log.wants_purge()
    }
}

/// F13.
#[tokio::test]
async fn a_failed_sync_ends_the_node_and_acknowledges_nothing() {
    let node = Node::new();
    let log = Arc::new(FailingLog {
        log: node.log.clone(),
        failing: false.into(),
        panicking: false.into(),
    });
    let parts = Parts {
        log: Arc::clone(&log) as _,
        ..node.parts(NodeId(1))
    };
    let group = start(parts).await.expect("starts");
    timeout(PATIENCE, group.settled())
        .await
        .expect("owns the shard");
    let term = group.term().expect("owned").0;

    log.failing.store(true, Ordering::Relaxed);
    assert_eq!(group.commit(batch(term, "a")).await, Err(Refusal::Unknown));
    let fatal = node.fatal.lock().clone();
    assert!(
        fatal[0].contains("shard 5: the log failed: sync: input/output error"),
        "{fatal:?}"
    );
    assert_eq!(node.row("a"), None);
    assert_eq!(
        group.commit(batch(term, "b")).await,
        Err(Refusal::Unknown),
        "never retried"
    );
}

/// A core that panics says nothing any more: the shard has to be known as one that serves nothing, and an only voter would
/// believe in its lease for ever.
#[tokio::test]
async fn a_core_that_panics_quarantines_the_shard() {
    let node = Node::new();
    let log = Arc::new(FailingLog {
        log: node.log.clone(),
        failing: false.into(),
        panicking: false.into(),
    });
    let parts = Parts {
        log: Arc::clone(&log) as _,
        ..node.parts(NodeId(1))
    };
    let group = start(parts).await.expect("starts");
    timeout(PATIENCE, group.settled())
        .await
        .expect("owns the shard");
    let term = group.term().expect("owned").0;
    log.panicking.store(true, Ordering::Relaxed);
    assert_eq!(group.commit(batch(term, "a")).await, Err(Refusal::Unknown));
    assert_eq!(group.term(), None);
    let why = group.quarantined().expect("quarantined");
    assert!(why.contains("ended"), "{why}");
    group.shutdown().await;
}
