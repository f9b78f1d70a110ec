//! The words of actors and brokers, carried to other nodes: encoded here, served here, decided elsewhere.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use umbel_actors::{
    Realm,
    ports::{self, BoxFuture},
    remote::{Answer, Verb},
};
use umbel_cluster::{
    link::{Handler, Service, Transport},
    wire,
};
use umbel_core::ids::NodeId;
use umbel_mqtt::broker::{Broker, peers};
use umbel_storage::PeerError;

/// Speaks to the brokers of other nodes.
pub(crate) struct Brokers(pub(crate) Arc<dyn Transport>);

impl peers::Peers for Brokers {
    fn ask(
        &self,
        to: NodeId,
        ask: peers::Ask,
        within: Duration,
    ) -> BoxFuture<'static, Result<peers::Reply, PeerError>> {
        asked(&self.0, to, Service::Broker, &ask, within)
    }

    fn tell(&self, to: NodeId, tell: peers::Tell) -> Result<(), PeerError> {
        self.0.notify(to, Service::Broker, wire::encode(&tell))
    }
}

/// Lets other nodes speak to this node's broker.
pub(crate) fn serve_broker(transport: &Arc<dyn Transport>, broker: &Arc<Broker>) {
    let handler = BrokerHandler(Arc::downgrade(broker));
    transport.serve(Service::Broker, Arc::new(handler));
}

/// The transport outlives what it serves, and must not keep it alive.
struct BrokerHandler(Weak<Broker>);

impl Handler for BrokerHandler {
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(broker) = self.0.upgrade() else {
            return refused("the node is stopping");
        };
        match wire::decode(&body) {
            // Called at once, so that it has its place in the order.
            Ok(ask) => {
                let answer = broker.serve_ask(from, ask);
                Box::pin(async move { Ok(wire::encode(&answer.await?)) })
            },
            Err(error) => refused(&error.to_string()),
        }
    }

    fn notice(&self, from: NodeId, body: Bytes) {
        let Some(broker) = self.0.upgrade() else {
            return;
        };
        match wire::decode(&body) {
            Ok(tell) => broker.serve_tell(from, tell),
            Err(error) => tracing::warn!(peer = from.0, %error, "a notice was not understood"),
        }
    }
}

/// Speaks to the fleets of other nodes.
pub(crate) struct Fleets(pub(crate) Arc<dyn Transport>);

impl ports::Peers for Fleets {
    fn ask(
        &self,
        to: NodeId,
        verb: &Verb,
        within: Duration,
    ) -> BoxFuture<'static, Result<Answer, PeerError>> {
        asked(&self.0, to, Service::Fleet, verb, within)
    }

    fn tell(&self, to: NodeId, verb: &Verb) -> Result<(), PeerError> {
        self.0.notify(to, Service::Fleet, wire::encode(verb))
    }
}

/// Where other nodes reach this node's fleet, as long as it is there.
#[derive(Clone, Default)]
pub(crate) struct FleetDoor(Arc<Mutex<Option<Realm>>>);

impl FleetDoor {
    /// Lets other nodes speak to this node's fleet.
    pub(crate) fn open(transport: &Arc<dyn Transport>, realm: Realm) -> Self {
        let door = Self(Arc::new(Mutex::new(Some(realm))));
        transport.serve(Service::Fleet, Arc::new(door.clone()));
        door
    }

    /// The fleet goes; the transport may stay.
    pub(crate) fn close(&self) {
        drop(self.0.lock().take());
    }

    fn realm(&self) -> Option<Realm> {
        self.0.lock().clone()
    }
}

impl Handler for FleetDoor {
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(realm) = self.realm() else {
            return refused("the node is stopping");
        };
        match wire::decode(&body) {
            // Polled at once by the link: the verb has its place in the order.
            Ok(verb) => Box::pin(async move { Ok(wire::encode(&realm.serve(from, verb).await)) }),
            Err(error) => refused(&error.to_string()),
        }
    }

    fn notice(&self, from: NodeId, body: Bytes) {
        let Some(realm) = self.realm() else { return };
        match wire::decode(&body) {
            // What is told wants no answer, and takes no time.
            Ok(verb) => drop(tokio::spawn(async move {
                drop(realm.serve(from, verb).await);
            })),
            Err(error) => tracing::warn!(peer = from.0, %error, "a notice was not understood"),
        }
    }
}

/// One question and its answer, as bytes on the way. An answer that is not understood leaves the outcome unknown.
pub(crate) fn asked<A, R>(
    transport: &Arc<dyn Transport>,
    to: NodeId,
    service: Service,
    ask: &A,
    within: Duration,
) -> BoxFuture<'static, Result<R, PeerError>>
where
    A: serde::Serialize,
    R: serde::de::DeserializeOwned + Send + 'static,
{
    // Queued before this returns: the order of the calls is the order of arrival.
    let answer = transport.request(to, service, wire::encode(ask), within);
    Box::pin(async move {
        let bytes = answer.await?;
        wire::decode(&bytes).map_err(|error| {
            tracing::warn!(peer = to.0, %error, "an answer was not understood");
            PeerError::Unknown(to)
        })
    })
}

pub(crate) fn refused(why: &str) -> BoxFuture<'static, Result<Bytes, String>> {
    Box::pin(std::future::ready(Err(why.to_owned())))
}
