use std::time::Duration;

use openraft::Vote;
use parking_lot::Mutex;
use tokio::time::timeout;
use umbel_core::ids::NodeId;
use umbel_storage::{
    Table, Write,
    log::Meta,
    memory::{MemoryLog, MemoryState},
    state::Health,
};

use super::*;
use crate::{codec::Batch, raft::types::Entry};

mod failing;
mod lives;
mod stuck;

const SHARD: ShardId = ShardId(5);
const GROUP: GroupId = GroupId(5);
const PATIENCE: Duration = Duration::from_secs(10);

struct Node {
    log: MemoryLog,
    state: MemoryState,
    fatal: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn new() -> Self {
        Self {
            log: MemoryLog::new(),
            state: MemoryState::new(),
            fatal: Arc::default(),
        }
    }

    /// What a restart after a power cut would find.
    fn crashed(&self) -> Self {
        Self {
            log: self.log.crash_copy(),
            state: self.state.crash_copy(),
            fatal: Arc::default(),
        }
    }

    async fn try_start(&self) -> Result<Group, Damage> {
        self.try_start_as(NodeId(1)).await
    }

    async fn try_start_as(&self, id: NodeId) -> Result<Group, Damage> {
        start(self.parts(id)).await
    }

    fn parts(&self, id: NodeId) -> Parts {
        let fatal = Arc::clone(&self.fatal);
        let mut config = Config::new(id, 64);
        config.snapshots.tail_entries = 2;
        Parts {
            log: Arc::new(self.log.clone()),
            state: Arc::new(self.state.clone()),
            fatal: Arc::new(move |message| fatal.lock().push(message)),
            config: Arc::new(config),
            mux: None,
        }
    }

    async fn start(&self) -> Group {
        let group = self.try_start().await.expect("starts");
        timeout(PATIENCE, group.settled())
            .await
            .expect("owns the shard");
        group
    }

    async fn refused(&self) -> String {
        self.try_start()
            .await
            .err()
            .expect("does not start")
            .to_string()
    }

    fn row(&self, key: &str) -> Option<Vec<u8>> {
        self.state
            .get(SHARD, Table::Device, key.as_bytes())
            .expect("readable")
    }

    fn append(&self, index: u64, bytes: Vec<u8>) {
        let entries = vec![(index, Bytes::from(bytes))];
        self.log.append(
            GROUP,
            entries,
            Box::new(|outcome| outcome.expect("appended")),
        );
    }

    fn end(&self) -> u64 {
        self.log.range(GROUP).end
    }
}

async fn start(parts: Parts) -> Result<Group, Damage> {
    Group::start(SHARD, parts, Begin::Alone, watch::Sender::new(0)).await
}

fn put(key: &str) -> Vec<Write> {
    vec![Write::put(Table::Device, key, key.as_bytes().to_vec())]
}

fn batch(term: u64, key: &str) -> Bytes {
    Batch::encode(term, [put(key).as_slice()].into_iter())
        .expect("encodes")
        .into()
}

async fn write(group: &Group, key: &str) {
    let term = group.term().expect("owned");
    group.commit(batch(term.0, key)).await.expect("committed");
}

#[tokio::test]
async fn a_batch_of_another_term_is_refused_when_it_is_applied() {
    let node = Node::new();
    let group = node.start().await;
    let term = group.term().expect("owned").0;
    assert_eq!(
        group.commit(batch(term - 1, "old")).await,
        Err(Refusal::NotOwner)
    );
    assert_eq!(group.commit(batch(term, "new")).await, Ok(()));
    assert_eq!(
        (node.row("old"), node.row("new")),
        (None, Some(b"new".to_vec()))
    );

    // The same verdict on replay: the entry is in the log, and stays refused.
    let again = node.crashed();
    let group = again.start().await;
    assert_eq!(
        (again.row("old"), again.row("new")),
        (None, Some(b"new".to_vec()))
    );
    assert!(
        group.term().expect("owned").0 > term,
        "a restart is another ownership"
    );
}

#[tokio::test]
async fn owners_of_one_raft_term_have_different_terms() {
    let first = types::owner_term(LeaderId::new(5, 1));
    let second = types::owner_term(LeaderId::new(5, 2));
    let later = types::owner_term(LeaderId::new(6, 1));
    assert!(first < second && second < later);
}

#[tokio::test]
async fn what_is_committed_is_there_after_a_crash_and_no_index_is_used_twice() {
    let node = Node::new();
    let group = node.start().await;
    for number in 0..50 {
        write(&group, &number.to_string()).await;
    }
    let end = node.end();

    let again = node.crashed();
    assert_eq!(again.row("7"), None, "the state was never made durable");
    let group = again.start().await;
    assert_eq!(group.progress().applied + 1, again.end());
    assert!(again.end() > end, "a restart appends behind what was there");
    for number in 0..50 {
        assert!(again.row(&number.to_string()).is_some(), "{number}");
    }
    write(&group, "after").await;
}

#[tokio::test]
async fn what_was_never_durable_was_never_acknowledged() {
    let node = Node::new();
    let group = node.start().await;
    write(&group, "before").await;
    node.log.hold();
    let term = group.term().expect("owned").0;
    let unfinished = timeout(Duration::from_millis(50), group.commit(batch(term, "lost"))).await;
    assert!(unfinished.is_err(), "no answer before the log is durable");
    assert_eq!(node.row("lost"), None, "and no effect");

    let again = node.crashed();
    again.start().await;
    assert_eq!(
        (again.row("before").is_some(), again.row("lost")),
        (true, None)
    );
}

#[tokio::test]
async fn a_snapshot_lets_the_log_go_and_a_crash_finds_everything() {
    let node = Node::new();
    let group = node.start().await;
    for number in 0..20 {
        write(&group, &number.to_string()).await;
    }
    group.snapshot(false).await.expect("snapshot");
    purged(&node).await;
    write(&group, "after").await;

    let again = node.crashed();
    again.start().await;
    assert!(again.row("3").is_some() && again.row("after").is_some());
}

async fn purged(node: &Node) {
    timeout(PATIENCE, async {
        while node.log.range(GROUP).start == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the log is purged behind a snapshot");
}

#[tokio::test]
async fn a_damaged_state_is_rebuilt_from_snapshot_and_log() {
    let node = Node::new();
    let group = node.start().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        write(&group, key).await;
    }
    group.snapshot(false).await.expect("snapshot");
    purged(&node).await;
    write(&group, "after").await;
    group.shutdown().await;

    node.state.quarantine(SHARD, "a bit fell over");
    node.start().await;
    assert_eq!(node.state.health(SHARD), Health::Sound);
    assert!(node.row("a").is_some() && node.row("after").is_some());
}

#[tokio::test]
async fn a_damaged_state_without_snapshot_is_rebuilt_from_a_whole_log() {
    let node = Node::new();
    let group = node.start().await;
    write(&group, "a").await;
    group.shutdown().await;
    node.state.quarantine(SHARD, "a bit fell over");
    node.start().await;
    assert!(node.row("a").is_some());
}

/// F15.
#[tokio::test]
async fn a_shard_that_cannot_be_rebuilt_says_what_is_missing() {
    let node = Node::new();
    let group = node.start().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        write(&group, key).await;
    }
    group.snapshot(false).await.expect("snapshot");
    purged(&node).await;
    group.shutdown().await;

    let wiped = Node {
        state: MemoryState::new(),
        log: node.log.clone(),
        fatal: Arc::default(),
    };
    let why = wiped.refused().await;
    assert!(
        why.contains("there is no snapshot") && why.contains("is missing"),
        "{why}"
    );
}

#[tokio::test]
async fn a_log_that_ends_before_the_state_is_not_believed() {
    let node = Node::new();
    let group = node.start().await;
    for key in ["a", "b", "c"] {
        write(&group, key).await;
    }
    group.shutdown().await;
    node.log.truncate(GROUP, node.end() - 1, Box::new(drop));
    let why = node.refused().await;
    assert!(why.contains("lost acknowledged entries"), "{why}");
}

#[tokio::test]
async fn a_lost_vote_is_noticed() {
    let node = Node::new();
    let group = node.start().await;
    write(&group, "a").await;
    group.shutdown().await;
    let old = types::encode_vote(&Vote::new(0, 1)).expect("encodes");
    node.log
        .set_meta(GROUP, Meta::Vote, old.into(), Box::new(drop));
    let why = node.refused().await;
    assert!(why.contains("lost a vote"), "{why}");
}

#[tokio::test]
async fn a_group_whose_making_was_interrupted_is_made_to_the_end() {
    let node = Node::new();
    node.start().await.shutdown().await;
    let first = node.log.read(GROUP, 0..1, 1).expect("read").remove(0).1;
    let half = Node::new();
    half.append(0, first.to_vec());
    let group = half.start().await;
    write(&group, "a").await;
}

#[tokio::test]
async fn a_group_of_other_nodes_is_not_taken_over() {
    let node = Node::new();
    node.start().await.shutdown().await;
    let why = node
        .try_start_as(NodeId(2))
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(
        why.contains("this is node 2, but the group's members are [1]"),
        "{why}"
    );
}

/// Appends an entry as a newer release would, behind a stopped group, and starts again.
async fn with_entry(payload: Bytes) -> String {
    let node = Node::new();
    let group = node.start().await;
    write(&group, "a").await;
    group.shutdown().await;
    let last = types::decode_entry(
        &node
            .log
            .read(GROUP, node.end() - 1..node.end(), 1)
            .expect("read")[0]
            .1,
    )
    .expect("decodes");
    let log_id = openraft::LogId {
        index: last.log_id.index + 1,
        ..last.log_id
    };
    let entry = Entry {
        log_id,
        payload: openraft::EntryPayload::Normal(Payload(payload)),
    };
    node.append(log_id.index, types::encode_entry(&entry).expect("encodes"));
    node.refused().await
}

#[tokio::test]
async fn a_batch_of_a_newer_release_stops_the_shard() {
    let why = with_entry(Bytes::from_static(&[9, 1, 2, 3])).await;
    assert!(why.contains("log entry 3: the batch has format 9"), "{why}");
}

#[tokio::test]
async fn a_batch_that_does_not_decode_stops_the_shard() {
    let why = with_entry(Bytes::from_static(&[1, 1, 255, 255])).await;
    assert!(
        why.contains("log entry 3: the batch does not decode"),
        "{why}"
    );
}

#[tokio::test]
async fn an_entry_of_a_newer_release_stops_the_shard() {
    let node = Node::new();
    let group = node.start().await;
    write(&group, "a").await;
    group.shutdown().await;
    node.append(node.end(), vec![7, 0]);
    let why = node.refused().await;
    assert!(why.contains("log entry 3: the entry has format 7"), "{why}");
}

/// Met while it runs: the shard stops by name, the process does not.
#[tokio::test]
async fn an_undecodable_batch_quarantines_a_running_shard() {
    let node = Node::new();
    let group = node.start().await;
    assert_eq!(
        group.commit(Bytes::from_static(&[9])).await,
        Err(Refusal::Unknown)
    );
    let why = group.quarantined().expect("quarantined");
    assert!(why.contains("the batch has format 9"), "{why}");
    assert_eq!(group.term(), None);
    assert!(node.fatal.lock().is_empty());
}

#[tokio::test]
async fn an_append_on_a_full_disk_waits_and_the_group_lives_on() {
    let node = Node::new();
    let group = node.start().await;
    let term = group.term().expect("owned").0;
    node.log.set_full(true);
    let waiting = timeout(Duration::from_millis(50), group.commit(batch(term, "a"))).await;
    assert!(waiting.is_err(), "not refused, because it may be half way");
    node.log.set_full(false);
    timeout(PATIENCE, group.commit(batch(term, "b")))
        .await
        .expect("in time")
        .expect("committed");
    assert!(node.row("a").is_some(), "what waited was written");
}

#[tokio::test]
async fn a_group_that_waits_for_room_can_be_stopped() {
    let node = Node::new();
    let group = node.start().await;
    let term = group.term().expect("owned").0;
    node.log.set_full(true);
    let (outcome, ()) = timeout(PATIENCE, async {
        tokio::join!(group.commit(batch(term, "a")), async {
            tokio::task::yield_now().await;
            group.shutdown().await;
        })
    })
    .await
    .expect("in time");
    assert_eq!(outcome, Err(Refusal::Unknown));
    assert_eq!(node.row("a"), None);
    node.log.set_full(false);
    write(&node.start().await, "b").await;
}
