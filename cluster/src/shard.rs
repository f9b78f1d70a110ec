//! One shard on this node: its queue, and its group while it has one.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, watch};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::log::GroupLog;

use crate::{
    config::Limits,
    queue::Queue,
    raft::{
        Damage,
        group::{Begin, Group, Parts, probation},
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
    /// A leader that sends entries which nobody here can take.
    wanted: Mutex<Option<NodeId>>,
    /// Held while the group is stopped or started; true once the replica has left this node.
    moving: AsyncMutex<bool>,
}

enum Slot {
    Running(Arc<Group>),
    /// Why not, and whether what is on disk could be replaced by what others have.
    Down {
        why: String,
        replaceable: bool,
    },
}

impl Slot {
    fn down(why: String) -> Self {
        Self::Down {
            why,
            replaceable: false,
        }
    }
}

impl Shard {
    /// Starts the shard's group. A shard that cannot start is quarantined, with the reason, and is no reason for
    /// the others not to.
    pub(crate) async fn start(id: ShardId, limits: Limits, parts: Parts, begin: Begin) -> Self {
        let shard = Self {
            id,
            queue: Queue::new(limits),
            slot: RwLock::new(Slot::down("the group has not started yet".to_owned())),
            applied: watch::Sender::new(0),
            wanted: Mutex::default(),
            moving: AsyncMutex::new(false),
        };
        shard.raise(parts, begin).await;
        shard
    }

    /// Stops the group, checks and rebuilds what is on disk, and starts it again, in a new term.
    pub(crate) async fn restart(&self, parts: Parts) {
        let ended = self.moving.lock().await;
        if !*ended {
            self.halt("the state is being rebuilt".to_owned()).await;
            let begin = Begin::again(&parts);
            self.raise(parts, begin).await;
        }
    }

    /// Throws away what is on disk and begins again with nothing, for a leader elsewhere to fill. The replica may not vote
    /// before it has caught up.
    pub(crate) async fn begin_anew(&self, parts: Parts) -> Result<(), String> {
        let ended = self.moving.lock().await;
        if *ended {
            return Ok(());
        }
        self.halt("the replica is being replaced".to_owned()).await;
        parts.erase(self.id).await?;
        self.raise(parts, Begin::Waiting).await;
        Ok(())
    }

    /// Stops the group; from now on the shard serves nothing.
    pub(crate) async fn stop(&self, why: String) {
        let _moving = self.moving.lock().await;
        self.halt(why).await;
    }

    async fn halt(&self, why: String) {
        if let Some(group) = self.group() {
            tracing::error!(shard = self.id.0, %why, "shard stopped");
            self.set(Slot::down(why));
            group.shutdown().await;
        }
    }

    /// Stops the group for good.
    pub(crate) async fn end(&self) {
        let mut ended = self.moving.lock().await;
        *ended = true;
        let group = self.group();
        self.set(Slot::down("the replica has left this node".to_owned()));
        if let Some(group) = group {
            group.shutdown().await;
        }
    }

    /// A leader sends entries that nobody here takes.
    pub(crate) fn wanted_by(&self, leader: NodeId) {
        *self.wanted.lock() = Some(leader);
    }

    /// The leader that sent entries which nobody here took, since this was last asked.
    pub(crate) fn take_wanted(&self) -> Option<NodeId> {
        self.wanted.lock().take()
    }

    /// Whether the group does not start over what is on disk, which others have whole.
    pub(crate) fn is_replaceable(&self) -> bool {
        matches!(
            &*self.slot.read(),
            Slot::Down {
                replaceable: true,
                ..
            }
        )
    }

    /// From now on the replica neither votes nor campaigns until it has caught up. One that does not run remembers it for
    /// when it does; one that is just being stopped or started is to be told again.
    pub(crate) async fn begin_probation(&self, log: &dyn GroupLog) -> Result<(), String> {
        // Not waited for: a rebuilding may take long, and all others would be unheard until then.
        let Ok(ended) = self.moving.try_lock() else {
            return Err("the replica is being started".to_owned());
        };
        if *ended {
            return Ok(());
        }
        match self.group() {
            Some(group) => group.begin_probation().await,
            None => probation::remember(log, self.id, true).await,
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
        self.set(Slot::Down {
            why: damage.to_string(),
            replaceable: !damage.is_newer(),
        });
    }

    fn set(&self, slot: Slot) {
        *self.slot.write() = slot;
    }

    /// The group, while it runs.
    pub(crate) fn group(&self) -> Option<Arc<Group>> {
        match &*self.slot.read() {
            Slot::Running(group) => Some(Arc::clone(group)),
            Slot::Down { .. } => None,
        }
    }

    /// The term in which this node owns the shard and serves it.
    pub(crate) fn term(&self) -> Option<Term> {
        match &*self.slot.read() {
            Slot::Running(group) => group.term(),
            Slot::Down { .. } => None,
        }
    }

    /// Whether it serves nothing.
    pub(crate) fn is_quarantined(&self) -> bool {
        match &*self.slot.read() {
            Slot::Running(group) => group.is_quarantined(),
            Slot::Down { .. } => true,
        }
    }

    /// Why it serves nothing, if so.
    pub(crate) fn quarantined(&self) -> Option<String> {
        match &*self.slot.read() {
            Slot::Running(group) => group.quarantined(),
            Slot::Down { why, .. } => Some(why.clone()),
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
            leader: group
                .as_ref()
                .and_then(|group| group.owner())
                .map(|owner| owner.node),
            applied: progress.applied,
            last_log: group.as_ref().and_then(|group| group.last_log()),
            snapshot: progress.snapshot,
            queued: self.queue.len(),
            probation: group.as_ref().is_some_and(|group| group.is_on_probation()),
            quarantined: self.quarantined(),
        }
    }
}
