//! What became of a message with those who were to have it, and what is tried again.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{ClientId, ShardId},
    topic::device_scope,
};
use umbel_storage::PeerError;

use super::{
    forward::Part,
    lanes::{Letter, Pieces},
};
use crate::broker::{
    Broker,
    metrics::{self, Drop, Forwarded},
    peers::{
        Reply,
        routes::{self as words, Delivered, Own},
    },
    ticket::{Outcome, Pending},
};

/// What was proposed on this node.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The rows of a message, by shard.
    pub(super) rows: Vec<(ShardId, Pending)>,
    /// The shard in which there is one for the device the topic belongs to.
    pub(super) own: Option<ShardId>,
}

/// A part that was handed over.
pub(super) struct Flight {
    pub(super) part: Part,
    pub(super) answer: BoxFuture<'static, Result<Reply, PeerError>>,
}

/// What has to be tried again.
#[derive(Default)]
struct Failed(BTreeMap<ShardId, Pieces>);

impl Failed {
    fn add(&mut self, shard: ShardId, pieces: Pieces) {
        *self.0.entry(shard).or_default() |= pieces;
    }
}

impl Broker {
    /// Waits until everybody has the message. What a shard's owner could not take goes where the shard goes, at once: it has
    /// to have its place there before later messages do, whoever else is slow.
    pub(super) async fn settle_parts(
        self: Arc<Self>,
        letter: &Letter,
        kept: Kept,
        flights: Vec<Flight>,
    ) -> Outcome {
        let device = device_scope(&letter.message.topic).map(ClientId::from);
        let own_shard = device.map(|client| self.shard_of(&client));
        let own = kept.own;
        let rows = kept.rows.into_iter().map(|(shard, pending)| {
            let broker = &self;
            async move {
                let mut failed = Failed::default();
                let mut outcome = pending.outcome().await;
                if outcome == Outcome::Unavailable {
                    outcome = Outcome::NoMatch;
                    failed.add(shard, Pieces::SESSIONS);
                    if own == Some(shard) {
                        failed.add(shard, Pieces::OWN);
                    }
                }
                outcome.and(broker.try_again(letter, failed).await)
            }
        });
        let flights = flights.into_iter().map(|Flight { part, answer }| {
            let broker = &self;
            async move {
                let mut failed = Failed::default();
                let outcome = judge(&part, answer.await, &mut failed, own_shard);
                outcome.and(broker.try_again(letter, failed).await)
            }
        });
        let (rows, flights) = tokio::join!(join_all(rows), join_all(flights));
        let all = rows.into_iter().chain(flights);
        all.fold(Outcome::NoMatch, Outcome::and)
    }

    async fn try_again(&self, letter: &Letter, failed: Failed) -> Outcome {
        let Some(routes) = &self.routes else {
            return Outcome::NoMatch;
        };
        // all of them first: each takes its place before those that come later
        let waiting: Vec<Pending> = failed
            .0
            .into_iter()
            .map(|(shard, pieces)| self.wait_for_owner(routes, shard, pieces, letter))
            .collect();
        let mut outcome = Outcome::NoMatch;
        for pending in waiting {
            outcome = outcome.and(pending.outcome().await);
        }
        outcome
    }
}

/// What an answer means; what has to be tried again is added to `failed`.
fn judge(
    part: &Part,
    answer: Result<Reply, PeerError>,
    failed: &mut Failed,
    own_shard: Option<ShardId>,
) -> Outcome {
    let mut outcome = Outcome::NoMatch;
    let mut is_taken = true;
    if let Ok(Reply::Routes(words::Reply::Delivered {
        others,
        own,
        shards,
    })) = answer
    {
        outcome = outcome.and(others.into());
        for (shard, delivered) in shards {
            if delivered == Delivered::Unavailable {
                is_taken = false;
                failed.add(shard, Pieces::SESSIONS);
            } else {
                outcome = outcome.and(delivered.into());
            }
        }
        match (own, own_shard) {
            (Delivered::Unavailable, Some(shard)) => {
                is_taken = false;
                failed.add(shard, Pieces::OWN);
            },
            (own, _) => outcome = outcome.and(own.into()),
        }
        metrics::forwarded(if is_taken && outcome.is_done() {
            Forwarded::Done
        } else {
            Forwarded::Refused
        });
        return outcome;
    }
    metrics::forwarded(Forwarded::Lost);
    // sessions that end with their node get nothing any more; the durable ones are somebody's
    metrics::dropped(
        Drop::NodeUnreachable,
        usize::from(part.clean) + usize::from(part.own == Own::Here),
    );
    for shard in &part.shards {
        failed.add(*shard, Pieces::SESSIONS);
    }
    if let Some(shard) = own_shard.filter(|_| part.own == Own::Everywhere) {
        failed.add(shard, Pieces::OWN);
    }
    outcome
}
