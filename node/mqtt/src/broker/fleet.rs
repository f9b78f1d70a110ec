//! What the broker needs of the fleet: the owner of every client's record, epoch, will and shadows.

use std::{fmt, sync::Weak};

use umbel_actors::{Refused, ports::BoxFuture};
use umbel_core::{
    device::{Connect, DisconnectReason},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch},
    shadow,
    time::Tick,
};

/// What came of opening a session.
pub struct Opened {
    /// The connection's epoch, committed.
    pub epoch: SessionEpoch,
    /// An older session goes on.
    pub session_present: bool,
    /// Takes the client's signs of life.
    pub pulse: Pulse,
}

/// Why the fleet did not do what the broker asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetError {
    /// Only listed devices may connect, and this one is not listed.
    NotListed,
    /// Too much is asked for at once: try again later.
    Busy,
    /// This node cannot serve the client now; the outcome may be unknown.
    Unavailable,
    /// The request was refused, and the client was told so by message.
    Rejected,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: DisconnectReason,
    /// The client's last word on how many seconds its session lives on.
    pub expiry: Option<u32>,
    /// The client asked for its will although it said goodbye, or did not say goodbye.
    pub with_will: bool,
}

/// What the fleet's record says of a client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// There is one.
    Session,
    /// There is none.
    NoSession,
    /// That cannot be known now, or not here.
    Unclear,
}

/// The verbs of the fleet that the broker uses.
pub trait FleetPort: Send + Sync + 'static {
    /// Opens a session. When it answers, the epoch is committed, and if no session is present, the rows of an older one
    /// are gone.
    fn connect(
        &self,
        client: ClientId,
        connect: Connect,
    ) -> BoxFuture<'static, Result<Opened, FleetError>>;

    /// A connection ended. An epoch that is over changes nothing.
    fn disconnect(&self, client: ClientId, epoch: SessionEpoch, end: End)
    -> BoxFuture<'static, ()>;

    /// This node sends a connection away and its client will come back through another: it is not offline, and its will
    /// is not due, before it had the time to.
    fn moved(&self, client: ClientId, epoch: SessionEpoch) -> BoxFuture<'static, ()> {
        let end = End {
            reason: DisconnectReason::ServerInitiated,
            expiry: None,
            with_will: false,
        };
        self.disconnect(client, epoch, end)
    }

    /// The node to which a client is connected, or was when it was last heard of, if this node owns its record and the
    /// record has a connection. Nobody asks on a node that is alone.
    fn gateway_of(&self, _client: &ClientId) -> Option<NodeId> {
        None
    }

    /// The owner of a client wants a connection ended that is not here, or not yet: what this node holds is compared with
    /// what the owner knows.
    fn missed(&self, client: &ClientId) {
        let _ = client;
    }

    /// The epoch of a client's session, if this node owns its record and there is one.
    fn current_epoch(&self, client: &ClientId) -> Option<SessionEpoch> {
        let _ = client;
        None
    }

    /// Whether a client whose record this node owns has a session.
    fn known(&self, client: &ClientId) -> Known {
        let _ = client;
        Known::Unclear
    }

    /// A request to a shadow; the answer is published. Requests that are polled once, one after the other, are worked
    /// on in that order.
    fn shadow(
        &self,
        device: DeviceId,
        request: shadow::Request,
    ) -> BoxFuture<'static, Result<(), FleetError>>;
}

/// Takes the signs of life of one connection. One call a packet: it costs a store.
pub struct Pulse(Option<Box<dyn Fn(Tick) + Send + Sync>>);

impl Pulse {
    /// Calls this for each sign of life.
    pub fn new(beat: impl Fn(Tick) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(beat)))
    }

    /// Nobody listens.
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn touch(&self, now: Tick) {
        if let Some(beat) = &self.0 {
            beat(now);
        }
    }
}

/// The fleet holds the broker as its outbox: a broker that held the fleet in turn would keep both, and the log under
/// them, from ever being closed. A fleet that is gone is a node that stops.
impl<T: FleetPort> FleetPort for Weak<T> {
    fn connect(
        &self,
        client: ClientId,
        connect: Connect,
    ) -> BoxFuture<'static, Result<Opened, FleetError>> {
        match self.upgrade() {
            Some(fleet) => FleetPort::connect(fleet.as_ref(), client, connect),
            None => Box::pin(std::future::ready(Err(FleetError::Unavailable))),
        }
    }

    fn disconnect(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
        end: End,
    ) -> BoxFuture<'static, ()> {
        match self.upgrade() {
            Some(fleet) => FleetPort::disconnect(fleet.as_ref(), client, epoch, end),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn moved(&self, client: ClientId, epoch: SessionEpoch) -> BoxFuture<'static, ()> {
        match self.upgrade() {
            Some(fleet) => FleetPort::moved(fleet.as_ref(), client, epoch),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn missed(&self, client: &ClientId) {
        if let Some(fleet) = self.upgrade() {
            fleet.missed(client);
        }
    }

    fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        self.upgrade()?.gateway_of(client)
    }

    fn current_epoch(&self, client: &ClientId) -> Option<SessionEpoch> {
        self.upgrade()?.current_epoch(client)
    }

    fn known(&self, client: &ClientId) -> Known {
        self.upgrade()
            .map_or(Known::Unclear, |fleet| fleet.known(client))
    }

    fn shadow(
        &self,
        device: DeviceId,
        request: shadow::Request,
    ) -> BoxFuture<'static, Result<(), FleetError>> {
        match self.upgrade() {
            Some(fleet) => FleetPort::shadow(fleet.as_ref(), device, request),
            None => Box::pin(std::future::ready(Err(FleetError::Unavailable))),
        }
    }
}

/// A refusal that was published, and changed nothing, is an answer.
#[expect(clippy::needless_pass_by_value, reason = "the outcome ends here")]
pub(super) fn answered(outcome: Result<shadow::Reply, Refused>) -> Result<(), FleetError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(
            Refused::TooManyInFlight
            | Refused::TooLarge
            | Refused::Overloaded
            | Refused::Quarantined
            | Refused::StorageFull
            | Refused::NotListed,
        ) => Err(FleetError::Rejected),
        Err(other) => Err(other.into()),
    }
}

impl From<Refused> for FleetError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotListed => Self::NotListed,
            Refused::Overloaded | Refused::TooManyInFlight => Self::Busy,
            Refused::NotOwner
            | Refused::StorageFull
            | Refused::Quarantined
            | Refused::Restarting
            | Refused::Stopping
            | Refused::Unreadable
            | Refused::Unknown
            | Refused::Unavailable
            | Refused::TooLarge => Self::Unavailable,
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("epoch", &self.epoch)
            .field("session_present", &self.session_present)
            .finish_non_exhaustive()
    }
}
