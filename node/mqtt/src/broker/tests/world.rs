//! A broker, a fleet that only counts epochs, and clients that speak packets.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::Decoder as _;
use umbel_actors::ports::{BoxFuture, Clock, EvictReason, Outbox};
use umbel_core::{
    device::{self, Kind},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShardId},
    message::{Message, Qos},
    policy::{Context as PolicyContext, Policy},
    shadow,
    time::{Tick, Timestamp},
};
use umbel_storage::{Ledger, Table, Write, memory::MemoryLedger};

use super::net::Links;
use crate::{
    authenticate::Identity,
    broker::{Broker, Config, End, FleetError, FleetPort, Opened, Pulse},
    close::{Close, CloseCause},
    outgoing::Outgoing,
    packet::{
        Ack, ConnAck, Connect, Disconnect, Packet, Publish, PublishProperties, RetainHandling,
        Subscribe, SubscribeOptions, Subscription, Unsubscribe, Will,
    },
    peer::{ListenerId, Peer, Transport},
    reason::{ProtocolVersion, ReasonCode},
    session::Session,
};

pub(super) const V5: ProtocolVersion = ProtocolVersion::V5;
pub(super) const V3: ProtocolVersion = ProtocolVersion::V311;

#[derive(Debug, Default)]
pub(super) struct TestClock(AtomicU64);

impl TestClock {
    pub(super) fn advance_seconds(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000 + self.0.load(Ordering::Relaxed))
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(self.0.load(Ordering::Relaxed))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    epoch: u64,
    gateway: u64,
    expiry: u32,
    connected: bool,
    exists: bool,
    will: Option<Message>,
}

/// Keeps the fleet's promises to the broker, and nothing else.
#[derive(Default)]
pub(super) struct TestFleet {
    records: Arc<Mutex<BTreeMap<ClientId, Record>>>,
    broker: OnceLock<Weak<Broker>>,
    ledger: OnceLock<MemoryLedger>,
    pub(super) ends: Mutex<Vec<(String, u64, End)>>,
    pub(super) requests: Mutex<Vec<shadow::Request>>,
    /// Shadow requests wait until a permit is there.
    pub(super) gate: Option<Arc<tokio::sync::Semaphore>>,
    /// The node of this part of the fleet, if it has more than one.
    net: Option<(NodeId, Arc<Links>)>,
}

impl TestFleet {
    fn wipe(&self, client: &ClientId) {
        let (Some(ledger), prefix) = (self.ledger.get(), format!("{client}\0")) else {
            return;
        };
        let shard = ShardId::of(client.as_str(), ledger.shards());
        let writes = [Table::Subscription, Table::Queue, Table::Inbound]
            .map(|table| Write::delete_prefix(table, prefix.as_bytes()));
        let term = ledger.term(shard).expect("owned");
        drop(ledger.propose(shard, term, writes.into()));
    }

    /// Where the client's actor is.
    fn broker_of(&self, client: &ClientId) -> Arc<Broker> {
        if let Some((_, links)) = &self.net {
            let shards = self.ledger.get().expect("attached").shards();
            return links.owner_of(client, shards).expect("an owner").1;
        }
        self.broker.get().and_then(Weak::upgrade).expect("attached")
    }

    /// The part of a fleet that lives on one node of several.
    pub(super) fn in_net(
        records: &Arc<Mutex<BTreeMap<ClientId, Record>>>,
        net: (NodeId, Arc<Links>),
        broker: &Arc<Broker>,
        ledger: &MemoryLedger,
    ) -> Self {
        Self {
            records: Arc::clone(records),
            broker: OnceLock::from(Arc::downgrade(broker)),
            ledger: OnceLock::from(ledger.clone()),
            net: Some(net),
            ..Self::default()
        }
    }
}

/// The trait's methods on a shared test fleet.
pub(super) struct Port(pub(super) Arc<TestFleet>);

impl FleetPort for Port {
    fn connect(
        &self,
        client: ClientId,
        connect: device::Connect,
    ) -> BoxFuture<'static, Result<Opened, FleetError>> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            let before = fleet
                .records
                .lock()
                .get(&client)
                .cloned()
                .unwrap_or_default();
            let session_present = before.exists && before.expiry > 0 && !connect.clean_start;
            let epoch = before.epoch + 1;
            if before.exists && !session_present {
                fleet.wipe(&client);
                fleet
                    .broker_of(&client)
                    .end_session(&client, SessionEpoch(before.epoch));
            }
            if before.connected {
                let old = SessionEpoch(before.epoch);
                let gateway = NodeId(before.gateway);
                let broker = fleet.broker_of(&client);
                broker.evict(&client, old, gateway, EvictReason::TakenOver);
            }
            let record = Record {
                epoch,
                gateway: connect.gateway.0,
                expiry: connect.expiry,
                connected: true,
                exists: true,
                will: connect.will.map(|will| will.message),
            };
            fleet.records.lock().insert(client, record);
            Ok(Opened {
                epoch: SessionEpoch(epoch),
                session_present,
                pulse: Pulse::none(),
            })
        })
    }

    fn disconnect(
        &self,
        client: ClientId,
        epoch: SessionEpoch,
        end: End,
    ) -> BoxFuture<'static, ()> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            fleet.ends.lock().push((client.to_string(), epoch.0, end));
            let (is_over, will) = {
                let mut records = fleet.records.lock();
                let Some(record) = records
                    .get_mut(&client)
                    .filter(|record| record.epoch == epoch.0)
                else {
                    return;
                };
                record.connected = false;
                record.expiry = end.expiry.unwrap_or(record.expiry);
                record.exists = record.expiry > 0;
                (!record.exists, record.will.take().filter(|_| end.with_will))
            };
            if let Some(will) = will {
                fleet.broker_of(&client).publish(Arc::new(will)).await;
            }
            if is_over {
                fleet.wipe(&client);
                fleet.broker_of(&client).end_session(&client, epoch);
            }
        })
    }

    fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        let (me, links) = self.0.net.as_ref()?;
        let shards = self.0.ledger.get()?.shards();
        let (owner, _) = links.owner_of(client, shards)?;
        let records = self.0.records.lock();
        let record = records.get(client)?;
        (owner == *me && record.connected).then_some(NodeId(record.gateway))
    }

    fn shadow(
        &self,
        _device: DeviceId,
        request: shadow::Request,
    ) -> BoxFuture<'static, Result<(), FleetError>> {
        let fleet = Arc::clone(&self.0);
        Box::pin(async move {
            fleet.requests.lock().push(request);
            if let Some(gate) = &fleet.gate {
                gate.acquire().await.expect("open").forget();
            }
            Ok(())
        })
    }
}

pub(super) struct World {
    pub(super) ledger: MemoryLedger,
    pub(super) broker: Arc<Broker>,
    pub(super) fleet: Arc<TestFleet>,
    pub(super) clock: Arc<TestClock>,
    config: Config,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        Self::build(
            config,
            MemoryLedger::new(4),
            TestFleet::default(),
            Arc::default(),
        )
    }

    pub(super) fn with_gate(gate: &Arc<tokio::sync::Semaphore>) -> Self {
        let fleet = TestFleet {
            gate: Some(Arc::clone(gate)),
            ..TestFleet::default()
        };
        Self::build(
            Config::default(),
            MemoryLedger::new(4),
            fleet,
            Arc::default(),
        )
    }

    fn build(
        config: Config,
        ledger: MemoryLedger,
        fleet: TestFleet,
        clock: Arc<TestClock>,
    ) -> Self {
        let broker = Broker::alone(
            config.clone(),
            Arc::new(ledger.clone()),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        let fleet = Arc::new(fleet);
        assert!(fleet.broker.set(Arc::downgrade(&broker)).is_ok());
        assert!(fleet.ledger.set(ledger.clone()).is_ok());
        broker.attach(Arc::new(Port(Arc::clone(&fleet))));
        Self {
            ledger,
            broker,
            fleet,
            clock,
            config,
        }
    }

    /// The power goes and comes back: a new broker on what was committed. The fleet's records are durable too.
    pub(super) fn crash(&self) -> Self {
        let records = self.fleet.records.lock().clone();
        let fleet = TestFleet {
            records: Arc::new(Mutex::new(records)),
            ..TestFleet::default()
        };
        let world = Self::build(
            self.config.clone(),
            self.ledger.crash_copy(),
            fleet,
            Arc::clone(&self.clock),
        );
        world.broker.recover();
        world
    }

    pub(super) async fn connect(&self, hello: Hello) -> Client {
        self.try_connect(hello).await.expect("accepted")
    }

    pub(super) async fn try_connect(&self, hello: Hello) -> Result<Client, ConnAck> {
        let client = ClientId::parse(&hello.name).expect("valid client id");
        let policy = match &hello.policy {
            Some(policy) => policy.compile(&PolicyContext::new(client.clone())),
            None => Policy::open().compile(&PolicyContext::new(client.clone())),
        };
        let identity = Identity {
            kind: Kind::App,
            device: None,
            principal: "tester".to_owned(),
            policy,
            client,
        };
        connect_to(&self.broker, hello, identity).await
    }

    /// Work that was started on tasks gets its turns.
    pub(super) async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }
}

/// Connects a client whose identity was established.
pub(super) async fn connect_to(
    broker: &Arc<Broker>,
    hello: Hello,
    identity: Identity,
) -> Result<Client, ConnAck> {
    let peer = Peer {
        address: "192.0.2.1:1883".parse().expect("an address"),
        listener: ListenerId::new("test"),
        transport: Transport::Tcp,
        certificates: None,
    };
    let version = hello.connect.version;
    let limit = hello.connect.maximum_packet_size;
    let (session, answer) = broker.connect(hello.connect, identity, peer).await?;
    let out = Outgoing::new(version, limit, true);
    Ok(Client {
        session: Some(session),
        answer,
        out,
        version,
        next_id: 0,
    })
}

pub(super) struct Hello {
    pub(super) name: String,
    pub(super) connect: Connect,
    pub(super) policy: Option<Policy>,
}

/// A CONNECT, to be changed before it is sent.
pub(super) fn hello(name: &str, version: ProtocolVersion) -> Hello {
    let connect = Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        client_id: name.to_owned(),
        username: None,
        password: None,
        will: None,
        session_expiry: None,
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        user: Vec::new(),
    };
    Hello {
        name: name.to_owned(),
        connect,
        policy: None,
    }
}

impl Hello {
    /// Keeps its session: expiry for 5.0, no clean session for 3.1.1.
    pub(super) fn persistent(mut self) -> Self {
        self.connect.clean_start = false;
        self.connect.session_expiry = (self.connect.version == V5).then_some(3600);
        self
    }

    pub(super) fn receive_maximum(mut self, maximum: u16) -> Self {
        self.connect.receive_maximum = NonZeroU16::new(maximum).expect("not zero");
        self
    }

    pub(super) fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    pub(super) fn will(mut self, topic: &str, retain: bool) -> Self {
        self.connect.will = Some(Will {
            topic: topic.to_owned(),
            payload: Bytes::from_static(b"gone"),
            qos: Qos::AtLeastOnce,
            retain,
            delay: 0,
            message_expiry: None,
            properties: None,
        });
        self
    }

    pub(super) fn change(mut self, change: impl FnOnce(&mut Connect)) -> Self {
        change(&mut self.connect);
        self
    }
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Publish(Got),
    PubAck(u16, u8),
    PubRec(u16, u8),
    PubRel(u16, u8),
    PubComp(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Pong,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) id: u16,
    pub(super) dup: bool,
    pub(super) retain: bool,
    pub(super) alias: Option<u16>,
    pub(super) expiry: Option<u32>,
    pub(super) subscription_ids: Vec<u32>,
    pub(super) user: Vec<(String, String)>,
}

pub(super) struct Client {
    pub(super) session: Option<Session>,
    pub(super) answer: ConnAck,
    out: Outgoing,
    version: ProtocolVersion,
    next_id: u16,
}

impl Client {
    /// Sends a packet and hears everything said because of it, or why the connection ends.
    pub(super) fn try_send(&mut self, packet: Packet) -> Result<Vec<Said>, Close> {
        let session = self.session.as_mut().expect("connected");
        session.handle(packet, Tick::default(), &mut self.out)?;
        self.try_hear()
    }

    pub(super) fn send(&mut self, packet: Packet) -> Vec<Said> {
        self.try_send(packet).expect("the connection stays")
    }

    /// Hears everything there is to say now.
    pub(super) fn try_hear(&mut self) -> Result<Vec<Said>, Close> {
        let mut heard = Vec::new();
        let session = self.session.as_mut().expect("connected");
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let polled = session.poll_output(&mut cx, Tick::default(), &mut self.out);
            heard.extend(decode(self.version, self.out.bytes()));
            self.out.buffer_mut().clear();
            match polled {
                Poll::Ready(Ok(())) => {},
                Poll::Ready(Err(close)) => return Err(close),
                Poll::Pending => return Ok(heard),
            }
        }
    }

    pub(super) fn hear(&mut self) -> Vec<Said> {
        self.try_hear().expect("the connection stays")
    }

    /// The messages among what there is to hear.
    pub(super) fn messages(&mut self) -> Vec<Got> {
        messages(self.hear())
    }

    pub(super) fn payloads(&mut self) -> Vec<String> {
        self.messages().into_iter().map(|got| got.payload).collect()
    }

    pub(super) fn id(&mut self) -> NonZeroU16 {
        self.next_id += 1;
        NonZeroU16::new(self.next_id).expect("not zero")
    }

    pub(super) fn subscribe(&mut self, filter: &str, qos: Qos) -> Vec<Said> {
        self.subscribe_with(filter, None, |options| options.qos = qos)
    }

    pub(super) fn subscribe_with(
        &mut self,
        filter: &str,
        id: Option<u32>,
        change: impl FnOnce(&mut SubscribeOptions),
    ) -> Vec<Said> {
        let packet = self.subscribe_packet(filter, id, change);
        self.send(packet)
    }

    pub(super) fn subscribe_packet(
        &mut self,
        filter: &str,
        id: Option<u32>,
        change: impl FnOnce(&mut SubscribeOptions),
    ) -> Packet {
        let mut options = SubscribeOptions {
            qos: Qos::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        change(&mut options);
        Packet::Subscribe(Box::new(Subscribe {
            packet_id: self.id(),
            subscription_id: id.and_then(NonZeroU32::new),
            filters: vec![Subscription {
                filter: filter.to_owned(),
                options,
            }],
            user: Vec::new(),
        }))
    }

    pub(super) fn unsubscribe(&mut self, filter: &str) -> Vec<Said> {
        let packet = Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: self.id(),
            filters: vec![filter.to_owned()],
            user: Vec::new(),
        }));
        self.send(packet)
    }

    pub(super) fn publish(&mut self, topic: &str, payload: &str, qos: Qos) -> Vec<Said> {
        let publish = self.message(topic, payload, qos);
        self.send(Packet::Publish(publish))
    }

    pub(super) fn retain(&mut self, topic: &str, payload: &str) -> Vec<Said> {
        let mut publish = self.message(topic, payload, Qos::AtLeastOnce);
        publish.retain = true;
        self.send(Packet::Publish(publish))
    }

    pub(super) fn message(&mut self, topic: &str, payload: &str, qos: Qos) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.to_owned(),
            packet_id: (qos > Qos::AtMostOnce).then(|| self.id()),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            properties: None,
        }
    }

    pub(super) fn message_with(
        &mut self,
        topic: &str,
        payload: &str,
        qos: Qos,
        change: impl FnOnce(&mut PublishProperties),
    ) -> Publish {
        let mut publish = self.message(topic, payload, qos);
        let mut properties = PublishProperties::default();
        change(&mut properties);
        publish.properties = Some(Box::new(properties));
        publish
    }

    pub(super) fn puback(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubAck(ack(id)))
    }

    pub(super) fn pubrec(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubRec(ack(id)))
    }

    pub(super) fn pubrel(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubRel(ack(id)))
    }

    pub(super) fn pubcomp(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubComp(ack(id)))
    }

    /// Says goodbye.
    pub(super) async fn disconnect(mut self) {
        let goodbye =
            Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
        let close = self.try_send(goodbye).expect_err("closes");
        self.session.take().expect("connected").close(close).await;
    }

    /// The socket breaks.
    pub(super) async fn lose(mut self) {
        let close = Close::silent(CloseCause::ConnectionLost);
        self.session.take().expect("connected").close(close).await;
    }
}

pub(super) fn ack(id: u16) -> Ack {
    Ack::new(NonZeroU16::new(id).expect("not zero"), ReasonCode::Success)
}

pub(super) fn messages(said: Vec<Said>) -> Vec<Got> {
    said.into_iter()
        .filter_map(|said| match said {
            Said::Publish(got) => Some(got),
            _ => None,
        })
        .collect()
}

pub(super) fn only(said: &[Said]) -> &Said {
    assert_eq!(said.len(), 1, "{said:?}");
    &said[0]
}

fn decode(version: ProtocolVersion, bytes: &[u8]) -> Vec<Said> {
    let mut bytes = BytesMut::from(bytes);
    let mut said = Vec::new();
    if version == V5 {
        let mut codec = v5::Codec::new(1 << 20, 1 << 20);
        while let Some((packet, _)) = codec.decode(&mut bytes).expect("a valid packet") {
            said.push(said_v5(packet));
        }
    } else {
        let mut codec = v3::Codec::new(1 << 20);
        while let Some((packet, _)) = codec.decode(&mut bytes).expect("a valid packet") {
            said.push(said_v3(packet));
        }
    }
    said
}

fn said_v5(packet: v5::Packet) -> Said {
    match packet {
        v5::Packet::Publish(publish) => {
            let properties = publish.properties.clone().unwrap_or_default();
            Said::Publish(Got {
                topic: publish.topic.to_string(),
                payload: String::from_utf8_lossy(&publish.payload).into_owned(),
                qos: publish.qos as u8,
                id: publish.packet_id.map_or(0, NonZeroU16::get),
                dup: publish.dup,
                retain: publish.retain,
                alias: properties.topic_alias.map(NonZeroU16::get),
                expiry: properties.message_expiry_interval.map(NonZeroU32::get),
                subscription_ids: {
                    let mut ids: Vec<_> = properties
                        .subscription_ids
                        .iter()
                        .map(|id| id.get())
                        .collect();
                    ids.sort_unstable();
                    ids
                },
                user: properties
                    .user_properties
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
            })
        },
        v5::Packet::PublishAck(ack) => Said::PubAck(ack.packet_id.get(), ack.reason_code as u8),
        v5::Packet::PublishReceived(ack) => {
            Said::PubRec(ack.packet_id.get(), ack.reason_code as u8)
        },
        v5::Packet::PublishRelease(ack) => Said::PubRel(ack.packet_id.get(), ack.reason_code as u8),
        v5::Packet::PublishComplete(ack) => {
            Said::PubComp(ack.packet_id.get(), ack.reason_code as u8)
        },
        v5::Packet::SubscribeAck(ack) => Said::SubAck(
            ack.packet_id.get(),
            ack.status.iter().map(|code| *code as u8).collect(),
        ),
        v5::Packet::UnsubscribeAck(ack) => Said::UnsubAck(
            ack.packet_id.get(),
            ack.status.iter().map(|code| *code as u8).collect(),
        ),
        v5::Packet::PingResponse => Said::Pong,
        other => panic!("not for a client in a session: {other:?}"),
    }
}

fn said_v3(packet: v3::Packet) -> Said {
    match packet {
        v3::Packet::Publish(publish) => Said::Publish(Got {
            topic: publish.topic.to_string(),
            payload: String::from_utf8_lossy(&publish.payload).into_owned(),
            qos: publish.qos as u8,
            id: publish.packet_id.map_or(0, NonZeroU16::get),
            dup: publish.dup,
            retain: publish.retain,
            ..Got::default()
        }),
        v3::Packet::PublishAck { packet_id } => Said::PubAck(packet_id.get(), 0),
        v3::Packet::PublishReceived { packet_id } => Said::PubRec(packet_id.get(), 0),
        v3::Packet::PublishRelease { packet_id } => Said::PubRel(packet_id.get(), 0),
        v3::Packet::PublishComplete { packet_id } => Said::PubComp(packet_id.get(), 0),
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |code: &v3::SubscribeReturnCode| match code {
                v3::SubscribeReturnCode::Success(qos) => *qos as u8,
                v3::SubscribeReturnCode::Failure => 0x80,
            };
            Said::SubAck(packet_id.get(), status.iter().map(code).collect())
        },
        v3::Packet::UnsubscribeAck { packet_id } => Said::UnsubAck(packet_id.get(), Vec::new()),
        v3::Packet::PingResponse => Said::Pong,
        other => panic!("not for a client in a session: {other:?}"),
    }
}
