//! Retained messages: storage holds them, memory knows which there are.
//!
//! The index is changed when a write is proposed, and repaired from storage when the proposal fails: so the bounds count
//! what is on its way. Until a message is committed the index holds it too: a client that subscribes in between was not
//! there when it was routed, and storage does not have it yet.

use std::sync::Arc;

use parking_lot::RwLock;
use umbel_core::{
    ids::ShardId,
    message::Message,
    time::Timestamp,
    topic::{Filter, RetainedIndex, ScanLimit},
};
use umbel_storage::{Ledger, Receipt, Refusal, Table, Write};

use super::{delivery::cost, rows};

/// Topics looked at in one step of a scan, matching or not: a wildcard may look at many and find none.
const SCAN_STEPS: usize = 2_000;

/// Most expired messages removed at a time: each is a proposal, made while publishers of retained messages wait.
const PURGE_MAX: usize = 256;

#[derive(Debug)]
struct Entry {
    /// Which write made it: a failed older write must not undo a newer one.
    version: u64,
    bytes: u64,
    expires_at: Option<Timestamp>,
    /// The message, while storage does not have it. Bounded by what storage lets wait.
    on_its_way: Option<Arc<Message>>,
}

#[derive(Debug)]
struct Inner {
    index: RetainedIndex<Entry>,
    bytes: u64,
    version: u64,
    /// Expired messages are looked for at most this often when a bound is hit.
    purged_at: Timestamp,
}

/// Bounds on all retained messages of this node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    pub(crate) messages: usize,
    pub(crate) bytes: u64,
}

/// See the module.
pub(crate) struct Retained {
    ledger: Arc<dyn Ledger>,
    quota: Quota,
    inner: RwLock<Inner>,
}

/// A write on its way to storage.
pub(crate) struct Change {
    pub(crate) receipt: Receipt,
    pub(crate) topic: String,
    version: u64,
}

/// There is no room for another retained message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(ledger: Arc<dyn Ledger>, quota: Quota) -> Self {
        let inner = Inner {
            index: RetainedIndex::new(),
            bytes: 0,
            version: 0,
            purged_at: Timestamp::default(),
        };
        Self {
            ledger,
            quota,
            inner: RwLock::new(inner),
        }
    }

    /// How many, and how many bytes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let inner = self.inner.read();
        (inner.index.len(), inner.bytes)
    }

    /// Keeps a message in place of the one before, or with an empty payload removes that one (MQTT-3.3.1-6).
    /// Proposals are made under the lock, so that storage sees them in the order the index did.
    pub(crate) fn change(&self, message: &Message) -> Result<Change, Full> {
        let mut inner = self.inner.write();
        let write = if message.payload.is_empty() {
            inner.remove(&message.topic);
            Write::delete(Table::Retained, message.topic.as_bytes())
        } else {
            self.make_room(&mut inner, message)?;
            let entry = Entry {
                version: inner.version + 1,
                bytes: cost(message) as u64,
                expires_at: message.expires_at,
                on_its_way: Some(Arc::new(message.clone())),
            };
            inner.insert(&message.topic, entry);
            Write::put(
                Table::Retained,
                message.topic.as_bytes(),
                rows::encode_retained(message),
            )
        };
        inner.version += 1;
        let shard = self.shard(&message.topic);
        let receipt = match self.ledger.term(shard) {
            Some(term) => self.ledger.propose(shard, term, vec![write]),
            None => Receipt::ready(Err(Refusal::NotOwner)),
        };
        Ok(Change {
            receipt,
            topic: message.topic.clone(),
            version: inner.version,
        })
    }

    /// A change was refused: the index says again what storage says.
    pub(crate) fn undo(&self, topic: &str, version: u64) {
        let mut inner = self.inner.write();
        if inner
            .index
            .get(topic)
            .is_some_and(|entry| entry.version > version)
        {
            return;
        }
        inner.remove(topic);
        if let Some(message) = self.read(topic) {
            let bytes = cost(&message) as u64;
            inner.insert(
                topic,
                Entry {
                    version,
                    bytes,
                    expires_at: message.expires_at,
                    on_its_way: None,
                },
            );
        }
    }

    /// A change was committed: storage has it.
    pub(crate) fn settle(&self, topic: &str, version: u64) {
        let mut inner = self.inner.write();
        let entry = inner.index.get_mut(topic);
        if let Some(entry) = entry.filter(|entry| entry.version == version) {
            entry.on_its_way = None;
        }
    }

    /// Puts back what a restart found.
    pub(crate) fn restore(&self, message: &Message) {
        let bytes = cost(message) as u64;
        let entry = Entry {
            version: 0,
            bytes,
            expires_at: message.expires_at,
            on_its_way: None,
        };
        self.inner.write().insert(&message.topic, entry);
    }

    /// The topics of a shard are another node's now.
    pub(crate) fn lose(&self, shard: ShardId) {
        let shards = self.ledger.shards();
        let mut inner = self.inner.write();
        let gone = inner
            .index
            .remove_if(|topic, _| ShardId::of(topic, shards) == shard);
        for entry in gone {
            inner.bytes -= entry.bytes;
        }
    }

    /// What a new subscriber of a topic gets: the latest message, also if it is not committed yet. As to those who were
    /// there when it was published, it is only its publisher who is not told before the commit.
    pub(crate) fn latest(&self, topic: &str, now: Timestamp) -> Option<Message> {
        let latest = self.inner.read().index.get(topic)?.on_its_way.clone();
        let latest = match latest {
            Some(message) => Some(Arc::unwrap_or_clone(message)),
            None => self.read(topic),
        };
        latest.filter(|message| message.expires_at.is_none_or(|at| at > now))
    }

    /// The retained message of a topic as it is committed, if it is worth delivering.
    pub(crate) fn get(&self, topic: &str, now: Timestamp) -> Option<Message> {
        self.inner.read().index.get(topic)?;
        self.read(topic)
            .filter(|message| message.expires_at.is_none_or(|at| at > now))
    }

    /// Topics with a retained message that match, in order, and where to go on if there may be more.
    pub(crate) fn topics(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> (Vec<String>, Option<String>) {
        let mut topics = Vec::new();
        let inner = self.inner.read();
        let scan = ScanLimit {
            matches: limit,
            steps: SCAN_STEPS,
        };
        let resume = inner.index.scan(filter, after, scan, |topic, entry| {
            if entry.expires_at.is_none_or(|at| at > now) {
                topics.push(topic.to_owned());
            }
        });
        (topics, resume.map(str::to_owned))
    }

    fn make_room(&self, inner: &mut Inner, message: &Message) -> Result<(), Full> {
        if self.fits(inner, message) {
            return Ok(());
        }
        let now = message.received_at;
        if now.since(inner.purged_at).as_secs() >= 1 {
            inner.purged_at = now;
            self.purge(inner, now);
        }
        if self.fits(inner, message) {
            Ok(())
        } else {
            Err(Full)
        }
    }

    fn fits(&self, inner: &Inner, message: &Message) -> bool {
        let (count, before) = match inner.index.get(&message.topic) {
            Some(entry) => (inner.index.len(), entry.bytes),
            None => (inner.index.len() + 1, 0),
        };
        count <= self.quota.messages
            && inner.bytes - before + cost(message) as u64 <= self.quota.bytes
    }

    /// Removes what expired. A deletion that is refused leaves a row behind that nobody is shown; the next start or the
    /// next message of its topic removes it.
    fn purge(&self, inner: &mut Inner, now: Timestamp) {
        let mut expired = Vec::new();
        if let Ok(all) = Filter::parse("#", &umbel_core::topic::Limits::default()) {
            let limit = ScanLimit {
                matches: usize::MAX,
                steps: usize::MAX,
            };
            inner.index.scan(&all, None, limit, |topic, entry| {
                if entry.expires_at.is_some_and(|at| at <= now) {
                    expired.push(topic.to_owned());
                }
            });
        }
        for topic in expired.into_iter().take(PURGE_MAX) {
            inner.remove(&topic);
            let shard = self.shard(&topic);
            if let Some(term) = self.ledger.term(shard) {
                let write = Write::delete(Table::Retained, topic.into_bytes());
                drop(self.ledger.propose(shard, term, vec![write]));
            }
        }
    }

    fn read(&self, topic: &str) -> Option<Message> {
        match self
            .ledger
            .get(self.shard(topic), Table::Retained, topic.as_bytes())
        {
            Ok(row) => rows::decode_retained(&row?)
                .inspect_err(|error| tracing::warn!(%error, "retained message does not decode"))
                .ok(),
            Err(error) => {
                tracing::warn!(%error, "retained message cannot be read");
                None
            },
        }
    }

    fn shard(&self, topic: &str) -> ShardId {
        ShardId::of(topic, self.ledger.shards())
    }
}

impl Change {
    /// What [`Retained::undo`] needs.
    pub(crate) fn into_parts(self) -> (Receipt, String, u64) {
        (self.receipt, self.topic, self.version)
    }
}

impl Inner {
    fn insert(&mut self, topic: &str, entry: Entry) {
        self.remove(topic);
        self.bytes += entry.bytes;
        self.index.insert(topic, entry);
    }

    fn remove(&mut self, topic: &str) {
        if let Some(gone) = self.index.remove(topic) {
            self.bytes -= gone.bytes;
        }
    }
}
