//! The way into the broker: a client is identified, then it gets its session.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use umbel_actors::ports::BoxFuture;
use umbel_core::time::Tick;

use crate::{
    authenticate::{Authenticator, Credentials},
    broker::Broker,
    close::Close,
    driver::{Gate, SessionDriver},
    outgoing::Outgoing,
    packet::{ConnAck, Connect, Packet},
    peer::Peer,
    reason::ReasonCode,
    session::Session,
};

/// Client ids that begin like this are the server's own (protocol.md 4.3).
const RESERVED: char = '$';

/// Stands between the listeners and the broker, and asks everyone who they are.
pub struct Door {
    broker: Arc<Broker>,
    authenticator: Arc<dyn Authenticator>,
}

impl Door {
    /// In front of `broker`.
    pub fn new(broker: Arc<Broker>, authenticator: Arc<dyn Authenticator>) -> Self {
        Self {
            broker,
            authenticator,
        }
    }

    async fn admit(&self, mut connect: Connect, peer: Peer) -> Result<(Session, ConnAck), ConnAck> {
        let is_assigned = connect.client_id.is_empty();
        if is_assigned {
            connect.client_id = Broker::assign_client_id();
        } else if connect.client_id.starts_with(RESERVED) {
            // such a client could pass for the HTTP edge, which publishes as `$http`
            return Err(ConnAck::refused(ReasonCode::ClientIdentifierNotValid));
        }
        let shown = Credentials {
            listener: &peer.listener,
            certificates: peer.certificates.as_deref(),
            username: connect.username.as_deref(),
            password: connect.password.as_deref(),
            client_id: &connect.client_id,
        };
        let identity = self
            .authenticator
            .identify(shown)
            .await
            .map_err(|error| ConnAck::refused(error.reason()))?;
        if is_assigned {
            // The broker tells the client what it is called when the packet names nobody.
            connect.client_id = String::new();
        }
        self.broker.connect(connect, identity, peer).await
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Gate for Door {
    type Session = Session;

    fn open(
        self: Arc<Self>,
        connect: Box<Connect>,
        peer: Peer,
    ) -> BoxFuture<'static, Result<(Session, ConnAck), ConnAck>> {
        Box::pin(async move { self.admit(*connect, peer).await })
    }
}

impl SessionDriver for Session {
    fn handle(&mut self, packet: Packet, now: Tick, out: &mut Outgoing) -> Result<(), Close> {
        Self::handle(self, packet, now, out)
    }

    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        out: &mut Outgoing,
    ) -> Poll<Result<(), Close>> {
        Self::poll_output(self, cx, now, out)
    }

    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    fn server_reference(&self) -> Option<String> {
        Self::server_reference(self)
    }

    fn close(self, close: Close) -> BoxFuture<'static, ()> {
        Box::pin(Self::close(self, close))
    }
}
