//! A broker, a fleet that only counts epochs, and clients that speak packets.

mod client;
mod fleet;
mod hello;
mod said;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use umbel_actors::ports::Clock;
use umbel_core::{
    device::Kind,
    ids::ClientId,
    policy::{Context as PolicyContext, Policy},
    time::{Tick, Timestamp},
};
use umbel_storage::memory::MemoryLedger;

pub(super) use self::{
    client::{Client, ack},
    fleet::{Port, Record, TestFleet},
    hello::{Hello, hello},
    said::{Got, Said, messages, only},
};
use crate::{
    authenticate::Identity,
    broker::{Broker, Config},
    outgoing::Outgoing,
    packet::ConnAck,
    peer::{ListenerId, Peer, Transport},
    reason::ProtocolVersion,
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
