//! What nodes ask each other on behalf of operators.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use umbel_actors::ports::BoxFuture;
use umbel_cluster::{
    link::{Handler, Service, Transport},
    wire,
};
use umbel_core::{
    ids::{ClientId, NodeId, ShardId},
    message::Message,
};
use umbel_http::Carried;
use umbel_mqtt::broker::{ClientView, Kick, SubscriptionView};

use super::{
    cuts::{Cut, Part},
    gather::{Operations, Parts},
    report::Report,
};
use crate::peers::refused;

/// A question to another node. A variant is never removed or moved while an older release may be spoken to; new ones go
/// to the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// How it is.
    Report,
    /// Its view of some clients, in the order of their ids.
    Clients { after: Option<ClientId>, limit: u32 },
    /// Its view of one client.
    Client(ClientId),
    /// The subscriptions of a session that it keeps.
    Subscriptions(ClientId),
    /// Ends a connection that it has.
    Kick { client: ClientId, kick: Kick },
    /// Hands a message to a client that is connected to it.
    SendDirect {
        client: ClientId,
        message: Box<Message>,
    },
    /// Takes a snapshot of a shard that it owns, to be read part by part.
    Cut(ShardId),
    /// Reads on in such a snapshot.
    Part { ticket: u64, offset: u64 },
    /// What happened to devices that it owns, from a number of its own on, or from now on. It waits a moment for
    /// something to happen.
    Events { from: Option<u64> },
}

/// What happened on a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Events {
    pub(crate) told: Vec<Carried>,
    /// Where to go on.
    pub(crate) next: u64,
    /// Some were lost before these.
    pub(crate) has_gap: bool,
}

/// Its answer, of the kind of the question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Report(Report),
    Clients(Vec<ClientView>),
    Client(Option<ClientView>),
    Subscriptions(Option<Vec<SubscriptionView>>),
    Done(bool),
    Cut(Cut),
    Part(Part),
    Events(Events),
}

/// Lets other nodes ask this one.
pub(crate) fn serve(transport: &Arc<dyn Transport>, operations: &Operations) {
    let handler = OperatorHandler(Arc::downgrade(&operations.0));
    transport.serve(Service::Operator, Arc::new(handler));
}

/// The transport outlives what it serves, and must not keep it alive.
struct OperatorHandler(Weak<Parts>);

impl Handler for OperatorHandler {
    fn request(&self, _from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(parts) = self.0.upgrade() else {
            return refused("the node is stopping");
        };
        let operations = Operations(parts);
        match wire::decode(&body) {
            Ok(ask) => Box::pin(async move { Ok(wire::encode(&operations.answer(ask).await?)) }),
            Err(error) => refused(&error.to_string()),
        }
    }

    fn notice(&self, from: NodeId, _body: Bytes) {
        // There are none in this release.
        tracing::debug!(peer = from.0, "a notice for operators was passed over");
    }
}
