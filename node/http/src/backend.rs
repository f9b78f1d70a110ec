//! The real backend: the fleet for devices and shadows, the broker for sessions and messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, future, stream};
use umbel_actors::{Delivery, Events, Fleet, ports::Clock};
use umbel_core::{
    ids::{ClientId, DeviceId, ShadowName},
    message::Message,
    shadow::{self, Origin, ShadowKind, Verb},
    time::Timestamp,
};
use umbel_mqtt::broker::{self, Broker, ClientView};

use crate::{
    model::{Client, Device, Quarantined},
    operator::Operator,
    port::{
        Backend, BoxFuture, Check, DeviceQuery, Direct, EventStream, Feed, Kick, Page, Refusal,
        RetainedSummary, ShadowReply, ShadowRequest, ShadowVerb, Subscription,
    },
};

mod elsewhere;
mod refusals;
mod relay;
mod views;

use relay::Relay;

pub use elsewhere::{Elsewhere, Nowhere};
pub use relay::Carried;

/// Who publishes what comes over HTTP. A leading `$` is not allowed in ids of clients, so it is nobody else.
const PUBLISHER: &str = "$http";

/// What the node alone knows.
pub struct Instruments {
    /// Everything that has to be well before the node can serve.
    pub checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
    /// All metrics in the Prometheus text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// What operators may ask.
    pub operator: Arc<dyn Operator>,
    /// What other nodes know.
    pub elsewhere: Arc<dyn Elsewhere>,
}

/// The node, as the HTTP edge sees it.
pub struct Api {
    fleet: Fleet,
    broker: Arc<Broker>,
    clock: Arc<dyn Clock>,
    instruments: Instruments,
    publisher: ClientId,
    relay: Arc<Relay>,
}

impl Api {
    /// Over a fleet and a broker that know each other.
    pub fn new(
        fleet: Fleet,
        broker: Arc<Broker>,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Self {
        let publisher = ClientId::parse(PUBLISHER).expect("our own name is a client id");
        Self {
            relay: Relay::new(clock.wall()),
            fleet,
            broker,
            clock,
            instruments,
            publisher,
        }
    }

    async fn client_now(&self, id: &ClientId) -> Result<Option<Client>, Refusal> {
        let record = self.fleet.client(id)?;
        let elsewhere = self.instruments.elsewhere.client(id.clone()).await;
        let session = elsewhere::merged(self.broker.client(id).into_iter().chain(elsewhere));
        Ok(views::client(id, session.as_ref(), record.as_ref()))
    }

    /// A page of the clients of all nodes: the first `limit` of what each has, in one order.
    async fn clients_now(&self, after: Option<ClientId>, limit: usize) -> Page<Client> {
        let mut views = self.broker.clients(after.as_ref(), limit);
        views.extend(self.instruments.elsewhere.clients(after, limit).await);
        views.sort_by(|one, other| one.client.cmp(&other.client));
        let mut sessions: Vec<_> = views
            .chunk_by(|one, other| one.client == other.client)
            .filter_map(|same| elsewhere::merged(same.iter().cloned()))
            .collect();
        let is_full = sessions.len() >= limit;
        sessions.truncate(limit);
        let next = sessions
            .last()
            .filter(|_| is_full)
            .map(|last| last.client.as_str().to_owned());
        let client = |session: &ClientView| {
            // A page is worth more than one record that cannot be read: the session is shown without it.
            let record = self.fleet.client(&session.client).unwrap_or_default();
            views::client(&session.client, Some(session), record.as_ref())
        };
        Page {
            items: sessions.iter().filter_map(client).collect(),
            next,
        }
    }

    async fn ask_shadow(
        &self,
        id: &DeviceId,
        request: ShadowRequest,
    ) -> Result<ShadowReply, Refusal> {
        let verb = match request.verb {
            ShadowVerb::Get => Verb::Get,
            ShadowVerb::Update => Verb::Update,
            ShadowVerb::Delete => Verb::Delete,
        };
        let request = shadow::Request {
            shadow: request.name.map_or(ShadowKind::Classic, ShadowKind::Named),
            verb,
            payload: request.payload,
            origin: Origin::Http,
        };
        Ok(match self.fleet.shadow(id, request).await? {
            shadow::Reply::Accepted(body) => ShadowReply::Accepted(body),
            shadow::Reply::Rejected(rejection) => ShadowReply::Rejected {
                code: rejection.error.code,
                message: rejection.error.message,
            },
        })
    }
}

impl Backend for Api {
    fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    fn devices(&self, query: DeviceQuery) -> BoxFuture<'_, Result<Page<Device>, Refusal>> {
        async move {
            let (filter, after, limit) = views::filter(query);
            let page = self.fleet.devices(filter, after, limit).await?;
            Ok(Page {
                items: page.devices.iter().map(views::device).collect(),
                next: page.next.map(String::from),
            })
        }
        .boxed()
    }

    fn device<'a>(&'a self, id: &'a DeviceId) -> BoxFuture<'a, Result<Option<Device>, Refusal>> {
        let view = self.fleet.device(id);
        future::ready(
            view.map(|view| view.as_ref().map(views::device))
                .map_err(Into::into),
        )
        .boxed()
    }

    fn create_device<'a>(
        &'a self,
        id: &'a DeviceId,
        registration: Bytes,
    ) -> BoxFuture<'a, Result<Device, Refusal>> {
        async move {
            Ok(views::device(
                &self.fleet.create_device(id, registration).await?,
            ))
        }
        .boxed()
    }

    fn patch_device<'a>(
        &'a self,
        id: &'a DeviceId,
        patch: Bytes,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<Device, Refusal>> {
        async move {
            let view = self.fleet.set_attributes(id, patch, if_revision).await?;
            Ok(views::device(&view))
        }
        .boxed()
    }

    fn delete_device<'a>(
        &'a self,
        id: &'a DeviceId,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        async move { Ok(self.fleet.delete_device(id, if_revision).await?) }.boxed()
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.fleet
            .quarantined()
            .into_iter()
            .map(views::quarantined)
            .collect()
    }

    fn release<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<bool, Refusal>> {
        future::ready(Ok(self.fleet.release(id))).boxed()
    }

    fn shadow<'a>(
        &'a self,
        id: &'a DeviceId,
        request: ShadowRequest,
    ) -> BoxFuture<'a, Result<ShadowReply, Refusal>> {
        self.ask_shadow(id, request).boxed()
    }

    fn named_shadows<'a>(
        &'a self,
        id: &'a DeviceId,
        after: Option<ShadowName>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page<ShadowName>, Refusal>> {
        let page = self.fleet.list_named(id, after.as_ref(), limit);
        let page = page.map(|page| Page {
            items: page.names,
            next: page.next.map(String::from),
        });
        future::ready(page.map_err(Into::into)).boxed()
    }

    fn clients(
        &self,
        after: Option<ClientId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Client>, Refusal>> {
        async move { Ok(self.clients_now(after, limit).await) }.boxed()
    }

    fn client<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<Option<Client>, Refusal>> {
        self.client_now(id).boxed()
    }

    fn subscriptions<'a>(
        &'a self,
        id: &'a ClientId,
    ) -> BoxFuture<'a, Result<Option<Vec<Subscription>>, Refusal>> {
        async move {
            let found = match self.broker.subscriptions(id) {
                Some(found) => Some(found),
                None => self.instruments.elsewhere.subscriptions(id.clone()).await,
            };
            Ok(found.map(|found| {
                let mut all: Vec<_> = found
                    .into_iter()
                    .map(|one| Subscription {
                        filter: one.filter,
                        qos: one.qos,
                    })
                    .collect();
                all.sort_by(|one, other| one.filter.cmp(&other.filter));
                all
            }))
        }
        .boxed()
    }

    fn kick<'a>(&'a self, id: &'a ClientId, how: Kick) -> BoxFuture<'a, Result<bool, Refusal>> {
        let how = broker::Kick {
            clean_session: how.clean_session,
            prevent_will: how.prevent_will,
        };
        async move {
            Ok(self.broker.kick(id, how) || self.instruments.elsewhere.kick(id.clone(), how).await)
        }
        .boxed()
    }

    fn publish(&self, mut message: Message) -> BoxFuture<'_, Result<(), Refusal>> {
        message
            .publisher
            .get_or_insert_with(|| self.publisher.clone());
        async move { Ok(self.broker.publish_external(message).await?) }.boxed()
    }

    fn send_direct<'a>(
        &'a self,
        id: &'a ClientId,
        message: Message,
        confirm: Option<Duration>,
    ) -> BoxFuture<'a, Result<Direct, Refusal>> {
        async move {
            if confirm.is_some() {
                // Better refused than confirmed without knowing.
                return Err(Refusal::Invalid {
                    pointer: "query:confirmation".to_owned(),
                    detail: "confirmation is not supported by this server".to_owned(),
                });
            }
            let elsewhere = &self.instruments.elsewhere;
            let is_sent = self.broker.send_direct(id, message.clone())
                || elsewhere.send_direct(id.clone(), message).await;
            Ok(if is_sent {
                Direct::Sent
            } else {
                Direct::NotConnected
            })
        }
        .boxed()
    }

    fn retained<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Message>>, Refusal>> {
        async move { Ok(self.broker.retained_get(topic).await?.map(Arc::new)) }.boxed()
    }

    fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<RetainedSummary>, Refusal>> {
        async move {
            let page = self.broker.retained_list(after.as_deref(), limit).await?;
            let items = page.messages.iter().map(views::retained).collect();
            Ok(Page {
                items,
                next: page.next,
            })
        }
        .boxed()
    }

    fn operator(&self) -> &dyn Operator {
        self.instruments.operator.as_ref()
    }

    fn checks(&self) -> Vec<Check> {
        (self.instruments.checks)()
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        if self.instruments.elsewhere.is_nowhere() {
            return Box::pin(stream::unfold(self.fleet.events(after), next));
        }
        self.relay.events(after, || {
            let here: EventStream = Box::pin(stream::unfold(self.fleet.events(None), next));
            vec![here, self.instruments.elsewhere.events()]
        })
    }

    fn metrics(&self) -> String {
        (self.instruments.metrics)()
    }
}

async fn next(mut events: Events) -> Option<(Feed, Events)> {
    let feed = match events.next().await {
        Delivery::Event(event) => Feed::Event(views::event(&event)),
        Delivery::Lagged { next, .. } => Feed::Lagged { next },
        Delivery::Closed => return None,
    };
    Some((feed, events))
}

/// An event of the fleet, to be carried to another node.
pub fn carried(event: &umbel_actors::FleetEvent) -> Carried {
    Carried::from(&views::event(event))
}
