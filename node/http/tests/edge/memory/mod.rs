//! A backend of a few maps. Shadows and attributes follow core's own rules.

mod tables;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};
use umbel_core::{
    device::Attributes,
    ids::{ClientId, DeviceId, ShadowName},
    message::{Message, Qos},
    shadow::{self, Origin, ShadowKind, Verb},
    time::Timestamp,
};
use umbel_http::{
    model::{Change, Client, Device, Event, Quarantined, Session, State},
    operator::Operator,
    port::{
        Backend, BoxFuture, Check, DeviceQuery, Direct, EventStream, Feed, Kick, Page, Refusal,
        RetainedSummary, ShadowReply, ShadowRequest, ShadowVerb, Subscription,
    },
    time::Moment,
};

use self::tables::page;
pub use self::tables::{Tables, retained};
use crate::api_cluster::Paper;

pub const NOW: Timestamp = Timestamp::from_millis(1_795_194_873_042);
/// Events the ring keeps.
pub const RING: usize = 16;

pub struct Memory {
    pub tables: Mutex<Tables>,
    live: broadcast::Sender<Event>,
    pub is_stuck: AtomicBool,
    pub unstick: Notify,
    pub panics: AtomicBool,
    pub paper: Paper,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            tables: Mutex::new(Tables::default()),
            live: broadcast::Sender::new(RING),
            is_stuck: AtomicBool::new(false),
            unstick: Notify::new(),
            panics: AtomicBool::new(false),
            paper: Paper::default(),
        })
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut Tables) -> T) -> T {
        act(&mut self.tables.lock().expect("no test panics in here"))
    }

    pub fn add_device(&self, id: &str, patch: &str) {
        self.with(|tables| tables.put(id, patch).map(|_| ()).expect("valid"));
    }

    pub fn add_client(&self, id: &str) {
        let client = Client {
            id: id.to_owned(),
            kind: if DeviceId::parse(id).is_ok() {
                "device"
            } else {
                "app"
            }
            .to_owned(),
            connected: true,
            epoch: 7,
            session: Session {
                connected_at: Some(Moment(NOW)),
                protocol: Some("5.0".to_owned()),
                clean: false,
                expiry_seconds: 3600,
                keep_alive_seconds: 60,
                principal: Some("abc".to_owned()),
                ip: Some("192.0.2.1".to_owned()),
                listener: Some("tls".to_owned()),
            },
            port: Some(4711),
            disconnected_at: None,
            disconnect_reason: None,
            subscriptions: 0,
            inflight: 0,
            queued: 0,
        };
        self.with(|tables| tables.clients.insert(id.to_owned(), client));
    }

    pub fn tell(&self, client: &str, change: Change) {
        self.with(|tables| {
            let sequence = tables
                .history
                .last()
                .map_or(100, |event| event.sequence + 1);
            let event = Event {
                sequence,
                at: Moment(NOW),
                client: client.to_owned(),
                change,
            };
            tables.history.push(event.clone());
            if tables.history.len() > RING {
                tables.history.remove(0);
            }
            drop(self.live.send(event));
        });
    }

    pub fn tell_presence(&self, client: &str) {
        let change = Change::Presence {
            state: State::Online,
            reason: Some("CONNECTED".to_owned()),
            epoch: 1,
            flapping: false,
        };
        self.tell(client, change);
    }

    async fn gate(&self) -> Result<(), Refusal> {
        assert!(!self.panics.load(Ordering::Relaxed), "a planted panic");
        if self.is_stuck.load(Ordering::Relaxed) {
            self.unstick.notified().await;
        }
        self.with(|tables| tables.refusal.clone())
            .map_or(Ok(()), Err)
    }

    fn run<'a, T: Send + 'a>(
        &'a self,
        act: impl FnOnce(&mut Tables) -> Result<T, Refusal> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Refusal>> {
        async move {
            self.gate().await?;
            self.with(act)
        }
        .boxed()
    }
}

impl Backend for Memory {
    fn now(&self) -> Timestamp {
        NOW
    }

    fn devices(&self, query: DeviceQuery) -> BoxFuture<'_, Result<Page<Device>, Refusal>> {
        self.run(move |tables| {
            let fits =
                |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
            let found = tables.devices.values().filter(|device| {
                query
                    .after
                    .as_ref()
                    .is_none_or(|after| device.id.as_str() > after.as_str())
                    && (query.states.is_empty() || query.states.contains(&device.state))
                    && fits(&query.kind, &device.r#type)
                    && fits(&query.site, &device.site)
                    && fits(&query.region, &device.region)
                    && query
                        .tags
                        .iter()
                        .all(|(name, value)| device.tags.get(name) == Some(value))
            });
            Ok(page(found.cloned().collect(), query.limit, |device| {
                device.id.clone()
            }))
        })
    }

    fn device<'a>(&'a self, id: &'a DeviceId) -> BoxFuture<'a, Result<Option<Device>, Refusal>> {
        self.run(|tables| Ok(tables.devices.get(id.as_str()).cloned()))
    }

    fn create_device<'a>(
        &'a self,
        id: &'a DeviceId,
        registration: Bytes,
    ) -> BoxFuture<'a, Result<Device, Refusal>> {
        self.run(move |tables| {
            tables.overtake();
            if tables.devices.contains_key(id.as_str()) {
                return Err(Refusal::Exists);
            }
            tables.put(
                id.as_str(),
                std::str::from_utf8(&registration).expect("UTF-8"),
            )
        })
    }

    fn patch_device<'a>(
        &'a self,
        id: &'a DeviceId,
        patch: Bytes,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<Device, Refusal>> {
        self.run(move |tables| {
            tables.overtake();
            tables.check_revision(id.as_str(), if_revision)?;
            tables.put(id.as_str(), &String::from_utf8_lossy(&patch))
        })
    }

    fn delete_device<'a>(
        &'a self,
        id: &'a DeviceId,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        self.run(move |tables| {
            tables.check_revision(id.as_str(), if_revision)?;
            tables.devices.remove(id.as_str());
            Ok(())
        })
    }

    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<Quarantined>, Refusal>> {
        std::future::ready(Ok(self.with(|tables| tables.quarantined.clone()))).boxed()
    }

    fn release<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<bool, Refusal>> {
        self.run(|tables| {
            let before = tables.quarantined.len();
            tables.quarantined.retain(|one| one.id != id.as_str());
            Ok(tables.quarantined.len() < before)
        })
    }

    fn shadow<'a>(
        &'a self,
        id: &'a DeviceId,
        request: ShadowRequest,
    ) -> BoxFuture<'a, Result<ShadowReply, Refusal>> {
        self.run(move |tables| {
            let kind = request.name.map_or(ShadowKind::Classic, ShadowKind::Named);
            let key = (id.as_str().to_owned(), kind.clone());
            let current = tables.shadows.get(&key).cloned().unwrap_or_default();
            let verb = match request.verb {
                ShadowVerb::Get => Verb::Get,
                ShadowVerb::Update => Verb::Update,
                ShadowVerb::Delete => Verb::Delete,
            };
            let request = shadow::Request {
                shadow: kind,
                verb,
                payload: request.payload,
                origin: Origin::Http,
            };
            let outcome = shadow::handle(id, &current, &request, NOW, &shadow::Limits::default());
            if let Some(next) = outcome.next {
                tables.shadows.insert(key, next);
            }
            Ok(match outcome.reply {
                shadow::Reply::Accepted(body) => ShadowReply::Accepted(body),
                shadow::Reply::Rejected(rejection) => ShadowReply::Rejected {
                    code: rejection.error.code,
                    message: rejection.error.message,
                },
            })
        })
    }

    fn named_shadows<'a>(
        &'a self,
        id: &'a DeviceId,
        after: Option<ShadowName>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page<ShadowName>, Refusal>> {
        self.run(move |tables| {
            let names = tables
                .shadows
                .iter()
                .filter_map(|((device, kind), shadow)| match kind {
                    ShadowKind::Named(name) if device == id.as_str() && shadow.exists() => {
                        Some(name.clone())
                    },
                    ShadowKind::Named(_) | ShadowKind::Classic => None,
                });
            let names = names.filter(|name| after.as_ref().is_none_or(|after| name > after));
            Ok(page(names.collect(), limit, |name| {
                name.as_str().to_owned()
            }))
        })
    }

    fn clients(
        &self,
        after: Option<ClientId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Client>, Refusal>> {
        self.run(move |tables| {
            let clients = tables.clients.values().filter(|client| {
                after
                    .as_ref()
                    .is_none_or(|after| client.id.as_str() > after.as_str())
            });
            Ok(page(clients.cloned().collect(), limit, |client| {
                client.id.clone()
            }))
        })
    }

    fn client<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<Option<Client>, Refusal>> {
        self.run(|tables| Ok(tables.clients.get(id.as_str()).cloned()))
    }

    fn subscriptions<'a>(
        &'a self,
        id: &'a ClientId,
    ) -> BoxFuture<'a, Result<Option<Vec<Subscription>>, Refusal>> {
        self.run(|tables| Ok(tables.subscriptions.get(id.as_str()).cloned()))
    }

    fn kick<'a>(&'a self, id: &'a ClientId, how: Kick) -> BoxFuture<'a, Result<bool, Refusal>> {
        self.run(move |tables| {
            let there = tables.clients.remove(id.as_str()).is_some();
            if there {
                tables.kicked.push((id.as_str().to_owned(), how));
            }
            Ok(there)
        })
    }

    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), Refusal>> {
        self.run(move |tables| {
            tables.published.push(message);
            Ok(())
        })
    }

    fn send_direct<'a>(
        &'a self,
        id: &'a ClientId,
        message: Message,
        confirm: Option<Duration>,
    ) -> BoxFuture<'a, Result<Direct, Refusal>> {
        self.run(move |tables| {
            if !tables.clients.contains_key(id.as_str()) {
                return Ok(Direct::NotConnected);
            }
            tables
                .direct
                .push((id.as_str().to_owned(), message, confirm));
            Ok(match id.as_str() {
                "mute" => Direct::NotConfirmed,
                "deaf" => Direct::Forbidden,
                _ => Direct::Sent,
            })
        })
    }

    fn retained<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Message>>, Refusal>> {
        self.run(move |tables| Ok(tables.retained.get(topic).cloned()))
    }

    fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<RetainedSummary>, Refusal>> {
        self.run(move |tables| {
            let found = tables.retained.values();
            let found = found.filter(|one| after.as_ref().is_none_or(|after| one.topic > *after));
            let summaries = found.map(|message| RetainedSummary {
                topic: message.topic.clone(),
                payload_bytes: message.payload.len() as u64,
                qos: message.qos,
                stored_at: message.received_at,
            });
            Ok(page(summaries.collect(), limit, |summary| {
                summary.topic.clone()
            }))
        })
    }

    fn operator(&self) -> &dyn Operator {
        &self.paper
    }

    fn checks(&self) -> Vec<Check> {
        self.with(|tables| tables.checks.clone())
    }

    fn events(&self, after: Option<u64>) -> EventStream {
        let (past, live) = self.with(|tables| {
            let oldest = tables.history.first().map_or(0, |event| event.sequence);
            let mut past = Vec::new();
            if let Some(after) = after {
                if after + 1 < oldest {
                    past.push(Feed::Lagged { next: oldest });
                }
                let kept = tables.history.iter().filter(|event| event.sequence > after);
                past.extend(kept.cloned().map(Feed::Event));
            }
            (past, self.live.subscribe())
        });
        let live = BroadcastStream::new(live).map(|next| match next {
            Ok(event) => Feed::Event(event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Feed::Lagged { next: missed },
        });
        Box::pin(futures_util::stream::iter(past).chain(live))
    }

    fn metrics(&self) -> String {
        "# TYPE umbel_build_info gauge\numbel_build_info 1\n".to_owned()
    }
}
