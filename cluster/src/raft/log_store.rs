//! openraft's log over [`GroupLog`].
//!
//! Everything is durable before openraft hears of it. A full disk is not an error here: openraft would end the
//! group for it. Nothing was written then, so the request waits and is made again until there is room; new
//! proposals are refused by name meanwhile (see [`crate::batcher`]). A failed log ends the node.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;
use umbel_storage::{
    crash,
    log::{Done, GroupId, GroupLog, LogError, Meta},
};

use crate::raft::{
    Damage, Fatal,
    recent::Common,
    types::{self, Entry, Id, StorageError, Types},
};

/// How long a request waits for room on a full disk before it is made again.
const FULL_RETRY: Duration = Duration::from_millis(250);
/// Most bytes read from the log in one go. More than any entry; openraft asks again for the rest only where it
/// may, so this bounds what goes to a peer, not what is replayed.
const READ_BYTES_MAX: usize = 4 << 20;

/// The log of one group.
#[derive(Clone)]
pub(crate) struct LogStore {
    group: GroupId,
    node: u64,
    log: Arc<dyn GroupLog>,
    fatal: Fatal,
    common: Arc<Common>,
    purged: Option<Id>,
    last: Option<Id>,
    /// Known to be committed when the log was opened.
    committed: Option<Id>,
}

impl LogStore {
    /// Reads where the group's log begins and ends.
    pub(crate) fn open(
        group: GroupId,
        node: u64,
        log: Arc<dyn GroupLog>,
        fatal: Fatal,
    ) -> Result<Self, Damage> {
        let purged = log
            .meta(group, Meta::Purged)
            .map(|bytes| types::decode_id(&bytes))
            .transpose()
            .map_err(|error| Damage::of_record("purge mark", &error))?;
        let mut store = Self {
            group,
            node,
            log,
            fatal,
            common: Arc::default(),
            purged,
            last: purged,
            committed: None,
        };
        let range = store.log.range(group);
        if let (Some(purged), false) = (purged, range.is_empty())
            && range.start > purged.index + 1
        {
            return Err(Damage::new(format!(
                "the log was purged up to {} but begins at {}: entries in between are missing",
                purged.index, range.start
            )));
        }
        if !range.is_empty() {
            store.last = Some(store.entry(range.end - 1)?.log_id);
        }
        Ok(store)
    }

    /// What the group and its state machine share with the log.
    pub(crate) fn common(&self) -> Arc<Common> {
        Arc::clone(&self.common)
    }

    /// Says that every entry now in the log is committed, so that openraft applies them in small portions before
    /// the group starts, and not all at once after its first election.
    pub(crate) fn trust_whole_log(&mut self) {
        self.committed = self.last;
    }

    /// Says that the entries up to this one are committed: a snapshot of their effect exists.
    pub(crate) fn trust_upto(&mut self, id: Id) {
        self.committed = self.committed.max(Some(id));
    }

    /// The last entry removed because a snapshot holds it.
    pub(crate) fn purged(&self) -> Option<Id> {
        self.purged
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<Id> {
        self.last
    }

    /// One entry that has to be there.
    pub(crate) fn entry(&self, index: u64) -> Result<Entry, Damage> {
        let found = self
            .log
            .read(self.group, index..index + 1, READ_BYTES_MAX)
            .map_err(|error| Damage::new(error.to_string()))?;
        let (_, bytes) = found
            .first()
            .ok_or_else(|| Damage::new(format!("log entry {index} is missing")))?;
        types::decode_entry(bytes)
            .map_err(|error| Damage::of_record(&format!("log entry {index}"), &error))
    }

    /// The vote that is stored, as it was written.
    pub(crate) fn stored_vote(&self) -> Result<Option<Vote<u64>>, Damage> {
        self.log
            .meta(self.group, Meta::Vote)
            .map(|bytes| types::decode_vote(&bytes))
            .transpose()
            .map_err(|error| Damage::of_record("vote", &error))
    }

    fn read(&self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let range = self.log.range(self.group);
        let (mut start, end) = (start.max(range.start), end.min(range.end));
        if start >= end {
            return Ok(Vec::new());
        }
        let recent = self.common.recent.lock().get(start, end);
        if let Some(found) = recent {
            return Ok(found);
        }
        let mut entries = Vec::new();
        while start < end {
            let found = self
                .log
                .read(self.group, start..end, READ_BYTES_MAX)
                .map_err(|error| read_error(&error))?;
            if found.is_empty() {
                break;
            }
            for (index, bytes) in found {
                entries.push(types::decode_entry(&bytes).map_err(|error| {
                    StorageIOError::read_log_at_index(index, AnyError::new(&error))
                })?);
                start = index + 1;
            }
        }
        Ok(entries)
    }

    /// Makes a request until it is durable. `request` is called again while the disk is full.
    async fn durably(&self, request: impl Fn(&dyn GroupLog, Done)) -> Result<(), LogError> {
        loop {
            let (sender, receiver) = oneshot::channel();
            request(
                self.log.as_ref(),
                Box::new(move |outcome| {
                    // Nobody waits when the group was stopped meanwhile.
                    drop(sender.send(outcome));
                }),
            );
            let outcome = receiver
                .await
                .unwrap_or_else(|_| Err(LogError::Failed("the log dropped a request".to_owned())));
            match outcome {
                Err(LogError::Full) if !self.common.stopping.load(Ordering::Acquire) => {
                    tokio::time::sleep(FULL_RETRY).await;
                },
                Err(LogError::Failed(detail)) => {
                    (self.fatal)(format!("shard {}: the log failed: {detail}", self.group));
                    return Err(LogError::Failed(detail));
                },
                done => return done,
            }
        }
    }
}

fn read_error(error: &LogError) -> StorageError {
    StorageIOError::read_logs(AnyError::new(error)).into()
}

fn write_error(error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let start = match range.start_bound() {
        Included(index) => *index,
        Excluded(index) => index.saturating_add(1),
        Unbounded => 0,
    };
    let end = match range.end_bound() {
        Included(index) => index.saturating_add(1),
        Excluded(index) => *index,
        Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let (start, end) = bounds(&range);
        self.read(start, end)
    }

    /// Bounded in bytes: this is what goes to a peer in one message.
    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let recent = self.common.recent.lock().get(start, end);
        if let Some(found) = recent {
            return Ok(found);
        }
        let found = self
            .log
            .read(self.group, start..end, READ_BYTES_MAX)
            .map_err(|error| read_error(&error))?;
        found
            .into_iter()
            .map(|(index, bytes)| {
                types::decode_entry(&bytes).map_err(|error| {
                    StorageIOError::read_log_at_index(index, AnyError::new(&error)).into()
                })
            })
            .collect()
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        Ok(LogState {
            last_purged_log_id: self.purged,
            last_log_id: self.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            StorageError::from(StorageIOError::write_vote(AnyError::from_dyn(error, None)))
        };
        let bytes = Bytes::from(types::encode_vote(vote).map_err(|error| failed(&error))?);
        crash::point("vote.before");
        let saved = self
            .durably(|log, done| log.set_meta(self.group, Meta::Vote, bytes.clone(), done))
            .await;
        crash::point("vote.saved");
        saved.map_err(|error| failed(&error))
    }

    /// The stored vote, but a leadership of our own does not outlive its process: openraft would take it up again
    /// in the same term, and a term would then mean two owners, one before and one after the crash.
    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError> {
        let vote = self
            .stored_vote()
            .map_err(|damage| StorageIOError::read_vote(AnyError::new(&damage)))?;
        Ok(vote.map(|vote| {
            let ours = vote.leader_id.node_id == self.node;
            Vote {
                committed: vote.committed && !ours,
                ..vote
            }
        }))
    }

    async fn read_committed(&mut self) -> Result<Option<Id>, StorageError> {
        Ok(self.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let mut last = self.last;
        {
            let mut recent = self.common.recent.lock();
            for entry in entries {
                let bytes = types::encode_entry(&entry).map_err(|error| write_error(&error))?;
                encoded.push((entry.log_id.index, Bytes::from(bytes)));
                last = Some(entry.log_id);
                recent.push(entry);
            }
        }
        // openraft 0.9 waits for the callback in its core before it does anything else, so waiting here costs
        // nothing, and lets a full disk be waited out.
        crash::point("append.before");
        let outcome = self
            .durably(|log, done| log.append(self.group, encoded.clone(), done))
            .await;
        crash::point("append.saved");
        match outcome {
            Ok(()) => {
                self.last = last;
                callback.log_io_completed(Ok(()));
                Ok(())
            },
            Err(error) => {
                self.common.recent.lock().clear();
                Err(write_error(&error))
            },
        }
    }

    async fn truncate(&mut self, log_id: Id) -> Result<(), StorageError> {
        self.common.truncations.fetch_add(1, Ordering::AcqRel);
        self.common.recent.lock().clear();
        crash::point("truncate.before");
        self.durably(|log, done| log.truncate(self.group, log_id.index, done))
            .await
            .map_err(|error| write_error(&error))?;
        crash::point("truncate.saved");
        let range = self.log.range(self.group);
        self.last = if range.is_empty() {
            self.purged
        } else {
            let last = self.entry(range.end - 1).map_err(|damage| {
                StorageIOError::read_log_at_index(range.end - 1, AnyError::new(&damage))
            })?;
            Some(last.log_id)
        };
        Ok(())
    }

    async fn purge(&mut self, log_id: Id) -> Result<(), StorageError> {
        let mark = Bytes::from(types::encode_id(&log_id).map_err(|error| write_error(&error))?);
        self.common.recent.lock().purged(log_id.index);
        crash::point("purge.before");
        self.durably(|log, done| log.purge(self.group, log_id.index, mark.clone(), done))
            .await
            .map_err(|error| write_error(&error))?;
        crash::point("purge.saved");
        self.purged = Some(log_id);
        if self.last.is_none_or(|last| last.index <= log_id.index) {
            self.last = Some(log_id);
        }
        Ok(())
    }
}
