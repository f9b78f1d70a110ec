//! What a group's log looks like to readers: everything requested, durable or not.

use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;

use super::{GroupId, LogError, Meta};

/// Durable entries are kept in memory up to this many bytes a group, for a reader that is a moment behind. A node has
/// many groups and small entries cost more than their bytes: this is part of what an idle device costs.
const RECENT_BYTES_MAX: usize = 16 << 10;

/// One group.
#[derive(Debug, Default)]
pub(super) struct View {
    first: u64,
    end: u64,
    /// The last entries, without holes, up to `end`: all that are not on disk yet, and some that are.
    recent: BTreeMap<u64, Bytes>,
    recent_bytes: usize,
    /// Entries below are on disk.
    durable_end: u64,
    metas: BTreeMap<Meta, Bytes>,
    /// How often the end was truncated: an entry requested before the last time may not be the one here.
    cuts: u64,
}

impl View {
    /// As found on disk.
    pub(super) fn recovered(range: Range<u64>, metas: BTreeMap<Meta, Bytes>) -> Self {
        let Range { start: first, end } = range;
        Self {
            first,
            end,
            durable_end: end,
            metas,
            ..Self::default()
        }
    }

    pub(super) fn range(&self) -> Range<u64> {
        if self.first < self.end {
            self.first..self.end
        } else {
            0..0
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first >= self.end
    }

    pub(super) fn meta(&self, key: Meta) -> Option<Bytes> {
        self.metas.get(&key).cloned()
    }

    pub(super) fn set_meta(&mut self, key: Meta, value: Bytes) {
        self.metas.insert(key, value);
    }

    /// Adds entries that follow, or says which does not.
    pub(super) fn append(
        &mut self,
        group: GroupId,
        entries: &[(u64, Bytes)],
    ) -> Result<(), LogError> {
        let last = self.range().end.checked_sub(1);
        if let Some((index, last)) = gap(last, entries) {
            return Err(LogError::Gap { group, index, last });
        }
        let Some((first, _)) = entries.first() else {
            return Ok(());
        };
        if self.is_empty() {
            self.clear_recent();
            self.first = *first;
            self.durable_end = *first;
        }
        for (index, data) in entries {
            self.recent_bytes += data.len();
            self.recent.insert(*index, data.clone());
            self.end = index + 1;
        }
        Ok(())
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts
    }

    pub(super) fn truncate(&mut self, since: u64) {
        self.cuts += 1;
        let cut = self.recent.split_off(&since);
        self.recent_bytes -= bytes_of(&cut);
        self.end = self.end.min(since);
        self.durable_end = self.durable_end.min(since);
    }

    pub(super) fn purge(&mut self, upto: u64) {
        let kept = self.recent.split_off(&(upto + 1));
        self.recent_bytes -= bytes_of(&self.recent);
        self.recent = kept;
        self.first = self.first.max(upto + 1);
        self.end = self.end.max(self.first);
    }

    /// Everything below `end` is on disk now, unless it was replaced since it was requested.
    pub(super) fn durable_below(&mut self, end: u64, cuts: u64) {
        if cuts != self.cuts {
            return;
        }
        self.durable_end = self.durable_end.max(end.min(self.end));
        while self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.first_entry() else {
                return;
            };
            if *oldest.key() >= self.durable_end {
                return;
            }
            self.recent_bytes -= oldest.remove().len();
        }
    }

    /// Splits a wanted range into what has to come from disk and what is here.
    pub(super) fn read(&self, range: Range<u64>) -> (Range<u64>, Vec<(u64, Bytes)>) {
        let own = self.range();
        let start = range.start.max(own.start);
        // a range that begins before the log would have a hole at its start
        if start != range.start || start >= own.end {
            return (0..0, Vec::new());
        }
        let end = range.end.min(own.end);
        let recent = self.recent.range(start..end.max(start));
        let recent: Vec<_> = recent.map(|(index, data)| (*index, data.clone())).collect();
        let from_disk_end = recent.first().map_or(end, |(index, _)| *index);
        (start..from_disk_end, recent)
    }

    /// Forgets everything but that it was cut.
    pub(super) fn clear(&mut self) {
        *self = Self {
            cuts: self.cuts + 1,
            ..Self::default()
        };
    }

    fn clear_recent(&mut self) {
        self.recent.clear();
        self.recent_bytes = 0;
    }
}

fn bytes_of(entries: &BTreeMap<u64, Bytes>) -> usize {
    entries.values().map(Bytes::len).sum()
}

/// The first index that does not follow the one before it, with that one.
pub(crate) fn gap(last: Option<u64>, entries: &[(u64, Bytes)]) -> Option<(u64, u64)> {
    let mut last = last;
    for (index, _) in entries {
        match last {
            Some(last) if last.checked_add(1) != Some(*index) => return Some((*index, last)),
            Some(_) | None => last = Some(*index),
        }
    }
    None
}
