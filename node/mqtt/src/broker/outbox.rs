//! How the fleet reaches clients.

use std::sync::Arc;

use umbel_actors::ports::{BoxFuture, EvictReason, Outbox};
use umbel_core::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::Message,
};

use super::{Broker, durable::Patience, mailbox::Eviction};

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

    fn evict(&self, client: &ClientId, epoch: SessionEpoch, _gateway: NodeId, reason: EvictReason) {
        if let Some(mailbox) = self.sessions.get(client) {
            mailbox.evict(
                epoch,
                Eviction::Asked {
                    reason,
                    prevent_will: false,
                    end_session: false,
                },
            );
        }
    }

    fn end_session(&self, client: &ClientId, epoch: SessionEpoch) {
        if let Some(this) = self.this.upgrade() {
            this.end(client, epoch);
        }
    }
}
