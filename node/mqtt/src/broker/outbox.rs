//! How the fleet reaches clients.

use std::sync::Arc;

use umbel_actors::ports::{BoxFuture, EvictReason, Outbox};
use umbel_core::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::Message,
};

use super::{
    Broker,
    durable::Patience,
    mailbox::Eviction,
    peers::{Tell, routes as words},
};

impl Outbox for Broker {
    /// Routed before this returns, so that two calls reach each subscriber in their order; the future is the commit. A
    /// busy shard is waited for: nobody would say a will or a delta again.
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, ()> {
        let Some(this) = self.this.upgrade() else {
            return Box::pin(std::future::ready(()));
        };
        let routed = this.route(Arc::unwrap_or_clone(message), Patience::WhileBusy);
        Box::pin(async move {
            let outcome = routed.outcome().await;
            if !outcome.is_done() {
                tracing::debug!(
                    ?outcome,
                    "a message of the cluster did not reach every session"
                );
            }
        })
    }

    /// A node that cannot be told has no connection that matters: it is fenced by the epoch, and told when it comes back.
    fn evict(&self, client: &ClientId, epoch: SessionEpoch, gateway: NodeId, reason: EvictReason) {
        // Records of releases that did not write gateways down name node 0.
        if self.routes.is_none() || gateway == self.nodes.me() || gateway == NodeId(0) {
            self.evict_here(client, epoch, reason);
            return;
        }
        let evict = words::Tell::Evict {
            client: client.clone(),
            epoch,
            reason: reason.into(),
        };
        if let Err(error) = self.peers.tell(gateway, Tell::Routes(evict)) {
            tracing::debug!(%client, %error, "the gateway of an older connection is not told");
        }
    }

    fn end_session(&self, client: &ClientId, epoch: SessionEpoch) {
        if let Some(this) = self.this.upgrade() {
            this.end(client, epoch);
        }
    }
}

impl Broker {
    /// Ends a connection of this node.
    pub(crate) fn evict_here(&self, client: &ClientId, epoch: SessionEpoch, reason: EvictReason) {
        let eviction = Eviction::Asked {
            reason,
            prevent_will: false,
            end_session: false,
        };
        let mailbox = self.sessions.get(client);
        let is_here = mailbox.is_some_and(|mailbox| mailbox.evict(epoch, eviction));
        if !is_here && let Some(fleet) = self.fleet.get() {
            // It may be on its way to being opened: the owner's word came first.
            fleet.missed(client);
        }
    }
}
