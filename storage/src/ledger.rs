//! The promise of a durable, ordered write, without saying who orders it.
//!
//! `cluster` keeps the promise with Raft; [`crate::memory`] keeps it in memory for tests. Actors and edges see
//! only this trait.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use thiserror::Error;
use tokio::sync::oneshot;
use umbel_core::ids::{ShardId, Term};

use crate::table::{Pairs, ReadError, Table, Write};

/// Why a write was not made durable, or is not known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// This node does not own the shard in that term (any more): nothing was written.
    #[error("this node does not own the shard")]
    NotOwner,
    /// The shard's queue is full: nothing was written; try again later.
    #[error("the shard is busy")]
    Busy,
    /// The disk is full: nothing was written; reads go on.
    #[error("the disk is full")]
    StorageFull,
    /// The writes of one command are larger than a log entry may be: nothing was written, and never will be.
    #[error("the command is too large")]
    TooLarge,
    /// The shard is damaged and quarantined: nothing was written.
    #[error("the shard is quarantined")]
    Quarantined,
    /// The node stops, or the answer was lost: the write may or may not become durable.
    #[error("the outcome is unknown")]
    Unknown,
}

/// Resolves when a write is durable (committed and applied), or was refused.
#[derive(Debug)]
pub struct Receipt(State);

#[derive(Debug)]
enum State {
    Ready(Result<(), Refusal>),
    Waiting(oneshot::Receiver<Result<(), Refusal>>),
}

impl Receipt {
    /// An answer that is known at once.
    pub fn ready(outcome: Result<(), Refusal>) -> Self {
        Self(State::Ready(outcome))
    }

    /// A receipt and the sender that settles it. A dropped sender settles it as [`Refusal::Unknown`].
    pub fn pending() -> (oneshot::Sender<Result<(), Refusal>>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(State::Waiting(receiver)))
    }
}

impl Future for Receipt {
    type Output = Result<(), Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(outcome) => Poll::Ready(*outcome),
            State::Waiting(receiver) => Pin::new(receiver)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(Refusal::Unknown))),
        }
    }
}

/// Durable, ordered writes and local reads of the shards of this node.
///
/// Law of order: two writes proposed to one shard one after the other from one task are applied in that order.
/// Law of reading: once a receipt resolved `Ok`, [`Ledger::get`] sees its writes.
pub trait Ledger: Send + Sync + 'static {
    /// How many shards the cluster has.
    fn shards(&self) -> u16;

    /// The term in which this node owns the shard, once all that was committed before is applied here.
    fn term(&self, shard: ShardId) -> Option<Term>;

    /// Whether this node has a copy of the shard to read from, its own or another owner's.
    fn hosts(&self, shard: ShardId) -> bool {
        self.term(shard).is_some()
    }

    /// Makes all the writes durable, or none. A term that is over is refused with [`Refusal::NotOwner`].
    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt;

    /// The value of a key in the state applied so far.
    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Up to `limit` pairs whose key begins with `prefix` and is greater than `after`, in key order.
    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError>;
}
