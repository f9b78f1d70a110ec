//! Shards that come to this node and go, and what follows for homes and windows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use umbel_core::ids::{NodeId, SessionEpoch, ShardId, Term};
use umbel_storage::{
    Table, Write,
    nodes::{Boot, Owner, Peer, Reach},
};

use super::shards::Readiness;
use crate::broker::{Broker, fleet::Known, recover::Recovered, rows};

/// How often it is looked whether something changed of which nobody told.
const TICK: Duration = Duration::from_secs(1);

/// Ticks between two comparisons of windows with their homes.
const HOLD_TICKS: u32 = 5;

/// How often it is tried to learn of the fleet whether a recovered session is one.
const ORPHAN_TRIES: u32 = 60;

/// What was seen when it was last looked.
#[derive(Default)]
struct Seen {
    owners: BTreeMap<ShardId, Owner>,
    peers: Vec<Peer>,
    ticks: u32,
}

impl Broker {
    /// Follows the shards: homes come and go with them, windows attach to where they are. Only the first call counts.
    pub(crate) fn start_home(self: &Arc<Self>) {
        if !self.homes.begin_following() {
            return;
        }
        let broker = Weak::clone(&self.this);
        let mut changes = self.nodes.changes();
        tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut tick = tokio::time::interval(TICK);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let Some(broker) = broker.upgrade() else {
                    return;
                };
                changes.mark_unchanged();
                broker.follow_shards();
                broker.follow_owners(&mut seen);
                broker.follow_peers(&mut seen);
                drop(broker);
                tokio::select! {
                    news = changes.changed() => {
                        if news.is_err() {
                            return;
                        }
                    },
                    _ = tick.tick() => seen.ticks += 1,
                }
            }
        });
    }

    /// Takes up shards this node owns now, and gives up those it does not.
    pub(in crate::broker) fn follow_shards(self: &Arc<Self>) {
        for shard in (0..self.ledger.shards()).map(ShardId) {
            let (before, term) = (self.homes.readiness(shard), self.ledger.term(shard));
            match (before, term) {
                (Readiness::Ready(known) | Readiness::Recovering(known), Some(term))
                    if known == term => {},
                (_, Some(term)) => {
                    if self.homes.turn(shard, before, Readiness::Recovering(term)) {
                        self.retire(shard, before);
                        let broker = Arc::clone(self);
                        tokio::spawn(async move { broker.take_up(shard, term).await });
                    }
                },
                // a lease may lapse for a moment: the homes stay, and answer nobody, until another owner is known
                (Readiness::Ready(known), None) if self.is_elsewhere(shard, known) => {
                    if self.homes.turn(shard, before, Readiness::Absent) {
                        self.retire(shard, before);
                    }
                },
                (_, None) => {},
            }
        }
    }

    fn is_elsewhere(&self, shard: ShardId, known: Term) -> bool {
        self.nodes
            .owner(shard)
            .is_some_and(|owner| owner.term > known && owner.node != self.nodes.me())
    }

    /// The homes of a shard are elsewhere. Their rows stay: they are the next home's.
    fn retire(self: &Arc<Self>, shard: ShardId, before: Readiness) {
        if let Readiness::Ready(term) = before {
            self.shard_lost(shard);
            tracing::debug!(%shard, term = term.0, "sessions given up");
        }
        let mut here = Vec::new();
        self.homes.for_each(|home| {
            if home.shard() == shard {
                here.push(Arc::clone(home));
            }
        });
        for home in here {
            let mut place = self.homes.lock(home.client());
            if place
                .get(home.client())
                .is_some_and(|known| Arc::ptr_eq(known, &home))
            {
                place.remove(home.client());
            }
            let subscriptions = home.end(None);
            self.leave_all(&subscriptions, &home);
        }
    }

    /// Reads what the homes before left, and begins to serve.
    async fn take_up(self: Arc<Self>, shard: ShardId, term: Term) {
        let recovering = Readiness::Recovering(term);
        let is_taken_up = {
            // a reading for a term that is over may still go on: what it leaves has to be cleared away before
            let _turn = self.homes.take_turn(shard).await;
            self.homes.readiness(shard) == recovering && self.take_up_now(shard, term).await
        };
        if is_taken_up {
            self.end_orphans_of(shard).await;
            return;
        }
        // the next look tries again, if the shard is still ours
        tokio::time::sleep(TICK).await;
        self.homes.turn(shard, recovering, Readiness::Absent);
    }

    async fn take_up_now(self: &Arc<Self>, shard: ShardId, term: Term) -> bool {
        let recovering = Readiness::Recovering(term);
        let found = self.recover_in(shard, term).await;
        let found = found.filter(|_| {
            let ready = Readiness::Ready(term);
            self.homes.turn(shard, recovering, ready)
        });
        let Some(found) = found else {
            self.retire(shard, recovering);
            return false;
        };
        self.shard_ready(shard, term);
        tracing::debug!(
            %shard,
            sessions = found.sessions,
            queued = found.queued,
            unreadable = found.unreadable,
            "sessions taken up"
        );
        true
    }

    async fn recover_in(self: &Arc<Self>, shard: ShardId, term: Term) -> Option<Recovered> {
        let broker = Arc::clone(self);
        let queues = tokio::task::spawn_blocking(move || broker.read_queues(shard))
            .await
            .ok()?;
        if !queues.is_whole {
            return None; // without every number known, one might be given out again
        }
        // above every number that was given out: see the module
        let generation = queues.generation.max(queues.highest >> GENERATION_SHIFT) + 1;
        let row = Write::put(
            Table::Queue,
            rows::generation_key(),
            rows::encode_generation(generation),
        );
        self.ledger.propose(shard, term, vec![row]).await.ok()?;
        self.homes
            .raise_floor(shard, generation << GENERATION_SHIFT);
        let broker = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let mut found = Recovered::default();
            broker.recover_shard(shard, term, queues, &mut found);
            found
        })
        .await
        .ok()
    }

    /// Ends recovered sessions of a shard that the fleet does not know, once the fleet knows its own.
    async fn end_orphans_of(self: &Arc<Self>, shard: ShardId) {
        let mut recovered = Vec::new();
        self.homes.for_each(|home| {
            if home.shard() == shard && home.epoch() == SessionEpoch::default() {
                recovered.push(Arc::clone(home));
            }
        });
        let (mut tries, mut ended) = (0, 0_usize);
        while !recovered.is_empty() && tries < ORPHAN_TRIES && self.home_ready(shard) {
            recovered.retain(|home| {
                let known = self
                    .fleet
                    .get()
                    .map_or(Known::Unclear, |fleet| fleet.known(home.client()));
                if known == Known::NoSession && home.epoch() == SessionEpoch::default() {
                    self.end_home(home.client(), SessionEpoch::default());
                    ended += 1;
                }
                known == Known::Unclear
            });
            tries += 1;
            tokio::time::sleep(TICK).await;
        }
        if ended > 0 {
            tracing::warn!(%shard, sessions = ended, "rows of sessions that are over removed");
        }
    }

    /// Windows attach to where the homes are now.
    fn follow_owners(self: &Arc<Self>, seen: &mut Seen) {
        let mut has_moved = false;
        for shard in (0..self.ledger.shards()).map(ShardId) {
            let owner = self.nodes.owner(shard);
            let before = match owner {
                Some(owner) => seen.owners.insert(shard, owner),
                None => continue,
            };
            has_moved |= before != owner;
        }
        if has_moved || seen.ticks >= HOLD_TICKS {
            self.attach_moved();
        }
    }

    /// Windows of gateways that are gone are no windows; and after a break, nobody knows what was lost in it.
    fn follow_peers(self: &Arc<Self>, seen: &mut Seen) {
        let peers = self.nodes.peers();
        let has_changed = peers != seen.peers;
        if has_changed {
            let state: BTreeMap<NodeId, Peer> =
                peers.iter().map(|peer| (peer.node, *peer)).collect();
            self.detach_lost(|node, boot: Boot| {
                state.get(&node).is_none_or(|peer| {
                    peer.reach == Reach::Gone || peer.boot.is_some_and(|now| now > boot)
                })
            });
            seen.peers = peers;
        }
        if has_changed || seen.ticks >= HOLD_TICKS {
            seen.ticks = 0;
            self.compare_windows();
        }
    }
}

/// Bits of a sequence number below its generation.
const GENERATION_SHIFT: u32 = 32;
