//! One task per connection: opening, running, closing.
//!
//! A connection that waits holds no buffer. Bytes are read into a scratch buffer of the thread and only the rest of a
//! packet that has not come completely is kept; what is written gathers in a scratch buffer of the thread and only
//! what the socket did not take is kept. Opening and closing are boxed, so that the task of an open connection is not
//! sized for them.

mod closing;
mod opening;
mod scratch;
mod timer;
mod turn;

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};
use umbel_actors::ports::BoxFuture;
use umbel_core::time::Tick;

pub(crate) use self::opening::open;
use self::timer::Timer;
use crate::{
    codec::Decoder,
    driver::Gate,
    edge::Edge,
    listener::Place,
    outgoing::Outgoing,
    peer::{Peer, Transport},
};

/// What bytes come from and go to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// The whole life of a connection, as the future of its task.
pub(crate) struct Serve<S, G: Gate> {
    phase: Phase<S, G>,
    /// Its part of the connection limit.
    _permit: OwnedSemaphorePermit,
}

enum Phase<S, G: Gate> {
    /// Handshakes and CONNECT. Resolves to nothing if the connection was refused.
    Opening(BoxFuture<'static, Option<Connection<S, G>>>),
    /// Packets.
    Open(Connection<S, G>),
    /// Goodbye.
    Closing(BoxFuture<'static, ()>),
    /// Nothing is left.
    Done,
}

impl<S: Stream, G: Gate> Serve<S, G> {
    /// A connection that begins with `opening`.
    pub(crate) const fn new(
        opening: BoxFuture<'static, Option<Connection<S, G>>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            phase: Phase::Opening(opening),
            _permit: permit,
        }
    }
}

impl<S: Stream, G: Gate> Future for Serve<S, G> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let phase = &mut self.get_mut().phase;
        loop {
            match phase {
                Phase::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(connection) => *phase = Phase::Open(connection.entered(cx)),
                    None => *phase = Phase::Done,
                },
                Phase::Open(connection) => {
                    let close = ready!(connection.poll(cx));
                    if let Phase::Open(connection) = std::mem::replace(phase, Phase::Done) {
                        *phase = Phase::Closing(Box::pin(connection.close(close)));
                    }
                },
                Phase::Closing(closing) => {
                    ready!(closing.as_mut().poll(cx));
                    *phase = Phase::Done;
                },
                Phase::Done => return Poll::Ready(()),
            }
        }
    }
}

/// An open connection.
pub(crate) struct Connection<S, G: Gate> {
    stream: S,
    session: G::Session,
    /// `None` until it is polled for the first time.
    entered: Option<Entered<G>>,
    edge: Arc<Edge<G>>,
    peer: Box<Peer>,
    decoder: Decoder,
    /// Bytes received and not handled: the start of a packet, or whole packets that had to wait.
    partial: Vec<u8>,
    /// `partial` may start with a whole packet.
    has_packets: bool,
    out: Outgoing,
    /// How much of `out` the socket has taken.
    written: usize,
    /// The socket has taken everything, but a layer above it (TLS, WebSocket) may hold some.
    needs_flush: bool,
    timer: Timer,
    /// When the client was last heard: its last whole packet.
    heard: Tick,
    /// Since when the socket takes nothing of what waits.
    stalled: Option<Tick>,
}

/// A place in the registry and in the gauges; left on drop, whatever happens to the task.
struct Entered<G> {
    edge: Arc<Edge<G>>,
    place: Place,
    transport: Transport,
}

impl<G> Drop for Entered<G> {
    fn drop(&mut self) {
        self.edge.registry.leave(self.place);
        if let Some(gauge) = self.edge.counters.connections(self.transport, true) {
            gauge.decrement(1.0);
        }
    }
}

/// What an accepted CONNECT leads to.
pub(super) struct Opened<D> {
    session: D,
    decoder: Decoder,
    partial: Vec<u8>,
    out: Outgoing,
    keep_alive_secs: u16,
}

impl<S: Stream, G: Gate> Connection<S, G> {
    fn new(stream: S, peer: Peer, edge: Arc<Edge<G>>, opened: Opened<G::Session>) -> Self {
        let now = edge.now();
        Self {
            stream,
            session: opened.session,
            entered: None,
            timer: Timer::new(opened.keep_alive_secs, edge.limits.write_stall),
            edge,
            peer: Box::new(peer),
            decoder: opened.decoder,
            has_packets: !opened.partial.is_empty(),
            partial: opened.partial,
            out: opened.out,
            written: 0,
            needs_flush: false,
            heard: now,
            stalled: None,
        }
    }

    /// Makes the connection known. Only its task knows the waker by which it is reached.
    fn entered(mut self, cx: &Context<'_>) -> Self {
        let place = self.edge.registry.enter(cx.waker().clone());
        let transport = self.peer.transport;
        self.entered = Some(Entered {
            edge: Arc::clone(&self.edge),
            place,
            transport,
        });
        self.edge.counters.opened(transport);
        if let Some(gauge) = self.edge.counters.connections(transport, true) {
            gauge.increment(1.0);
        }
        self
    }
}
