//! What a gateway does by itself: it compares what it holds with the owners when they change, tells ends until they are
//! recorded, and reports signs of life.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{debug, error};
use umbel_core::{
    device::Disconnect,
    ids::{ClientId, NodeId, ShardId, Term},
};
use umbel_storage::nodes::{Boot, Reach};

use super::{Inner, holds, route::Way};
use crate::{
    ports::EvictReason,
    remote::{self, Answer, Over, Resync, Verb},
};

/// How often the rounds look around if nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Comparisons and reports under way at once. They are small; many at once would only wait for each other.
const ERRANDS_MAX: usize = 8;
/// Clients in one part of a comparison, or in one report: 40 bytes each.
const PART: usize = 1_000;
/// Connects that were given up which are looked at in one go: each may be a question back.
const REVIEWED_MAX: usize = 256;
/// One part of a comparison is answered within this, or the comparison begins again.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// The rounds of a gateway. Shut them down; dropping this stops them, too.
pub struct Rounds {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Rounds {
    pub(super) fn start(inner: Arc<Inner>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(walk(inner, stopped));
        Self { stop, task }
    }

    /// Stops the rounds. What was not told yet is told by nobody: owners find it out as they do after a crash.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        if let Err(why) = self.task.await {
            error!(error = %why, "the rounds of the gateway failed");
        }
    }
}

/// Whom a shard was compared with, over which link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct With {
    node: NodeId,
    term: Term,
    link: u64,
}

/// What an errand came to.
enum Done {
    Compared {
        shard: ShardId,
        with: With,
        is_complete: bool,
    },
    Told(ShardId),
    Reviewed(ShardId),
}

/// What the rounds remember.
struct Round {
    inner: Arc<Inner>,
    errands: JoinSet<Done>,
    /// Shards that somebody is comparing, or telling of ends.
    comparing: BTreeSet<ShardId>,
    telling: BTreeSet<ShardId>,
    reviewing: BTreeSet<ShardId>,
    compared: BTreeMap<ShardId, With>,
    /// Comparisons that did not come to an end are not begun again before this.
    not_before: BTreeMap<ShardId, Instant>,
    links: BTreeMap<NodeId, (Reach, Option<Boot>, u64)>,
    next_tell: Instant,
    next_touch: Instant,
    next_any: Instant,
    any: usize,
}

async fn walk(inner: Arc<Inner>, mut stopped: watch::Receiver<bool>) {
    let now = Instant::now();
    let mut changes = inner.nodes.changes();
    let mut moves = inner.fleet.common.moves.subscribe();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = Round {
        errands: JoinSet::new(),
        comparing: BTreeSet::new(),
        telling: BTreeSet::new(),
        reviewing: BTreeSet::new(),
        compared: BTreeMap::new(),
        not_before: BTreeMap::new(),
        links: BTreeMap::new(),
        next_tell: now,
        next_touch: now,
        next_any: now,
        any: 0,
        inner: Arc::clone(&inner),
    };
    while !*stopped.borrow() {
        round.look();
        tokio::select! {
            _ = ticks.tick() => {},
            Ok(()) = changes.changed() => {},
            Ok(()) = moves.changed() => {},
            () = inner.prompt.notified() => {},
            Some(done) = round.errands.join_next() => round.done(done),
            told = stopped.changed() => if told.is_err() { return },
        }
    }
}

impl Round {
    fn look(&mut self) {
        let inner = Arc::clone(&self.inner);
        self.follow_links();
        let now = Instant::now();
        let dirty = std::mem::take(&mut *inner.dirty.lock());
        for shard in dirty {
            self.compared.remove(&shard);
            self.not_before.remove(&shard);
        }
        self.compare_any(now);
        for shard in inner.fleet.shards.iter() {
            match self.with(shard) {
                Some(with) => {
                    inner.orphans.found(shard.id);
                    self.compare(shard.id, with, now);
                },
                None => {
                    inner.orphans.missed(shard.id, now);
                },
            }
        }
        if now >= self.next_tell {
            self.next_tell = now + inner.timing.retry_every;
            self.tell_ends();
            self.review_doubts();
            inner.meters.show(inner.gateway.totals());
        }
        if now >= self.next_touch {
            self.next_touch = now + inner.timing.touches_every;
            self.tell_touches();
        }
    }

    /// A link that was broken and is back may have lost something.
    fn follow_links(&mut self) {
        for peer in self.inner.nodes.peers() {
            let link = self
                .links
                .entry(peer.node)
                .or_insert((peer.reach, peer.boot, 0));
            let is_back = peer.reach == Reach::Connected && link.0 != Reach::Connected;
            if is_back || link.1 != peer.boot {
                link.2 += 1;
            }
            link.0 = peer.reach;
            link.1 = peer.boot;
        }
    }

    /// Who owns a shard and can be spoken to.
    fn with(&self, shard: &crate::shard::Shard) -> Option<With> {
        match self.inner.way(shard) {
            Way::Here => Some(With {
                node: self.inner.me,
                // Not before it is known what is recorded.
                term: shard.term().ok()?,
                link: 0,
            }),
            Way::There(owner) => Some(With {
                node: owner.node,
                term: owner.term,
                link: self.links.get(&owner.node).map_or(0, |link| link.2),
            }),
            Way::Nowhere => None,
        }
    }

    /// Compares each shard now and then, whatever happened: what was lost in a way that nobody thought of heals.
    fn compare_any(&mut self, now: Instant) {
        let shards = self.inner.fleet.shards.len();
        if now < self.next_any || shards == 0 {
            return;
        }
        let every = self.inner.timing.compare_all_every;
        self.next_any = now + every / u32::try_from(shards).unwrap_or(u32::MAX);
        self.any = (self.any + 1) % shards;
        let shard = ShardId(u16::try_from(self.any).unwrap_or_default());
        self.compared.remove(&shard);
    }

    fn compare(&mut self, shard: ShardId, with: With, now: Instant) {
        let is_done = self.compared.get(&shard) == Some(&with);
        let is_early = self.not_before.get(&shard).is_some_and(|at| now < *at);
        if is_done || is_early || self.errands.len() >= ERRANDS_MAX {
            return;
        }
        if !self.comparing.insert(shard) {
            return;
        }
        let inner = Arc::clone(&self.inner);
        self.errands.spawn(async move {
            let is_complete = compare(&inner, shard, with).await;
            inner.meters.compared(is_complete);
            Done::Compared {
                shard,
                with,
                is_complete,
            }
        });
    }

    fn tell_ends(&mut self) {
        for index in 0..self.inner.fleet.shards.len() {
            let shard = ShardId(u16::try_from(index).unwrap_or_default());
            let ends = self.inner.gateway.ends(shard, PART);
            if ends.is_empty() || self.errands.len() >= ERRANDS_MAX {
                continue;
            }
            if self.telling.insert(shard) {
                let inner = Arc::clone(&self.inner);
                self.errands.spawn(async move {
                    tell(&inner, shard, ends).await;
                    Done::Told(shard)
                });
            }
        }
    }

    /// Connects that were given up: their owners look what became of them.
    fn review_doubts(&mut self) {
        let when = (Instant::now(), self.inner.timing.sure_after);
        for index in 0..self.inner.fleet.shards.len() {
            let shard = ShardId(u16::try_from(index).unwrap_or_default());
            if self.errands.len() >= ERRANDS_MAX || self.reviewing.contains(&shard) {
                continue;
            }
            let clients = self.inner.gateway.doubts(shard, when, REVIEWED_MAX);
            if clients.is_empty() {
                continue;
            }
            self.reviewing.insert(shard);
            let inner = Arc::clone(&self.inner);
            self.errands.spawn(async move {
                holds::review(&inner, shard, clients).await;
                Done::Reviewed(shard)
            });
        }
    }

    /// Signs of life, to each owner in few messages. One that is lost is made up for by the next.
    fn tell_touches(&self) {
        let inner = &self.inner;
        let now = inner.fleet.common.clock.tick();
        let mut touched: BTreeMap<NodeId, Vec<(ClientId, u32)>> = BTreeMap::new();
        for shard in inner.fleet.shards.iter() {
            let Some(with) = self.with(shard) else {
                continue;
            };
            let clients = inner.gateway.touched(shard.id, now);
            if with.node == inner.me {
                // Also those who connected when another node was the owner.
                inner.fleet.touched(clients);
            } else {
                touched.entry(with.node).or_default().extend(clients);
            }
        }
        for (node, clients) in touched {
            for part in clients.chunks(PART) {
                let verb = Verb::Touched {
                    clients: part.to_vec(),
                };
                if let Err(why) = inner.peers.tell(node, &verb) {
                    debug!(error = %why, "signs of life were not reported");
                    break;
                }
            }
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Compared {
                shard,
                with,
                is_complete,
            }) => {
                self.comparing.remove(&shard);
                if is_complete {
                    self.compared.insert(shard, with);
                    self.not_before.remove(&shard);
                } else {
                    let at = Instant::now() + LOOK_EVERY;
                    self.not_before.insert(shard, at);
                }
            },
            Ok(Done::Told(shard)) => {
                self.telling.remove(&shard);
            },
            Ok(Done::Reviewed(shard)) => {
                self.reviewing.remove(&shard);
            },
            Err(why) => {
                // Which one is not known: everything is compared again.
                error!(error = %why, "an errand of the gateway failed");
                self.comparing.clear();
                self.telling.clear();
                self.reviewing.clear();
                self.compared.clear();
            },
        }
    }
}

/// Says what this node holds of a shard, and ends what the owner calls over; true when all was said and taken.
async fn compare(inner: &Arc<Inner>, shard: ShardId, with: With) -> bool {
    let number = inner.numbers.fetch_add(1, Ordering::Relaxed);
    let held = inner.gateway.held(shard);
    let mut connected = held.connected.chunks(PART);
    let mut ended = held.ended.chunks(PART);
    let mut opening = Some(held.opening);
    let parts = connected.len().max(ended.len()).max(1);
    for index in 0..parts {
        let part = Resync {
            shard,
            term: with.term,
            boot: inner.boot,
            round: number,
            is_first: index == 0,
            is_last: index + 1 == parts,
            connected: connected.next().unwrap_or_default().to_vec(),
            opening: opening.take().unwrap_or_default(),
            ended: ended.next().unwrap_or_default().to_vec(),
        };
        let ends = part.ended.clone();
        let verb = Verb::Resync(Box::new(part));
        let answer = if with.node == inner.me {
            remote::serve(&inner.fleet, inner.me, verb).await
        } else {
            match inner.peers.ask(with.node, &verb, PART_WITHIN).await {
                Ok(answer) => answer,
                Err(why) => {
                    debug!(%shard, error = %why, "the owner could not be asked");
                    return false;
                },
            }
        };
        let Answer::Resynced(resynced) = answer else {
            debug!(%shard, ?answer, "the owner took no comparison");
            return false;
        };
        settle(inner, shard, &ends, &resynced.recorded);
        for over in resynced.over {
            end(inner, shard, &over);
        }
        if resynced.is_incomplete {
            return false;
        }
    }
    true
}

/// Ends a connection that its owner calls over.
fn end(inner: &Inner, shard: ShardId, over: &Over) {
    if !inner.gateway.holds(shard, &over.client, over.epoch) {
        return;
    }
    let reason = if over.by_newer {
        EvictReason::TakenOver
    } else {
        EvictReason::Administrative
    };
    // Its owner knows of its end; if it is still to come here, it means nothing.
    inner.gateway.forget(shard, &over.client, over.epoch);
    let outbox = &inner.fleet.common.outbox;
    outbox.evict(&over.client, over.epoch, inner.me, reason);
}

fn settle(inner: &Inner, shard: ShardId, ends: &[(ClientId, Disconnect)], recorded: &[ClientId]) {
    let recorded: BTreeSet<_> = recorded.iter().collect();
    for (client, end) in ends {
        if recorded.contains(client) {
            inner.gateway.recorded(shard, client, end.epoch);
        }
    }
}

/// Tells an owner of ends that it has not recorded.
async fn tell(inner: &Inner, shard: ShardId, ends: Vec<(ClientId, Disconnect)>) {
    let Some(of) = inner.fleet.numbered(shard) else {
        return;
    };
    let verb = Verb::Ended {
        shard,
        ends: ends.clone(),
    };
    if let Ok(Answer::Recorded(recorded)) = inner.route(&of, verb).await {
        settle(inner, shard, &ends, &recorded);
    }
}
