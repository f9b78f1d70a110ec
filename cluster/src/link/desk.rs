//! Where requests of peers meet the handlers of this node.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, OnceLock},
    task::Poll,
};

use bytes::Bytes;
use tracing::error;
use umbel_core::ids::NodeId;

use super::{BoxFuture, Handler, Service, limits::place};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer.
    Done(Bytes),
    /// Nothing was done, and why.
    Refused(String),
    /// Nothing was done: too much is under way.
    Busy,
    /// The handler came to no end.
    Unknown,
}

impl From<Result<Bytes, String>> for Outcome {
    fn from(result: Result<Bytes, String>) -> Self {
        result.map_or_else(Self::Refused, Self::Done)
    }
}

/// A request that was given to its handler.
pub(super) enum Begun {
    /// Answered at once.
    Ended(Outcome),
    /// Has taken its place in the order; to be run beside others.
    Running(BoxFuture<'static, Result<Bytes, String>>),
}

/// Tells the outcome exactly once; one that is dropped tells that nobody knows it.
pub(super) struct Reply<F: FnOnce(Outcome)>(Option<F>);

impl<F: FnOnce(Outcome)> Reply<F> {
    pub(super) fn new(tell: F) -> Self {
        Self(Some(tell))
    }

    pub(super) fn send(mut self, outcome: Outcome) {
        if let Some(tell) = self.0.take() {
            tell(outcome);
        }
    }
}

impl<F: FnOnce(Outcome)> Drop for Reply<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Outcome::Unknown);
        }
    }
}

/// The handlers of a node.
#[derive(Default)]
pub(super) struct Desk {
    handlers: [OnceLock<Arc<dyn Handler>>; Service::ALL.len()],
}

impl Desk {
    /// Gives a service its handler, once.
    pub(super) fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        if let Some(cell) = self.handlers.get(place(service)) {
            cell.get_or_init(|| handler);
        }
    }

    fn handler(&self, service: Service) -> Option<&Arc<dyn Handler>> {
        self.handlers.get(place(service))?.get()
    }

    /// Hands a notice to its handler. `false`: there is none, or it panicked.
    pub(super) fn notice(&self, from: NodeId, service: Service, body: Bytes) -> bool {
        let Some(handler) = self.handler(service) else {
            return false;
        };
        let told = catch_unwind(AssertUnwindSafe(|| handler.notice(from, body)));
        if told.is_err() {
            error!(%from, %service, "a handler panicked over a notice of another node");
        }
        told.is_ok()
    }

    /// Hands a request to its handler and polls it once, so that it takes its place in the order before the next one
    /// comes. Never waits.
    pub(super) async fn request(&self, from: NodeId, service: Service, body: Bytes) -> Begun {
        let Some(handler) = self.handler(service) else {
            return Begun::Ended(Outcome::Refused(format!("{service} is not served yet")));
        };
        let started = catch_unwind(AssertUnwindSafe(|| handler.request(from, body)));
        let Ok(mut future) = started else {
            return failed(from, service);
        };
        // Unconstrained: the reader's budget, when it is used up, would make the first poll idle and mix up the order.
        let first = poll_fn(|context| {
            let mut once = pin!(tokio::task::unconstrained(&mut future));
            let polled = catch_unwind(AssertUnwindSafe(|| once.as_mut().poll(context)));
            Poll::Ready(polled)
        })
        .await;
        match first {
            Ok(Poll::Ready(result)) => Begun::Ended(result.into()),
            Ok(Poll::Pending) => Begun::Running(future),
            Err(_) => failed(from, service),
        }
    }
}

fn failed(from: NodeId, service: Service) -> Begun {
    error!(%from, %service, "a handler panicked over a request of another node");
    Begun::Ended(Outcome::Unknown)
}
