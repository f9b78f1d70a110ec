//! What all connections of a node share.

use std::{fmt, net::IpAddr, sync::Arc};

use tokio::sync::Semaphore;
use umbel_actors::ports::Clock;
use umbel_core::time::Tick;

use crate::{
    close::{Close, CloseCause},
    codec::{Malformed, MalformedCause},
    driver::Gate,
    limits::Limits,
    listener::{HalfOpen, Registry},
    metrics::Counters,
    peer::Peer,
    refusal::{Refusal, Throttle},
};

/// The shared part of every connection: the way into the broker, bounds, counters and the list of who is there.
pub struct Edge<G> {
    pub(crate) gate: Arc<G>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Registry,
    pub(crate) half_open: HalfOpen,
    /// One permit for each connection the node takes.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit for each TLS handshake that may compute.
    pub(crate) handshakes: Semaphore,
    log: Log,
}

/// One line per second and cause.
struct Log {
    closed: Vec<Throttle>,
    refused: Vec<Throttle>,
    malformed: Vec<Throttle>,
}

impl<G: Gate> Edge<G> {
    /// Nobody is connected yet.
    pub fn new(gate: Arc<G>, clock: Arc<dyn Clock>, limits: Limits) -> Arc<Self> {
        let throttles = |count: usize| (0..count).map(|_| Throttle::new()).collect();
        Arc::new(Self {
            gate,
            clock,
            counters: Arc::new(Counters::new()),
            registry: Registry::new(),
            half_open: HalfOpen::new(&limits),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Semaphore::new(limits.handshakes_max),
            limits,
            log: Log {
                closed: throttles(CloseCause::ALL.len()),
                refused: throttles(Refusal::ALL.len()),
                malformed: throttles(MalformedCause::ALL.len()),
            },
        })
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.tick()
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.registry.len()
    }

    /// Counts a connection that never opened, and logs it unless its cause was logged within this second.
    pub(crate) fn refuse(&self, refusal: Refusal, address: IpAddr, detail: &dyn fmt::Display) {
        self.counters.refused(refusal);
        if refusal == Refusal::Abandoned {
            return; // what load balancers do to see whether we are there
        }
        let throttle = self.log.refused.get(refusal as usize);
        if let Some(more) = throttle.and_then(|throttle| throttle.pass(self.now())) {
            let cause = refusal.label();
            tracing::info!(cause, %address, %detail, more, "connection refused");
        }
    }

    /// Counts bytes that are no packet, and logs them unless their cause was logged within this second.
    pub(crate) fn malformed(&self, malformed: Malformed, address: IpAddr) {
        self.counters.malformed(malformed.cause);
        let throttle = self.log.malformed.get(malformed.cause as usize);
        if let Some(more) = throttle.and_then(|throttle| throttle.pass(self.now())) {
            tracing::info!(cause = malformed.cause.label(), %address, more, "malformed packet");
        }
    }

    /// Counts the end of an open connection. Ends that are nobody's fault are not logged.
    pub(crate) fn closed(&self, close: Close, peer: &Peer) {
        self.counters.closed(close.cause);
        let is_expected = matches!(
            close.cause,
            CloseCause::ClientDisconnect
                | CloseCause::ClientDisconnectWithWill
                | CloseCause::ConnectionLost
                | CloseCause::KeepAliveTimeout
                | CloseCause::TakenOver
                | CloseCause::ServerShutdown
        );
        if is_expected {
            return;
        }
        let throttle = self.log.closed.get(close.cause as usize);
        if let Some(more) = throttle.and_then(|throttle| throttle.pass(self.now())) {
            let (cause, reason) = (close.cause.label(), close.reason.label());
            let (address, listener) = (peer.address.ip(), &peer.listener);
            tracing::info!(cause, reason, %address, %listener, more, "connection closed");
        }
    }
}

impl<G> fmt::Debug for Edge<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
