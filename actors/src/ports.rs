//! What the actors ask of the world. `node/src/wire/mod.rs` gives it to them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use umbel_core::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::Message,
    time::{Tick, Timestamp},
};
use umbel_storage::PeerError;

use crate::remote::{Answer, Verb};

/// A future without a name, for the calls that are rare enough to pay for a box.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads the clocks. Only `node/src/clock.rs` reads real ones; tests move their own.
pub trait Clock: Send + Sync + 'static {
    /// Wall time, for documents and people. May jump.
    fn wall(&self) -> Timestamp;
    /// Monotonic time, for deadlines.
    fn tick(&self) -> Tick;
}

/// Why the cluster ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictReason {
    /// A newer connection of the same client took over (MQTT 5: 0x8E).
    TakenOver,
    /// An operator asked for it (0x98).
    Administrative,
    /// The client lost its right to be here (0x87).
    NotAuthorized,
}

/// Speaks to the fleets of other nodes. `node/src` puts it on the link.
pub trait Peers: Send + Sync + 'static {
    /// Asks another node. Sent in the order of the calls; nothing of it waits for the future to be polled.
    fn ask(
        &self,
        node: NodeId,
        verb: &Verb,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer, PeerError>>;
    /// Tells another node something that may be lost.
    fn tell(&self, node: NodeId, verb: &Verb) -> Result<(), PeerError>;
}

/// The peers of a node that has none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn ask(
        &self,
        node: NodeId,
        _: &Verb,
        _: Duration,
    ) -> BoxFuture<'static, Result<Answer, PeerError>> {
        Box::pin(std::future::ready(Err(PeerError::NotConnected(node))))
    }

    fn tell(&self, node: NodeId, _: &Verb) -> Result<(), PeerError> {
        Err(PeerError::NotConnected(node))
    }
}

/// How the actors reach connected clients and subscribers. The broker of `node/mqtt` implements it.
pub trait Outbox: Send + Sync + 'static {
    /// Routes a message to every subscriber. Resolves when it is committed for each persistent session that
    /// matches and handed to the queue of each connected one. Calls made one after the other are delivered in
    /// that order.
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, ()>;

    /// Ends the client's connection of this epoch, if it is still there. Older epochs go with it. `gateway` is the node
    /// that holds it; 0 if that is not known, which means this one. Best effort: a gateway that does not hear of it
    /// learns it when it next compares its connections with the owner.
    fn evict(&self, client: &ClientId, epoch: SessionEpoch, gateway: NodeId, reason: EvictReason);

    /// The session is over: the client's subscriptions and queued messages are gone from storage and have to go
    /// from memory.
    fn end_session(&self, client: &ClientId, epoch: SessionEpoch);
}
