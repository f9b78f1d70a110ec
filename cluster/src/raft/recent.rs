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
    /// Entries from their append until a little after they were applied.
    pub(crate) recent: Mutex<Recent>,
    /// How often entries were removed because another leader's took their place.
    pub(crate) truncations: AtomicU64,
    /// The group is being stopped: whoever waits for room on a full disk gives up.
    pub(crate) stopping: AtomicBool,
}

/// Most entries kept in memory. One is in flight per group when this node owns it; the others are for followers that are
/// a little late.
const RECENT_ENTRIES_MAX: usize = 16;
/// Most bytes of entries kept in memory between append and apply.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// Most bytes of entries kept although they are applied: 64 groups may hold 4 MiB.
const APPLIED_BYTES_MAX: usize = 64 << 10;

/// The last entries: what is applied next was written a moment ago, and so was what the second follower has not got yet
/// when the first has it and the entry is applied. Neither need be read back from disk.
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

    /// Forgets what has been applied, but a little.
    pub(crate) fn applied(&mut self, index: u64) {
        while self.bytes > APPLIED_BYTES_MAX && self.begins_upto(index) {
            self.pop_front();
        }
    }

    /// Forgets what the log has forgotten.
    pub(crate) fn purged(&mut self, index: u64) {
        while self.begins_upto(index) {
            self.pop_front();
        }
    }

    fn begins_upto(&self, index: u64) -> bool {
        let first = self.entries.front();
        first.is_some_and(|entry| entry.log_id.index <= index)
    }
}

fn payload_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, LogId};

    use super::*;

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry {
            log_id: LogId::new(CommittedLeaderId::new(1, 1), index),
            payload: EntryPayload::Normal(Payload(vec![0; bytes].into())),
        }
    }

    #[test]
    fn what_is_applied_stays_for_a_late_follower_but_not_much_of_it() {
        let mut recent = Recent::default();
        for index in 1..=4 {
            recent.push(entry(index, 1000));
        }
        recent.applied(4);
        assert_eq!(recent.get(2, 5).map(|found| found.len()), Some(3));
        recent.push(entry(5, APPLIED_BYTES_MAX));
        recent.applied(4);
        assert!(recent.get(4, 5).is_none(), "too many bytes");
        assert!(recent.get(5, 6).is_some(), "not applied yet");
        recent.purged(5);
        assert!(recent.get(5, 6).is_none());
        assert_eq!(recent.bytes, 0);
    }
}
