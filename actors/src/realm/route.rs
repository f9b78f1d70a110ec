//! From a question to whoever owns its subject: asked, asked again where it moved to, and given up in time.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use umbel_core::ids::ShardId;
use umbel_storage::{
    PeerError,
    nodes::{Owner, Reach},
};

use super::{Inner, turns::Turn};
use crate::{
    metrics,
    refused::Refused,
    remote::{self, Answer, Verb},
    shard::Shard,
};

/// Sendings of one question. Each follows news of an owner or a pause, so more than a few mean that the shard moves
/// back and forth, and the deadline ends it.
const SENDINGS_MAX: u32 = 24;
/// Before the same node is asked again, or the next look at who owns a shard if nobody brings news.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a shard is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Here,
    There(Owner),
    /// Nobody is known to own it, or who does cannot be reached.
    Nowhere,
}

/// What is to be done after a sending.
enum Next {
    Return(Answer),
    Refuse(Refused),
    /// Somebody else may know better; nothing was done.
    Elsewhere(Option<Owner>),
    /// It may have been done.
    Doubt,
}

impl Inner {
    pub(super) fn way(&self, shard: &Shard) -> Way {
        if shard.is_owned() {
            return Way::Here;
        }
        match self.nodes.owner(shard.id) {
            Some(owner) if owner.node != self.me && self.is_connected(owner) => Way::There(owner),
            Some(_) | None => Way::Nowhere,
        }
    }

    fn is_connected(&self, owner: Owner) -> bool {
        let peers = self.nodes.peers();
        let mut connected = peers.iter().filter(|peer| peer.reach == Reach::Connected);
        connected.any(|peer| peer.node == owner.node)
    }

    /// Asks whoever owns the shard. A change carries its request id, so it is applied once however often it is sent.
    pub(super) async fn route(
        &self,
        shard: &Arc<Shard>,
        mut verb: Verb,
    ) -> Result<Answer, Refused> {
        let began = Instant::now();
        let label = verb.label();
        let mut deadline = began + self.timing.deadline;
        let mut is_in_doubt = false;
        let mut hint = None;
        let mut sendings = 0_u32;
        let outcome = loop {
            // Subscribed before looking, so that no news is missed.
            let news = News::of(self);
            let way = hint
                .take()
                .map_or_else(|| self.way(shard), |owner| self.hinted(owner));
            let turn = match self.turn(shard, &verb, way, &mut deadline).await {
                Ok(turn) => turn,
                Err(_) if is_in_doubt => break Err(Refused::Unavailable),
                Err(why) => break Err(why),
            };
            let next = match way {
                Way::Nowhere => {
                    if self.is_hopeless(shard.id, deadline) {
                        break Err(Refused::Unavailable);
                    }
                    Next::Elsewhere(None)
                },
                Way::Here if self.fleet.common.is_stopping() => break Err(Refused::Stopping),
                Way::Here | Way::There(_) if sendings >= SENDINGS_MAX => {
                    break Err(Refused::Unavailable);
                },
                Way::Here => {
                    sendings += 1;
                    let answer = remote::serve(&self.fleet, self.me, verb.clone()).await;
                    judge(Ok(answer))
                },
                Way::There(owner) => {
                    sendings += 1;
                    let within = deadline.saturating_duration_since(Instant::now());
                    judge(self.peers.ask(owner.node, &verb, within).await)
                },
            };
            drop(turn);
            match next {
                Next::Return(answer) => {
                    self.orphans.found(shard.id);
                    break Ok(answer);
                },
                Next::Refuse(why) => break Err(why),
                Next::Elsewhere(better) if sendings < 2 && better.is_some() => hint = better,
                Next::Elsewhere(_) => news.wait(self, (shard, way), deadline).await,
                Next::Doubt => {
                    is_in_doubt = true;
                    verb.set_again();
                    news.wait(self, (shard, way), deadline).await;
                },
            }
            if Instant::now() >= deadline {
                break Err(Refused::Unavailable);
            }
        };
        if sendings > 1 {
            self.meters.retries.increment(u64::from(sendings - 1));
        }
        let outcome = match outcome {
            // Whatever became of the last sending: an earlier one may have been applied.
            Err(why) if is_in_doubt && verb.is_change() && !is_final(why) => Err(Refused::Unknown),
            other => other,
        };
        metrics::count_forward(label, &outcome, began.elapsed());
        outcome
    }

    /// The turn of a connect that somebody can serve. To wait for it is not to wait for an owner: the deadline moves.
    async fn turn(
        &self,
        shard: &Shard,
        verb: &Verb,
        way: Way,
        deadline: &mut Instant,
    ) -> Result<Option<Turn<'_>>, Refused> {
        if !matches!(verb, Verb::Connect(_)) || way == Way::Nowhere {
            return Ok(None);
        }
        let began = Instant::now();
        let turn = self.turns.take(shard.id).await?;
        *deadline += began.elapsed();
        Ok(Some(turn))
    }

    fn hinted(&self, owner: Owner) -> Way {
        if owner.node == self.me {
            Way::Here
        } else if self.is_connected(owner) {
            Way::There(owner)
        } else {
            Way::Nowhere
        }
    }

    /// Whether nobody has served the shard for so long that waiting for somebody is no use.
    fn is_hopeless(&self, shard: ShardId, deadline: Instant) -> bool {
        let now = Instant::now();
        let since = self.orphans.missed(shard, now);
        self.fleet.common.is_stopping()
            || now.duration_since(since) >= self.timing.nobody_within
            || now >= deadline
    }
}

/// Whether a command that was refused so was never applied, and will not be.
const fn is_final(why: Refused) -> bool {
    matches!(why, Refused::NotListed | Refused::TooLarge)
}

fn judge(told: Result<Answer, PeerError>) -> Next {
    match told {
        Ok(Answer::NotOwner { hint }) => Next::Elsewhere(hint),
        // One that stops hands over.
        Ok(Answer::Refused(Refused::NotOwner | Refused::Stopping))
        | Err(PeerError::NotConnected(_) | PeerError::Refused { .. }) => Next::Elsewhere(None),
        Ok(Answer::Refused(Refused::Unknown)) | Err(PeerError::Unknown(_)) => Next::Doubt,
        Ok(Answer::Refused(why)) => Next::Refuse(why),
        Ok(answer) => Next::Return(answer),
        Err(PeerError::Busy(_)) => Next::Refuse(Refused::Overloaded),
    }
}

/// What wakes somebody who waits for an owner.
struct News {
    nodes: tokio::sync::watch::Receiver<u64>,
    shards: tokio::sync::watch::Receiver<u64>,
}

impl News {
    fn of(inner: &Inner) -> Self {
        Self {
            nodes: inner.nodes.changes(),
            shards: inner.fleet.common.moves.subscribe(),
        }
    }

    /// Waits until somebody else serves the shard, or a little.
    async fn wait(mut self, inner: &Inner, (shard, way): (&Shard, Way), deadline: Instant) {
        let until = deadline.min(Instant::now() + PAUSE);
        loop {
            tokio::select! {
                // A sender that is gone brings no news.
                Ok(()) = self.nodes.changed() => {},
                Ok(()) = self.shards.changed() => {},
                () = tokio::time::sleep_until(until) => return,
            }
            if inner.way(shard) != way {
                return;
            }
        }
    }
}

/// Since when each shard has had nobody to serve it, as far as this node has noticed.
pub(super) struct Orphans(Vec<parking_lot::Mutex<Option<Instant>>>);

impl Orphans {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| parking_lot::Mutex::default()).collect())
    }

    pub(super) fn found(&self, shard: ShardId) {
        if let Some(since) = self.0.get(usize::from(shard.0)) {
            *since.lock() = None;
        }
    }

    pub(super) fn missed(&self, shard: ShardId, now: Instant) -> Instant {
        match self.0.get(usize::from(shard.0)) {
            Some(since) => *since.lock().get_or_insert(now),
            None => now,
        }
    }
}
