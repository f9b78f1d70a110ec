//! One outcome that is not known yet, and those who wait for it.
//!
//! An acknowledgement may wait for several shards, and after a take-over two connections may wait for the same
//! outcome. Hence a ticket of our own rather than a one-shot channel: clones share one outcome.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use umbel_actors::ports::BoxFuture;
use umbel_storage::Refusal;

/// How a piece of work ended that somebody wants to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; what had to be durable is.
    Done,
    /// Done, and nobody was there to get it.
    NoMatch,
    /// Not done: a bound was reached.
    QuotaExceeded,
    /// Not done: larger than a log entry may be.
    TooLarge,
    /// Not done, or not known to be: the shard or the node cannot serve now.
    Unavailable,
}

impl Outcome {
    /// Whether the work was done.
    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::NoMatch)
    }

    /// The outcome of doing both: a refusal outweighs success, and one who got it is enough.
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NoMatch, other) => other,
            (done, other) if done.is_done() && !other.is_done() => other,
            (this, _) => this,
        }
    }
}

impl From<Result<(), Refusal>> for Outcome {
    fn from(result: Result<(), Refusal>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(Refusal::Busy | Refusal::StorageFull) => Self::QuotaExceeded,
            Err(Refusal::TooLarge) => Self::TooLarge,
            Err(Refusal::NotOwner | Refusal::Quarantined | Refusal::Unknown) => Self::Unavailable,
        }
    }
}

/// An outcome that is known, or a ticket for it.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    /// Known.
    Ready(Outcome),
    /// Not yet.
    Waiting(Ticket),
}

impl Pending {
    /// The outcome, or a wake-up when it is known.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        match self {
            Self::Ready(outcome) => Poll::Ready(*outcome),
            Self::Waiting(ticket) => ticket.poll(cx),
        }
    }

    /// The outcome, if it is known.
    pub(crate) fn known(&self) -> Option<Outcome> {
        match self {
            Self::Ready(outcome) => Some(*outcome),
            Self::Waiting(ticket) => ticket.0.lock().outcome,
        }
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(self) -> Outcome {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Done when both are.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ready(one), Self::Ready(other)) => Self::Ready(one.and(other)),
            // what is done already has nothing to add to what is not
            (Self::Ready(done), waiting) | (waiting, Self::Ready(done)) if done.is_done() => {
                waiting
            },
            (one, other) => start(Box::pin(async move {
                let first = one.outcome().await;
                first.and(other.outcome().await)
            })),
        }
    }

    /// Runs `then` with the outcome, now if it is known, and passes on what it says.
    pub(crate) fn then(self, then: impl FnOnce(Outcome) -> Outcome + Send + 'static) -> Self {
        match self {
            Self::Ready(outcome) => Self::Ready(then(outcome)),
            waiting @ Self::Waiting(_) => {
                start(Box::pin(async move { then(waiting.outcome().await) }))
            },
        }
    }
}

/// Begins a piece of work at once, on this thread, and finishes it on a task of its own if it has to wait.
///
/// The first step is taken here so that two pieces begun one after the other take their places in that order.
pub(crate) fn start(mut work: BoxFuture<'static, Outcome>) -> Pending {
    let mut cx = Context::from_waker(Waker::noop());
    if let Poll::Ready(outcome) = work.as_mut().poll(&mut cx) {
        return Pending::Ready(outcome);
    }
    let (settler, ticket) = Ticket::pair();
    tokio::spawn(async move {
        settler.settle(work.await);
    });
    Pending::Waiting(ticket)
}

/// Waits for an outcome. Clones wait for the same.
#[derive(Clone, Debug)]
pub(crate) struct Ticket(Arc<Mutex<Inner>>);

/// Settles a [`Ticket`]. Dropped without a word it says [`Outcome::Unavailable`]: nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Settler(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    outcome: Option<Outcome>,
    waiters: Vec<Waker>,
}

impl Ticket {
    /// A ticket and the one who settles it.
    pub(crate) fn pair() -> (Settler, Self) {
        let inner = Arc::new(Mutex::new(Inner::default()));
        (Settler(Arc::clone(&inner)), Self(inner))
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut inner = self.0.lock();
        if let Some(outcome) = inner.outcome {
            return Poll::Ready(outcome);
        }
        if !inner
            .waiters
            .iter()
            .any(|waiter| waiter.will_wake(cx.waker()))
        {
            inner.waiters.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Settler {
    /// Says how it ended.
    pub(crate) fn settle(self, outcome: Outcome) {
        self.say(outcome);
    }

    fn say(&self, outcome: Outcome) {
        let waiters = {
            let mut inner = self.0.lock();
            if inner.outcome.is_some() {
                return;
            }
            inner.outcome = Some(outcome);
            std::mem::take(&mut inner.waiters)
        };
        for waiter in waiters {
            waiter.wake();
        }
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        self.say(Outcome::Unavailable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_outweighs_success_and_one_receiver_is_enough() {
        assert_eq!(Outcome::NoMatch.and(Outcome::Done), Outcome::Done);
        assert_eq!(Outcome::Done.and(Outcome::NoMatch), Outcome::Done);
        assert_eq!(Outcome::Done.and(Outcome::TooLarge), Outcome::TooLarge);
        assert_eq!(
            Outcome::Unavailable.and(Outcome::Done),
            Outcome::Unavailable
        );
        assert_eq!(Outcome::NoMatch.and(Outcome::NoMatch), Outcome::NoMatch);
    }

    #[test]
    fn a_dropped_settler_answers_every_waiter() {
        let (settler, ticket) = Ticket::pair();
        let other = ticket.clone();
        let cx = Context::from_waker(Waker::noop());
        assert!(ticket.poll(&cx).is_pending());
        drop(settler);
        assert_eq!(ticket.poll(&cx), Poll::Ready(Outcome::Unavailable));
        assert_eq!(other.poll(&cx), Poll::Ready(Outcome::Unavailable));
    }

    #[tokio::test]
    async fn work_that_is_ready_at_once_costs_no_task() {
        let pending = start(Box::pin(std::future::ready(Outcome::Done)));
        assert!(matches!(pending, Pending::Ready(Outcome::Done)));
        let pending = start(Box::pin(async {
            tokio::task::yield_now().await;
            Outcome::TooLarge
        }));
        assert_eq!(pending.outcome().await, Outcome::TooLarge);
    }
}
