//! What a group's log shares with its state machine and its owner.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU64},
};

use openraft::EntryPayload;
use parking_lot::Mutex;

use crate::raft::types::{Entry, Payload};

/// Shared between the log, the state machine and the owner of a group.
#[derive(Debug, Default)]
pub(crate) struct Common {
    /// Entries between append and apply.
    pub(crate) recent: Mutex<Recent>,
    /// How often entries were removed because another leader's took their place.
    pub(crate) truncations: AtomicU64,
    /// The group is being stopped: whoever waits for room on a full disk gives up.
    pub(crate) stopping: AtomicBool,
}

/// Most entries kept in memory between append and apply. One is in flight per group when this node owns it.
const RECENT_ENTRIES_MAX: usize = 16;
/// Most bytes of entries kept in memory between append and apply.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// Entries appended and not yet applied: what is applied next was written a moment ago, and need not be read
/// back from disk.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Recent {
    /// Adds what was just appended.
    pub(crate) fn push(&mut self, entry: Entry) {
        if self
            .entries
            .back()
            .is_some_and(|last| last.log_id.index + 1 != entry.log_id.index)
        {
            self.clear();
        }
        self.bytes += payload_bytes(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > RECENT_ENTRIES_MAX || self.bytes > RECENT_BYTES_MAX {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= payload_bytes(&entry);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// The entries of a range, if all of them are here.
    pub(crate) fn get(&self, start: u64, end: u64) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let skip = usize::try_from(start.checked_sub(first)?).ok()?;
        let count = usize::try_from(end.checked_sub(start)?).ok()?;
        let found: Vec<Entry> = self
            .entries
            .iter()
            .skip(skip)
            .take(count)
            .cloned()
            .collect();
        (found.len() == count).then_some(found)
    }

    /// Forgets what has been applied.
    pub(crate) fn applied(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.log_id.index <= index)
        {
            self.pop_front();
        }
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}
