//! One shard on this node: its queue, and its group while it has one.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use umbel_core::ids::{ShardId, Term};

use crate::{
    config::Limits,
    queue::Queue,
    raft::{
        Damage,
        group::{Begin, Group, Parts},
        machine::Progress,
    },
    status::{Role, ShardStatus},
};

/// A shard.
pub(crate) struct Shard {
    /// Which.
    pub(crate) id: ShardId,
    /// Commands that wait.
    pub(crate) queue: Queue,
    slot: RwLock<Slot>,
    applied: watch::Sender<u64>,
}

enum Slot {
    Running(Arc<Group>),
    /// Why not.
    Down(String),
}

impl Shard {
    /// Starts the shard's group. A shard that cannot start is quarantined, with the reason, and is no reason for
    /// the others not to.
    pub(crate) async fn start(id: ShardId, limits: Limits, parts: Parts, begin: Begin) -> Self {
        let shard = Self {
            id,
            queue: Queue::new(limits),
            slot: RwLock::new(Slot::Down("the group has not started yet".to_owned())),
            applied: watch::Sender::new(0),
        };
        shard.raise(parts, begin).await;
        shard
    }

    /// Stops the group, checks and rebuilds what is on disk, and starts it again, in a new term.
    pub(crate) async fn restart(&self, parts: Parts) {
        self.stop("the state is being rebuilt".to_owned()).await;
        let begin = Begin::again(&parts);
        self.raise(parts, begin).await;
    }

    /// Stops the group; from now on the shard serves nothing.
    pub(crate) async fn stop(&self, why: String) {
        if let Some(group) = self.group() {
            tracing::error!(shard = self.id.0, %why, "shard stopped");
            self.set(Slot::Down(why));
            group.shutdown().await;
        }
    }

    /// Stops the group for good.
    pub(crate) async fn end(&self) {
        let group = self.group();
        self.set(Slot::Down("the replica has left this node".to_owned()));
        if let Some(group) = group {
            group.shutdown().await;
        }
    }

    async fn raise(&self, parts: Parts, begin: Begin) {
        match Group::start(self.id, parts, begin, self.applied.clone()).await {
            Ok(group) => self.set(Slot::Running(Arc::new(group))),
            Err(damage) => self.quarantine(&damage),
        }
    }

    /// Index of the last applied entry, as it grows.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn quarantine(&self, damage: &Damage) {
        tracing::error!(shard = self.id.0, %damage, "shard quarantined");
        self.set(Slot::Down(damage.to_string()));
    }

    fn set(&self, slot: Slot) {
        *self.slot.write() = slot;
    }

    /// The group, while it runs.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        match &*self.slot.read() {
            Slot::Running(group) => Some(Arc::clone(group)),
            Slot::Down(_) => None,
        }
    }

    /// The term in which this node owns the shard and serves it.
    pub(crate) fn term(&self) -> Option<Term> {
        match &*self.slot.read() {
            Slot::Running(group) => group.term(),
            Slot::Down(_) => None,
        }
    }

    /// Whether it serves nothing.
    pub(crate) fn is_quarantined(&self) -> bool {
        match &*self.slot.read() {
            Slot::Running(group) => group.is_quarantined(),
            Slot::Down(_) => true,
        }
    }

    /// Why it serves nothing, if so.
    pub(crate) fn quarantined(&self) -> Option<String> {
        match &*self.slot.read() {
            Slot::Running(group) => group.quarantined(),
            Slot::Down(why) => Some(why.clone()),
        }
    }

    /// What an operator sees.
    pub(crate) fn status(&self) -> ShardStatus {
        let group = self.group();
        let progress = group.as_ref().map_or(
            Progress {
                applied: 0,
                snapshot: None,
                fresh_bytes: 0,
            },
            |group| group.progress(),
        );
        ShardStatus {
            shard: self.id,
            term: self.term(),
            role: group.as_ref().map_or(Role::Stopped, |group| group.role()),
            applied: progress.applied,
            last_log: group.as_ref().and_then(|group| group.last_log()),
            snapshot: progress.snapshot,
            queued: self.queue.len(),
            probation: group.as_ref().is_some_and(|group| group.is_on_probation()),
            quarantined: self.quarantined(),
        }
    }
}
