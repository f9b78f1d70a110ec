//! Which homes there are, and for which shards this node may have any.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use umbel_core::ids::{ClientId, ShardId, Term};

use crate::broker::{
    Broker,
    mailbox::Mailbox,
    sessions::{Locked, Sessions},
};

/// How far a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Not owned, or not looked at.
    #[default]
    Absent,
    /// Its rows are being read in this term.
    Recovering(Term),
    /// Its homes are here in this term.
    Ready(Term),
}

#[derive(Debug, Default)]
struct Shard {
    readiness: Readiness,
    /// No session that begins takes a number below this.
    floor: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Homes {
    table: Sessions,
    /// Shards come and go. If not, the node is alone and all are here.
    following: AtomicBool,
    shards: Box<[Mutex<Shard>]>,
    /// Held while the rows of a shard are read: of two terms, one after the other, one reads at a time.
    taking_up: Box<[tokio::sync::Mutex<()>]>,
}

impl Homes {
    /// No home, for so many shards.
    pub(crate) fn new(shards: u16) -> Self {
        Self {
            table: Sessions::default(),
            following: AtomicBool::new(false),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            taking_up: (0..shards).map(|_| tokio::sync::Mutex::default()).collect(),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The home of a client.
    pub(crate) fn get(&self, client: &ClientId) -> Option<Arc<Mailbox>> {
        self.table.get(client)
    }

    /// Locks the place of a client.
    pub(crate) fn lock(&self, client: &ClientId) -> Locked<'_> {
        self.table.lock(client)
    }

    /// See [`Sessions::page`].
    pub(crate) fn page(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Mailbox>> {
        self.table.page(after, limit)
    }

    /// Looks at every home.
    pub(crate) fn for_each(&self, visit: impl FnMut(&Arc<Mailbox>)) {
        self.table.for_each(visit);
    }

    /// From now on shards come and go; false if that was said before.
    pub(super) fn begin_following(&self) -> bool {
        !self.following.swap(true, Ordering::AcqRel)
    }

    /// Whether shards come and go.
    pub(crate) fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    pub(super) fn readiness(&self, shard: ShardId) -> Readiness {
        self.shard(shard)
            .map_or(Readiness::Absent, |shard| shard.lock().readiness)
    }

    /// Changes how far a shard is, if it is as expected.
    pub(super) fn turn(&self, shard: ShardId, from: Readiness, to: Readiness) -> bool {
        let Some(shard) = self.shard(shard) else {
            return false;
        };
        let mut shard = shard.lock();
        let is_so = shard.readiness == from;
        if is_so {
            shard.readiness = to;
        }
        is_so
    }

    /// Waits until nobody reads the rows of a shard; nobody else does while the guard is held.
    pub(super) async fn take_turn(
        &self,
        shard: ShardId,
    ) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let turn = self.taking_up.get(usize::from(shard.0))?;
        Some(turn.lock().await)
    }

    /// Where the numbers of a session begin that begins now.
    pub(crate) fn floor(&self, shard: ShardId) -> u64 {
        self.shard(shard)
            .map_or(1, |shard| shard.lock().floor.max(1))
    }

    /// Sessions that begin from now on take no number below this.
    pub(crate) fn raise_floor(&self, shard: ShardId, floor: u64) {
        if let Some(shard) = self.shard(shard) {
            let mut shard = shard.lock();
            shard.floor = shard.floor.max(floor);
        }
    }

    fn shard(&self, shard: ShardId) -> Option<&Mutex<Shard>> {
        self.shards.get(usize::from(shard.0))
    }
}

impl Broker {
    /// Whether the homes of a shard are here now.
    pub(crate) fn home_ready(&self, shard: ShardId) -> bool {
        if !self.homes.is_following() {
            return true;
        }
        match self.homes.readiness(shard) {
            Readiness::Ready(term) => self.ledger.term(shard) == Some(term),
            Readiness::Absent | Readiness::Recovering(_) => false,
        }
    }

    /// The term in which this node has a shard's homes.
    pub(super) fn term_in_office(&self, shard: ShardId) -> Term {
        match self.homes.readiness(shard) {
            Readiness::Ready(term) | Readiness::Recovering(term) => term,
            Readiness::Absent => Term::default(),
        }
    }
}
