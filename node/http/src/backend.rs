//! The real backend: the realm for devices and shadows, the broker for sessions and messages.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use umbel_actors::{Delivery, DeviceView, Events, Realm, ports::Clock};
use umbel_core::{
    ids::{ClientId, DeviceId, ShadowName},
    message::Message,
    shadow::{self, Origin, ShadowKind, Verb},
    time::Timestamp,
};
use umbel_mqtt::broker::{self, Broker};

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

/// Records of a page of clients that are asked for at once; some are on other nodes.
const RECORDS_AT_ONCE: usize = 32;

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
    realm: Realm,
    broker: Arc<Broker>,
    clock: Arc<dyn Clock>,
    instruments: Instruments,
    publisher: ClientId,
    relay: Arc<Relay>,
}

impl Api {
    /// Over a realm and a broker that know each other.
    pub fn new(
        realm: Realm,
        broker: Arc<Broker>,
        clock: Arc<dyn Clock>,
        instruments: Instruments,
    ) -> Self {
        let publisher = ClientId::parse(PUBLISHER).expect("our own name is a client id");
        Self {
            relay: Relay::new(clock.wall()),
            realm,
            broker,
            clock,
            instruments,
            publisher,
        }
    }

    async fn client_now(&self, id: &ClientId) -> Result<Option<Client>, Refusal> {
        let record = self.realm.client(id).await?;
        let elsewhere = self.instruments.elsewhere.client(id.clone()).await;
        let session = elsewhere::merged(self.broker.client(id).into_iter().chain(elsewhere));
        Ok(views::client(id, session.as_ref(), record.as_ref()))
    }

    /// A client's record, if it can be read now.
    fn record(&self, id: &ClientId) -> BoxFuture<'static, Option<DeviceView>> {
        let (realm, id) = (self.realm.clone(), id.clone());
        async move { realm.client(&id).await.unwrap_or_default() }.boxed()
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
        let mut items = Vec::with_capacity(sessions.len());
        let asked: Vec<_> = sessions
            .iter()
            .map(|session| self.record(&session.client))
            .collect();
        let mut records = stream::iter(asked).buffered(RECORDS_AT_ONCE);
        for session in &sessions {
            // A page is worth more than one record that cannot be read: the session is shown without it.
            let record = records.next().await.flatten();
            items.extend(views::client(
                &session.client,
                Some(session),
                record.as_ref(),
            ));
        }
        Page { items, next }
    }

    async fn ask_shadow(
        &self,
        id: &DeviceId,
        request: ShadowRequest,
    ) -> Result<ShadowReply, Refusal> {
        let may_be_stale = request.may_be_stale && request.verb == ShadowVerb::Get;
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
        let reply = if may_be_stale {
            self.realm.shadow_stale(id, request).await?
        } else {
            self.realm.shadow(id, request).await?
        };
        Ok(match reply {
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
            let page = self.realm.devices(filter, after, limit).await?;
            Ok(Page {
                items: page.devices.iter().map(views::device).collect(),
                next: page.next.map(String::from),
            })
        }
        .boxed()
    }

    fn device<'a>(&'a self, id: &'a DeviceId) -> BoxFuture<'a, Result<Option<Device>, Refusal>> {
        async move {
            let view = self.realm.device(id).await?;
            Ok(view.as_ref().map(views::device))
        }
        .boxed()
    }

    fn create_device<'a>(
        &'a self,
        id: &'a DeviceId,
        registration: Bytes,
    ) -> BoxFuture<'a, Result<Device, Refusal>> {
        async move {
            Ok(views::device(
                &self.realm.create_device(id, registration).await?,
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
            let view = self.realm.set_attributes(id, patch, if_revision).await?;
            Ok(views::device(&view))
        }
        .boxed()
    }

    fn delete_device<'a>(
        &'a self,
        id: &'a DeviceId,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        async move { Ok(self.realm.delete_device(id, if_revision).await?) }.boxed()
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<Quarantined>, Refusal>> {
        async move {
            let all = self.realm.quarantined().await?;
            Ok(all.into_iter().map(views::quarantined).collect())
        }
        .boxed()
    }

    fn release<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<bool, Refusal>> {
        async move { Ok(self.realm.release(id).await?) }.boxed()
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
        async move {
            let page = self.realm.list_named(id, after.as_ref(), limit).await?;
            Ok(Page {
                items: page.names,
                next: page.next.map(String::from),
            })
        }
        .boxed()
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
            return Box::pin(stream::unfold(self.realm.events(after), next));
        }
        self.relay.events(after, || {
            let here: EventStream = Box::pin(stream::unfold(self.realm.events(None), next));
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
