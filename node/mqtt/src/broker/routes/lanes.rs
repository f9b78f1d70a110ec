//! Messages that wait for the owner of a shard.
//!
//! A shard whose owner is gone, or is not ready yet, has a new one within seconds. Until then a message for one of its
//! durable sessions waits here, and later ones wait behind it; then all go, in the order they came.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{self, Instant};
use umbel_actors::ports::BoxFuture;
use umbel_core::{ids::ShardId, message::Message};
use umbel_storage::PeerError;

use super::{
    Routes,
    forward::{Part, WITHIN},
};
use crate::broker::{
    Broker,
    delivery::cost,
    durable::Patience,
    peers::{
        Ask, Reply,
        routes::{self as words, Deliver, MessageId, Own},
    },
    ticket::{Outcome, Pending, Settler, Ticket},
};

/// Before an owner is asked again, if no other is heard of.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Messages sent at once when there is an owner again.
const AT_ONCE: usize = 256;

/// Most messages, and bytes of messages, that wait for one shard. Beyond, publishers are told to try later.
const MESSAGES_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes of messages that wait for any shard: with many shards and no owners, each may not have its fill.
const ALL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A message with its name.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) id: MessageId,
    pub(super) message: Arc<Message>,
    pub(super) patience: Patience,
}

/// What of a shard a message is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Its durable sessions.
    pub(super) sessions: bool,
    /// The device the topic belongs to.
    pub(super) own: bool,
}

impl Pieces {
    pub(super) const SESSIONS: Self = Self {
        sessions: true,
        own: false,
    };
    pub(super) const OWN: Self = Self {
        sessions: false,
        own: true,
    };

    const fn is_none(self) -> bool {
        !(self.sessions || self.own)
    }

    const fn without(self, other: Self) -> Self {
        Self {
            sessions: self.sessions && !other.sessions,
            own: self.own && !other.own,
        }
    }
}

impl std::ops::BitOrAssign for Pieces {
    fn bitor_assign(&mut self, other: Self) {
        self.sessions |= other.sessions;
        self.own |= other.own;
    }
}

impl Letter {
    pub(super) fn deliver(&self, part: &Part) -> Deliver {
        Deliver {
            id: self.id,
            message: Arc::clone(&self.message),
            clean: part.clean,
            shards: part.shards.clone(),
            own: part.own,
            is_patient: self.patience == Patience::WhileBusy,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    letter: Letter,
    pieces: Pieces,
    until: Instant,
    /// Who waits, and for what.
    settlers: Vec<(Pieces, Settler)>,
}

/// What was handed to an owner, and what became of it.
#[derive(Clone, Copy, Debug)]
struct Answered {
    count: u64,
    pieces: Pieces,
    outcome: Outcome,
}

#[derive(Debug, Default)]
struct Lane {
    /// By the counts of their names: in the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct All {
    lanes: BTreeMap<ShardId, Lane>,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes(Mutex<All>);

impl Lanes {
    /// Whether messages for a shard wait.
    pub(super) fn holds(&self, shard: ShardId) -> bool {
        self.0.lock().lanes.contains_key(&shard)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let all = self.0.lock();
        all.lanes.values().map(|lane| lane.waiting.len()).sum()
    }

    /// Adds a message; true if it is the first, and somebody has to see to it.
    fn add(&self, shard: ShardId, pieces: Pieces, letter: &Letter) -> (Pending, bool) {
        let mut all = self.0.lock();
        let All {
            lanes,
            bytes: total,
        } = &mut *all;
        let bytes = cost(&letter.message);
        let is_full =
            |lane: &Lane| lane.waiting.len() >= MESSAGES_MAX || lane.bytes + bytes > BYTES_MAX;
        let known = lanes.get(&shard);
        let is_first = known.is_none();
        if known.is_some_and(is_full) || *total + bytes > ALL_BYTES_MAX {
            return (Pending::Ready(Outcome::Unavailable), false);
        }
        let lane = lanes.entry(shard).or_default();
        let waiting = lane.waiting.entry(letter.id.count).or_insert_with(|| {
            lane.bytes += bytes;
            *total += bytes;
            Waiting {
                letter: letter.clone(),
                pieces: Pieces::default(),
                until: Instant::now() + letter.patience.waits_for_owner(),
                settlers: Vec::new(),
            }
        });
        waiting.pieces |= pieces;
        let (settler, ticket) = Ticket::pair();
        waiting.settlers.push((pieces, settler));
        (Pending::Waiting(ticket), is_first)
    }

    /// The first that wait.
    fn first(&self, shard: ShardId) -> Vec<(Letter, Pieces)> {
        let all = self.0.lock();
        let waiting = all.lanes.get(&shard).into_iter();
        let waiting = waiting.flat_map(|lane| lane.waiting.values());
        waiting
            .take(AT_ONCE)
            .map(|waiting| (waiting.letter.clone(), waiting.pieces))
            .collect()
    }

    /// What became of some of them; those that are not done wait on if there is time, and so does what was added to one
    /// while the rest of it was on its way. False when nobody waits.
    fn settle(&self, shard: ShardId, answers: &[Answered], now: Instant) -> bool {
        let mut done = Vec::new();
        let mut all = self.0.lock();
        let All {
            lanes,
            bytes: total,
        } = &mut *all;
        let Some(lane) = lanes.get_mut(&shard) else {
            return false;
        };
        for answer in answers {
            let Some(waiting) = lane.waiting.get_mut(&answer.count) else {
                continue;
            };
            if answer.outcome == Outcome::Unavailable && waiting.until > now {
                continue;
            }
            waiting.pieces = waiting.pieces.without(answer.pieces);
            let is_open =
                |(pieces, _): &mut (Pieces, Settler)| pieces.without(answer.pieces).is_none();
            let settled = waiting.settlers.extract_if(.., is_open);
            done.extend(settled.map(|(_, settler)| (settler, answer.outcome)));
            if waiting.pieces.is_none() {
                let bytes = cost(&waiting.letter.message);
                lane.bytes -= bytes;
                *total -= bytes;
                lane.waiting.remove(&answer.count);
            }
        }
        let goes_on = !lane.waiting.is_empty();
        if !goes_on {
            lanes.remove(&shard);
        }
        drop(all);
        for (settler, outcome) in done {
            settler.settle(outcome);
        }
        goes_on
    }
}

impl Broker {
    /// A message for a shard waits until an owner takes it, or for as long as it may.
    pub(super) fn wait_for_owner(
        &self,
        routes: &Routes,
        shard: ShardId,
        pieces: Pieces,
        letter: &Letter,
    ) -> Pending {
        let (pending, is_first) = routes.lanes.add(shard, pieces, letter);
        if is_first {
            tokio::spawn(serve(Weak::clone(&self.this), shard));
        }
        pending
    }

    /// Hands a message to whoever owns the shard now.
    fn hand_on(
        self: &Arc<Self>,
        routes: &Routes,
        shard: ShardId,
        letter: &Letter,
        pieces: Pieces,
    ) -> BoxFuture<'static, Result<Reply, PeerError>> {
        let deliver = letter.deliver(&Part {
            clean: false,
            shards: pieces.sessions.then_some(shard).into_iter().collect(),
            own: if pieces.own {
                Own::Everywhere
            } else {
                Own::None
            },
        });
        match self.nodes.owner(shard) {
            Some(owner) if owner.node == routes.me => {
                let delivered = self.deliver_for(routes.me, &deliver);
                let me = routes.me;
                Box::pin(async move {
                    let delivered = delivered.await;
                    delivered
                        .map(Reply::Routes)
                        .map_err(|why| PeerError::Refused { node: me, why })
                })
            },
            Some(owner) => {
                let ask = Ask::Routes(words::Ask::Deliver(deliver));
                self.peers.ask(owner.node, ask, WITHIN)
            },
            None => Box::pin(std::future::ready(Err(PeerError::NotConnected(routes.me)))),
        }
    }
}

/// Sees to the messages for one shard until none waits.
async fn serve(broker: Weak<Broker>, shard: ShardId) {
    loop {
        let (mut changes, sent) = {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            let Some(routes) = &broker.routes else { return };
            let changes = broker.nodes.changes();
            let first = routes.lanes.first(shard);
            let sent: Vec<_> = first
                .iter()
                .map(|(letter, pieces)| {
                    let answer = broker.hand_on(routes, shard, letter, *pieces);
                    (letter.id.count, *pieces, answer)
                })
                .collect();
            (changes, sent)
        };
        let mut outcomes = Vec::with_capacity(sent.len());
        for (count, pieces, answer) in sent {
            outcomes.push(Answered {
                count,
                pieces,
                outcome: outcome_of(answer.await),
            });
        }
        let is_stuck = outcomes
            .iter()
            .any(|answer| answer.outcome == Outcome::Unavailable);
        {
            let Some(broker) = broker.upgrade() else {
                return;
            };
            let Some(routes) = &broker.routes else { return };
            if !routes.lanes.settle(shard, &outcomes, Instant::now()) {
                return;
            }
        }
        if is_stuck {
            drop(time::timeout(AGAIN_AFTER, changes.changed()).await);
        }
    }
}

fn outcome_of(answer: Result<Reply, PeerError>) -> Outcome {
    let Ok(Reply::Routes(words::Reply::Delivered { own, shards, .. })) = answer else {
        return Outcome::Unavailable;
    };
    let shards = shards.into_iter().map(|(_, delivered)| delivered);
    let all = shards.chain([own]).map(Outcome::from);
    all.fold(Outcome::NoMatch, Outcome::and)
}

#[cfg(test)]
mod tests {
    use umbel_core::{message::Qos, time::Timestamp};
    use umbel_storage::Boot;

    use super::*;

    fn letter(count: u64, bytes: usize) -> Letter {
        let message = Message::from_cluster(
            "umbel/devices/d/x".to_owned(),
            vec![0; bytes].into(),
            Qos::AtLeastOnce,
            Timestamp::default(),
        );
        Letter {
            id: MessageId {
                boot: Boot(1),
                count,
            },
            message: Arc::new(message),
            patience: Patience::Never,
        }
    }

    #[test]
    fn what_waits_for_many_shards_has_one_bound() {
        let lanes = Lanes::default();
        let each = 1024 * 1024;
        let add = |shard: u16, count: u64| {
            let (pending, _) = lanes.add(ShardId(shard), Pieces::SESSIONS, &letter(count, each));
            pending.known().is_none()
        };
        let taken = (0..200).filter(|count| add(u16::try_from(*count).unwrap_or(0), *count));
        let taken: Vec<_> = taken.collect();
        assert!((60..64).contains(&taken.len()), "{}", taken.len());
        // room for one when one is done
        let done = Answered {
            count: taken[0],
            pieces: Pieces::SESSIONS,
            outcome: Outcome::Done,
        };
        lanes.settle(ShardId(0), &[done], Instant::now());
        assert!(add(300, 300));
        assert!(!add(301, 301));
    }

    #[test]
    fn what_is_added_while_the_rest_is_on_its_way_is_not_settled_with_it() {
        let lanes = Lanes::default();
        let shard = ShardId(3);
        let letter = letter(7, 0);
        let (sessions, _) = lanes.add(shard, Pieces::SESSIONS, &letter);
        let sent = lanes.first(shard);
        let (own, _) = lanes.add(shard, Pieces::OWN, &letter);
        let answers = |sent: &[(Letter, Pieces)]| -> Vec<_> {
            let answer = |(letter, pieces): &(Letter, Pieces)| Answered {
                count: letter.id.count,
                pieces: *pieces,
                outcome: Outcome::Done,
            };
            sent.iter().map(answer).collect()
        };
        assert!(lanes.settle(shard, &answers(&sent), Instant::now()));
        assert_eq!((sessions.known(), own.known()), (Some(Outcome::Done), None));
        let sent = lanes.first(shard);
        assert_eq!(sent[0].1, Pieces::OWN, "only what is left");
        assert!(!lanes.settle(shard, &answers(&sent), Instant::now()));
        assert_eq!(own.known(), Some(Outcome::Done));
        assert!(!lanes.holds(shard));
    }
}
