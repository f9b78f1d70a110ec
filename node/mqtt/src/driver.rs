//! What the connection driver asks of the broker. The driver owns the socket and the clock, the session owns the
//! protocol's memory; neither knows how the other does it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use umbel_actors::ports::BoxFuture;
use umbel_core::time::Tick;

use crate::{
    close::Close,
    outgoing::Outgoing,
    packet::{ConnAck, Connect, Packet},
    peer::Peer,
};

/// The protocol state of one connection, owned by the connection's task.
pub trait SessionDriver: Send + Unpin + Sized + 'static {
    /// Takes a packet of the client; answers go to `out`. Never CONNECT or AUTH: the driver refuses those.
    /// DISCONNECT has to end in `Err`.
    fn handle(&mut self, packet: Packet, now: Tick, out: &mut Outgoing) -> Result<(), Close>;

    /// Puts what has to go to the client into `out`.
    ///
    /// The waker is kept first, whatever follows; it is called when there is something to say, when the connection has
    /// to end, and when [`SessionDriver::wants_input`] turns true. Then, in this order: `Ready(Err)` if the connection
    /// has to end, `Ready(Ok)` if `out` is full or something was put there (ask again), `Pending` if there is nothing
    /// to say. A connection whose socket takes nothing is asked with a full `out`, to learn whether it has to end.
    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        out: &mut Outgoing,
    ) -> Poll<Result<(), Close>>;

    /// False while so much of this client is unfinished that reading on would only fill memory.
    fn wants_input(&self) -> bool;

    /// Where a client that is sent away should go.
    fn server_reference(&self) -> Option<String> {
        None
    }

    /// The connection is over. Resolves when its end is on record.
    fn close(self, close: Close) -> BoxFuture<'static, ()>;
}

/// Lets clients in.
pub trait Gate: Send + Sync + 'static {
    /// What a client that is let in gets.
    type Session: SessionDriver;

    /// Judges a CONNECT. What comes back as an error is written as it is. A CONNACK's server keep-alive, for any
    /// version, is the one that is kept.
    fn open(
        self: Arc<Self>,
        connect: Box<Connect>,
        peer: Peer,
    ) -> BoxFuture<'static, Result<(Self::Session, ConnAck), ConnAck>>;
}
