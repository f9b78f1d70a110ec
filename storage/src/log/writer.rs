//! The one thread that writes the log: it takes whatever is waiting, of all groups, writes it as one batch with one
//! sync, and only then tells anyone. While it writes, the next batch collects: the slower the disk, the larger.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{
    Done, GroupId, LogError, Meta,
    disk::{Batch, Disk, NODE_REGION, WriteFailure, region_of},
    high_water::HighWater,
    view::View,
};
use crate::{metrics::log as names, space::Space};

/// Most bytes written in one flush, so that one large append does not delay all others for long.
const FLUSH_BYTES_MAX: usize = 8 << 20;
/// Most bytes waiting; beyond that, whoever appends waits.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// What a request costs the queue besides its data.
const REQUEST_BYTES: usize = 64;

/// Key of the number of the flush, in the node's region.
pub(super) const KEY_FLUSH: u8 = b'f';
/// Key of the index from which on a group's entries were truncated. raft-engine cannot remove the end of a log; it
/// only replaces it. So the cut is remembered until the replacement comes.
pub(super) const KEY_CUT: u8 = b'c';

/// The key of a group's value.
pub(super) fn key_of(meta: Meta) -> u8 {
    meta as u8
}

/// What to do when the log has failed for good. In production it ends the process.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

pub(super) enum Change {
    Append(Vec<(u64, Bytes)>),
    Truncate(u64),
    Purge(u64, Bytes),
    Meta(Meta, Bytes),
    Remove,
}

impl Change {
    fn bytes(&self) -> usize {
        REQUEST_BYTES
            + match self {
                Self::Append(entries) => entries.iter().map(|(_, data)| data.len()).sum(),
                Self::Purge(_, value) | Self::Meta(_, value) => value.len(),
                Self::Truncate(_) | Self::Remove => 0,
            }
    }
}

struct Request {
    group: GroupId,
    change: Change,
    /// Cuts of the group's view when this was requested: entries of an older count may have been replaced since.
    cuts: u64,
    done: Done,
}

#[derive(Default)]
struct Inner {
    views: BTreeMap<GroupId, View>,
    queue: VecDeque<Request>,
    queued_bytes: usize,
    failed: Option<String>,
    stopping: bool,
}

/// What the writer shares with those who append and read.
pub(super) struct Shared {
    pub(super) disk: Box<dyn Disk>,
    pub(super) space: Space,
    inner: Mutex<Inner>,
    work: Condvar,
    room: Condvar,
    ended: Condvar,
    fatal: Fatal,
}

impl Shared {
    pub(super) fn new(
        disk: Box<dyn Disk>,
        space: Space,
        views: BTreeMap<GroupId, View>,
        fatal: Fatal,
    ) -> Self {
        let inner = Mutex::new(Inner {
            views,
            ..Inner::default()
        });
        let (work, room, ended) = (Condvar::new(), Condvar::new(), Condvar::new());
        Self {
            disk,
            space,
            inner,
            work,
            room,
            ended,
            fatal,
        }
    }

    /// Calls `then` with the group's view.
    pub(super) fn look<T>(&self, group: GroupId, then: impl FnOnce(&View) -> T) -> Option<T> {
        self.inner.lock().views.get(&group).map(then)
    }

    /// Makes a change visible and hands it to the writer.
    pub(super) fn request(&self, group: GroupId, change: Change, done: Done) {
        let bytes = change.bytes();
        let mut inner = self.inner.lock();
        while inner.queued_bytes > QUEUE_BYTES_MAX && inner.failed.is_none() {
            self.room.wait(&mut inner);
        }
        let outcome = match &inner.failed {
            Some(reason) => Err(LogError::Failed(reason.clone())),
            None => inner.show(group, &change),
        };
        if let Err(error) = outcome {
            drop(inner);
            return done(Err(error));
        }
        let cuts = inner.views.get(&group).map_or(0, View::cuts);
        inner.queue.push_back(Request {
            group,
            change,
            cuts,
            done,
        });
        inner.queued_bytes += bytes;
        drop(inner);
        self.work.notify_one();
    }

    /// Lets the writer finish what is queued and end.
    pub(super) fn stop(&self) {
        self.inner.lock().stopping = true;
        self.work.notify_all();
        self.ended.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        let inner = self.inner.lock();
        inner.stopping || inner.failed.is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.inner.lock().failed.is_some()
    }

    /// Waits for the end to be asked for, at most this long.
    pub(super) fn wait_for_stop(&self, at_most: std::time::Duration) {
        let mut inner = self.inner.lock();
        if !inner.stopping && inner.failed.is_none() {
            self.ended.wait_for(&mut inner, at_most);
        }
    }

    /// The end of the log: nothing is acknowledged from here on, and the node is told to stop.
    pub(super) fn fail(&self, reason: &str) {
        tracing::error!(
            reason,
            "the log failed; acknowledged writes are safe, the node has to stop"
        );
        let mut inner = self.inner.lock();
        inner.failed = Some(reason.to_owned());
        let waiting = mem::take(&mut inner.queue);
        inner.queued_bytes = 0;
        drop(inner);
        for waiting in [&self.work, &self.room, &self.ended] {
            waiting.notify_all();
        }
        tracing::error!(
            reason,
            "the log failed: nothing more is acknowledged, the node has to stop"
        );
        (self.fatal)(reason);
        for request in waiting {
            (request.done)(Err(LogError::Failed(reason.to_owned())));
        }
    }

    fn next(&self) -> Option<Vec<Request>> {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() {
            if inner.stopping || inner.failed.is_some() {
                return None;
            }
            self.work.wait(&mut inner);
        }
        if inner.failed.is_some() {
            return None;
        }
        let (mut taken, mut bytes) = (Vec::with_capacity(inner.queue.len()), 0);
        while let Some(request) = inner.queue.front() {
            bytes += request.change.bytes();
            if bytes > FLUSH_BYTES_MAX && !taken.is_empty() {
                bytes -= request.change.bytes();
                break;
            }
            taken.extend(inner.queue.pop_front());
        }
        inner.queued_bytes = inner.queued_bytes.saturating_sub(bytes);
        drop(inner);
        self.room.notify_all();
        Some(taken)
    }
}

impl Inner {
    fn show(&mut self, group: GroupId, change: &Change) -> Result<(), LogError> {
        let view = self.views.entry(group).or_default();
        match change {
            Change::Append(entries) => view.append(group, entries)?,
            Change::Truncate(since) => view.truncate(*since),
            Change::Purge(upto, purged) => {
                view.purge(*upto);
                view.set_meta(Meta::Purged, purged.clone());
            },
            Change::Meta(key, value) => view.set_meta(*key, value.clone()),
            Change::Remove => view.clear(),
        }
        Ok(())
    }
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
        let prepared = self.prepare(requests, &mut batch, &mut pending);
        #[cfg(feature = "plant-ack-early")]
        planted::acknowledge(&mut pending);
        let written = match prepared {
            Ok(()) => self.shared.disk.write(&mut batch),
            Err(reason) => Err(WriteFailure::Fatal(reason)),
        };
        match written {
            Ok(bytes) => {
                self.flush += 1;
                self.note_high_water();
                names::flushed(begun_at.elapsed(), batch.entries, bytes as u64);
                self.settle(pending);
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
        let mut inner = self.shared.inner.lock();
        for request in &pending {
            if let (Some(end), Some(view)) = (request.end, inner.views.get_mut(&request.group)) {
                view.durable_below(end, request.cuts);
            }
        }
        drop(inner);
        for request in pending {
            (request.done)(Ok(()));
        }
    }

    /// The disk was full: neither this batch nor what waits behind it exists any more.
    fn take_back(&self, pending: Vec<Pending>) {
        self.shared.space.note_full();
        let mut inner = self.shared.inner.lock();
        let waiting = mem::take(&mut inner.queue);
        inner.queued_bytes = 0;
        let groups = pending.iter().map(|request| request.group);
        for group in groups.chain(waiting.iter().map(|request| request.group)) {
            let view = super::open::view_of(self.shared.disk.as_ref(), group);
            inner.views.insert(group, view);
        }
        drop(inner);
        self.shared.room.notify_all();
        tracing::error!(
            requests = pending.len() + waiting.len(),
            "the disk is full: refused"
        );
        for done in pending
            .into_iter()
            .map(|p| p.done)
            .chain(waiting.into_iter().map(|r| r.done))
        {
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
