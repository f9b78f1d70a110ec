//! The one thread that writes the log: it takes whatever is waiting, of all groups, writes it as one batch with one
//! sync, and only then tells anyone. While it writes, the next batch collects: the slower the disk, the larger.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    Done, GroupId, LogError, Meta,
    disk::{Batch, NODE_REGION, WriteFailure, region_of},
    high_water::HighWater,
    queue::{Change, Request, Shared},
};
use crate::{crash, guard::guarded, metrics::log as names};

/// Key of the number of the flush, in the node's region.
pub(super) const KEY_FLUSH: u8 = b'f';
/// Key of the index from which on a group's entries were truncated. raft-engine cannot remove the end of a log; it
/// only replaces it. So the cut is remembered until the replacement comes.
pub(super) const KEY_CUT: u8 = b'c';

/// The key of a group's value.
pub(super) fn key_of(meta: Meta) -> u8 {
    meta as u8
}

/// The writer's own state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    high_water: HighWater,
    flush: u64,
    /// Truncated and not yet replaced, as it is on disk.
    cuts: BTreeMap<GroupId, u64>,
}

/// A request that is in the batch under way.
struct Pending {
    group: GroupId,
    /// One past the last entry it appends.
    end: Option<u64>,
    cuts: u64,
    done: Done,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        high_water: HighWater,
        flush: u64,
        cuts: BTreeMap<GroupId, u64>,
    ) -> Self {
        Self {
            shared,
            high_water,
            flush,
            cuts,
        }
    }

    /// Writes until the log stops or fails.
    pub(super) fn run(mut self) {
        while let Some(requests) = self.shared.next() {
            self.flush(requests);
        }
    }

    fn flush(&mut self, requests: Vec<Request>) {
        let begun_at = Instant::now();
        let cuts_before = self.cuts.clone();
        let mut batch = Batch::default();
        let mut pending = Vec::with_capacity(requests.len());
        let bytes = requests.iter().map(|request| request.change.bytes()).sum();
        self.shared.pulse.begin(bytes, begun_at);
        let prepared = self.prepare(requests, &mut batch, &mut pending);
        #[cfg(feature = "plant-ack-early")]
        planted::acknowledge(&mut pending);
        crash::point("log.flush.before");
        let written = match prepared {
            Ok(()) => self.shared.disk.write(&mut batch),
            Err(reason) => Err(WriteFailure::Fatal(reason)),
        };
        self.shared.pulse.end(Instant::now());
        match written {
            Ok(bytes) => {
                self.flush += 1;
                crash::point("log.flush.durable");
                self.note_high_water();
                names::flushed(begun_at.elapsed(), batch.entries, bytes as u64);
                self.settle(pending);
                crash::point("log.flush.told");
            },
            Err(WriteFailure::Full) => {
                self.cuts = cuts_before;
                self.take_back(pending);
            },
            Err(WriteFailure::Fatal(reason)) => {
                // the hook comes first: nobody may act on an answer of a node that has to stop
                self.shared.fail(&reason);
                for request in pending {
                    (request.done)(Err(LogError::Failed(reason.clone())));
                }
            },
        }
    }

    fn prepare(
        &mut self,
        requests: Vec<Request>,
        batch: &mut Batch,
        pending: &mut Vec<Pending>,
    ) -> Result<(), String> {
        let mut outcome = batch.put(NODE_REGION, KEY_FLUSH, &(self.flush + 1).to_le_bytes());
        for Request {
            group,
            change,
            cuts,
            done,
        } in requests
        {
            let end = match &change {
                Change::Append(entries) => entries.last().map(|(index, _)| index + 1),
                Change::Truncate(_) | Change::Purge(..) | Change::Meta(..) | Change::Remove => None,
            };
            if outcome.is_ok() {
                outcome = self.add(group, change, batch);
            }
            pending.push(Pending {
                group,
                end,
                cuts,
                done,
            });
        }
        outcome
    }

    fn add(&mut self, group: GroupId, change: Change, batch: &mut Batch) -> Result<(), String> {
        let region = region_of(group);
        match change {
            Change::Append(entries) => {
                let Some((first, _)) = entries.first() else {
                    return Ok(());
                };
                if let Some(since) = self.cuts.remove(&group) {
                    if since != *first {
                        // what was cut is not what is replaced: remove all of it first
                        batch.compact(group, u64::MAX);
                    }
                    batch.delete(region, KEY_CUT);
                }
                batch.append(group, entries)
            },
            Change::Truncate(since) => {
                let since = self
                    .cuts
                    .get(&group)
                    .map_or(since, |before| since.min(*before));
                self.cuts.insert(group, since);
                batch.put(region, KEY_CUT, &since.to_le_bytes())
            },
            Change::Purge(upto, purged) => {
                batch.compact(group, upto.saturating_add(1));
                batch.put(region, key_of(Meta::Purged), &purged)
            },
            Change::Meta(key, value) => batch.put(region, key_of(key), &value),
            Change::Remove => {
                self.cuts.remove(&group);
                batch.clean(group);
                Ok(())
            },
        }
    }

    fn settle(&self, pending: Vec<Pending>) {
        let appended = |request: &Pending| Some((request.group, request.end?, request.cuts));
        self.shared.durable(pending.iter().filter_map(appended));
        for request in pending {
            // one defect must not keep the others of the batch from their answers
            if let Err(reason) = guarded("an answer of the log", || (request.done)(Ok(()))) {
                self.shared.fail(&reason);
            }
        }
    }

    /// The disk was full: neither this batch nor what waits behind it exists any more.
    fn take_back(&self, pending: Vec<Pending>) {
        let waiting = self
            .shared
            .take_back(pending.iter().map(|request| request.group));
        let requests = pending.len() + waiting.len();
        tracing::error!(requests, "the disk is full: requests refused");
        let refused = pending.into_iter().map(|request| request.done);
        for done in refused.chain(waiting) {
            done(Err(LogError::Full));
        }
    }

    fn note_high_water(&self) {
        if let Err(error) = self.high_water.raise(self.flush) {
            // the mark is a lower bound: an old one is still true
            tracing::warn!(%error, "high-water mark of the log is not written");
        }
    }
}

/// The bug that `umbel-chaos --plant` has to find: an answer before the write.
#[cfg(feature = "plant-ack-early")]
mod planted {
    use std::{mem, thread, time::Duration};

    use super::Pending;

    pub(super) fn acknowledge(pending: &mut [Pending]) {
        for request in pending {
            let done = mem::replace(&mut request.done, Box::new(|_| ()));
            done(Ok(()));
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}
