//! What the log's threads share: the groups as readers see them, and the queue to the writer.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{
    Done, GroupId, LogError, Meta,
    disk::Disk,
    open::view_of,
    pulse::{self, Pulse},
    view::View,
};
use crate::space::Space;

/// Most bytes written in one flush, so that one large append does not delay all others for long.
const FLUSH_BYTES_MAX: usize = 8 << 20;
/// Most bytes waiting; beyond that, whoever appends waits.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// What a request costs the queue besides its data.
const REQUEST_BYTES: usize = 64;

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
    pub(super) fn bytes(&self) -> usize {
        REQUEST_BYTES
            + match self {
                Self::Append(entries) => entries.iter().map(|(_, data)| data.len()).sum(),
                Self::Purge(_, value) | Self::Meta(_, value) => value.len(),
                Self::Truncate(_) | Self::Remove => 0,
            }
    }
}

pub(super) struct Request {
    pub(super) group: GroupId,
    pub(super) change: Change,
    /// Cuts of the group's view when this was requested: entries of an older count may have been replaced since.
    pub(super) cuts: u64,
    pub(super) done: Done,
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
    pub(super) pulse: Pulse,
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
            pulse: Pulse::default(),
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

    pub(super) fn not_failed(&self) -> Result<(), LogError> {
        let failed = self.inner.lock().failed.clone();
        failed.map_or(Ok(()), |reason| Err(LogError::Failed(reason)))
    }

    /// Waits for the end to be asked for, at most this long.
    pub(super) fn wait_for_stop(&self, at_most: Duration) {
        let mut inner = self.inner.lock();
        if !inner.stopping && inner.failed.is_none() {
            self.ended.wait_for(&mut inner, at_most);
        }
    }

    /// The end of the log: nothing is acknowledged from here on, and the node is told to stop.
    pub(super) fn fail(&self, reason: &str) {
        let mut inner = self.inner.lock();
        if inner.failed.is_some() {
            return;
        }
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

    /// What waits, as much as one flush takes; waits for it. Nothing, if the disk is slow and has to be tried. `None` is
    /// the end.
    pub(super) fn next(&self) -> Option<Vec<Request>> {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() {
            if inner.stopping || inner.failed.is_some() {
                return None;
            }
            if !self.pulse.look(Instant::now()).is_slow {
                self.work.wait(&mut inner);
            } else if self
                .work
                .wait_for(&mut inner, pulse::PROBE_EVERY)
                .timed_out()
            {
                return Some(Vec::new());
            }
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

impl Shared {
    /// Notes what a flush made durable: one past the last entry, and the cuts it was requested under.
    pub(super) fn durable(&self, flushed: impl Iterator<Item = (GroupId, u64, u64)>) {
        let mut inner = self.inner.lock();
        for (group, end, cuts) in flushed {
            if let Some(view) = inner.views.get_mut(&group) {
                view.durable_below(end, cuts);
            }
        }
    }

    /// The disk was full: what was requested for these groups, and all that waits, does not exist any more. Hands back
    /// those who wait.
    pub(super) fn take_back(&self, groups: impl Iterator<Item = GroupId>) -> Vec<Done> {
        self.space.note_full();
        let mut inner = self.inner.lock();
        let waiting = mem::take(&mut inner.queue);
        inner.queued_bytes = 0;
        for group in groups.chain(waiting.iter().map(|request| request.group)) {
            inner
                .views
                .insert(group, view_of(self.disk.as_ref(), group));
        }
        drop(inner);
        self.room.notify_all();
        waiting.into_iter().map(|request| request.done).collect()
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
