//! A log without disk.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::log::{Done, GroupId, GroupLog, LogError, Meta, Pace, gap};

/// A [`GroupLog`] in memory. Clones share one content; [`MemoryLog::crash_copy`] is what a restart would find.
///
/// Durable at once, or when the test says so.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    groups: BTreeMap<GroupId, Group>,
    durable: BTreeMap<GroupId, Group>,
    waiting: VecDeque<Done>,
    holding: bool,
    full: bool,
    pace: Pace,
}

#[derive(Clone, Default)]
struct Group {
    entries: BTreeMap<u64, Bytes>,
    metas: BTreeMap<Meta, Bytes>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a restart after a crash now would find: everything whose `done` was called.
    #[must_use]
    pub fn crash_copy(&self) -> Self {
        let durable = self.0.lock().durable.clone();
        Self(Arc::new(Mutex::new(Inner {
            groups: durable.clone(),
            durable,
            ..Inner::default()
        })))
    }

    /// From now on nothing becomes durable.
    pub fn hold(&self) {
        self.0.lock().holding = true;
    }

    /// Makes everything requested durable and ends the holding.
    pub fn release(&self) {
        let mut inner = self.0.lock();
        inner.holding = false;
        inner.durable = inner.groups.clone();
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        for done in waiting {
            done(Ok(()));
        }
    }

    /// From now on the disk is full, or has room again.
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// From now on that is how fast it is.
    pub fn set_pace(&self, pace: Pace) {
        self.0.lock().pace = pace;
    }

    fn change(&self, group: GroupId, done: Done, change: impl Fn(&mut Group)) {
        let mut inner = self.0.lock();
        change(inner.groups.entry(group).or_default());
        if inner.holding {
            inner.waiting.push_back(done);
            return;
        }
        change(inner.durable.entry(group).or_default());
        drop(inner);
        done(Ok(()));
    }
}

impl GroupLog for MemoryLog {
    fn range(&self, group: GroupId) -> Range<u64> {
        let inner = self.0.lock();
        let entries = inner.groups.get(&group).map(|group| &group.entries);
        let first = entries.and_then(|entries| entries.first_key_value());
        let last = entries.and_then(|entries| entries.last_key_value());
        match (first, last) {
            (Some((first, _)), Some((last, _))) => *first..*last + 1,
            _ => 0..0,
        }
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, LogError> {
        let inner = self.0.lock();
        let Some(group) = inner.groups.get(&group) else {
            return Ok(Vec::new());
        };
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (expected, (index, data)) in (range.start..range.end).zip(group.entries.range(range)) {
            if *index != expected || (bytes > 0 && bytes + data.len() > bytes_max) {
                break;
            }
            bytes += data.len();
            entries.push((*index, data.clone()));
        }
        Ok(entries)
    }

    fn append(&self, group: GroupId, entries: Vec<(u64, Bytes)>, done: Done) {
        let last = self.range(group).end.checked_sub(1);
        if let Some((index, last)) = gap(last, &entries) {
            return done(Err(LogError::Gap { group, index, last }));
        }
        if self.0.lock().full {
            return done(Err(LogError::Full));
        }
        self.change(group, done, |group| {
            group.entries.extend(entries.iter().cloned());
        });
    }

    fn truncate(&self, group: GroupId, since: u64, done: Done) {
        self.change(group, done, |group| {
            group.entries.split_off(&since);
        });
    }

    fn purge(&self, group: GroupId, upto: u64, purged: Bytes, done: Done) {
        self.change(group, done, |group| {
            group.entries = group.entries.split_off(&(upto + 1));
            group.metas.insert(Meta::Purged, purged.clone());
        });
    }

    fn meta(&self, group: GroupId, key: Meta) -> Option<Bytes> {
        self.0
            .lock()
            .groups
            .get(&group)
            .and_then(|group| group.metas.get(&key).cloned())
    }

    fn set_meta(&self, group: GroupId, key: Meta, value: Bytes, done: Done) {
        self.change(group, done, |group| {
            group.metas.insert(key, value.clone());
        });
    }

    fn remove(&self, group: GroupId, done: Done) {
        self.change(group, done, |group| *group = Group::default());
    }

    fn admit(&self) -> Result<(), LogError> {
        if self.0.lock().full {
            Err(LogError::Full)
        } else {
            Ok(())
        }
    }

    fn pace(&self) -> Pace {
        self.0.lock().pace
    }

    fn wants_purge(&self) -> Vec<GroupId> {
        Vec::new()
    }
}
