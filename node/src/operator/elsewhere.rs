//! What other nodes know of sessions and connections, for the HTTP edge.

use std::time::Duration;

use umbel_actors::ports::BoxFuture;
use umbel_core::{ids::ClientId, message::Message};
use umbel_http::{Elsewhere, port::EventStream};
use umbel_mqtt::broker::{ClientView, Kick, SubscriptionView};

use super::{
    gather::Operations,
    service::{Answer, Ask},
};

/// How long another node may take. Everything asked for is in its memory.
const WITHIN: Duration = Duration::from_secs(2);

impl Operations {
    async fn asked(&self, ask: Ask) -> impl Iterator<Item = Answer> {
        self.ask_all(&ask, WITHIN).await.into_values()
    }

    /// Whether any other node did it.
    async fn done(&self, ask: Ask) -> bool {
        let mut answers = self.asked(ask).await;
        answers.any(|answer| matches!(answer, Answer::Done(true)))
    }
}

impl Elsewhere for Operations {
    fn is_nowhere(&self) -> bool {
        self.0.transport.is_none()
    }

    fn clients(&self, after: Option<ClientId>, limit: usize) -> BoxFuture<'_, Vec<ClientView>> {
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        Box::pin(async move {
            let mut all = Vec::new();
            for answer in self.asked(Ask::Clients { after, limit }).await {
                if let Answer::Clients(views) = answer {
                    all.extend(views);
                }
            }
            all
        })
    }

    fn client(&self, id: ClientId) -> BoxFuture<'_, Vec<ClientView>> {
        Box::pin(async move {
            let mut all = Vec::new();
            for answer in self.asked(Ask::Client(id)).await {
                if let Answer::Client(view) = answer {
                    all.extend(view);
                }
            }
            all
        })
    }

    fn subscriptions(&self, id: ClientId) -> BoxFuture<'_, Option<Vec<SubscriptionView>>> {
        Box::pin(async move {
            for answer in self.asked(Ask::Subscriptions(id)).await {
                if let Answer::Subscriptions(Some(found)) = answer {
                    return Some(found);
                }
            }
            None
        })
    }

    fn kick(&self, id: ClientId, how: Kick) -> BoxFuture<'_, bool> {
        Box::pin(self.done(Ask::Kick {
            client: id,
            kick: how,
        }))
    }

    fn events(&self) -> EventStream {
        super::feed::of_others(self.clone())
    }

    fn send_direct(&self, id: ClientId, message: Message) -> BoxFuture<'_, bool> {
        Box::pin(self.done(Ask::SendDirect {
            client: id,
            message: Box::new(message),
        }))
    }
}
