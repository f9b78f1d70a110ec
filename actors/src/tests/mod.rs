//! Behaviour of the fleet over a ledger in memory, an outbox that writes down, and a clock that is moved.

mod bounds;
mod crash;
mod lists;
mod realm;
mod recovery;
mod sessions;
mod shadows;
mod sleep;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use umbel_core::{
    device::{Connect, Kind, Will},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShadowName},
    message::{Message, Qos},
    shadow::{Origin, Reply, Request, ShadowKind, Verb},
    time::{Tick, Timestamp},
};
use umbel_storage::memory::MemoryLedger;

use crate::{
    Config, Fleet, Running,
    ports::{BoxFuture, Clock, EvictReason, Outbox},
};

/// Long enough for a slow machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that moves when told to.
#[derive(Default)]
struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0
            .fetch_add(by.as_millis().try_into().expect("short"), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + self.0.load(Ordering::SeqCst))
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(1 + self.0.load(Ordering::SeqCst))
    }
}

/// What the outbox was asked to do, in order.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Published(String, Value),
    Evicted(ClientId, SessionEpoch, EvictReason),
    Ended(ClientId, SessionEpoch),
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Told>>, AtomicBool);

impl Recorder {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock())
    }

    /// From now on a publish is noted and never ends.
    fn stop_delivering(&self) {
        self.1.store(true, Ordering::SeqCst);
    }

    fn topics(&self) -> Vec<String> {
        let told = self.0.lock();
        let topics = told.iter().filter_map(|told| match told {
            Told::Published(topic, _) => Some(topic.clone()),
            Told::Evicted(..) | Told::Ended(..) => None,
        });
        topics.collect()
    }
}

impl Outbox for Recorder {
    fn publish(&self, message: Arc<Message>) -> BoxFuture<'static, ()> {
        let body = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
        self.0
            .lock()
            .push(Told::Published(message.topic.clone(), body));
        if self.1.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(()))
    }

    fn evict(&self, client: &ClientId, epoch: SessionEpoch, _: NodeId, reason: EvictReason) {
        self.0
            .lock()
            .push(Told::Evicted(client.clone(), epoch, reason));
    }

    fn end_session(&self, client: &ClientId, epoch: SessionEpoch) {
        self.0.lock().push(Told::Ended(client.clone(), epoch));
    }
}

/// A fleet and the world around it.
struct World {
    fleet: Fleet,
    running: Running,
    ledger: MemoryLedger,
    outbox: Arc<Recorder>,
    clock: Arc<ManualClock>,
}

fn quick() -> Config {
    Config {
        tick: Duration::from_millis(2),
        ..Config::default()
    }
}

impl World {
    async fn new(config: Config) -> Self {
        Self::over(MemoryLedger::new(4), config, Arc::default()).await
    }

    async fn over(ledger: MemoryLedger, config: Config, clock: Arc<ManualClock>) -> Self {
        let outbox = Arc::<Recorder>::default();
        let (fleet, running) = Fleet::start(
            config,
            Arc::new(ledger.clone()),
            Arc::clone(&outbox) as Arc<dyn Outbox>,
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .await
        .expect("the fleet starts");
        assert_eq!(fleet.recover().await.failed, 0);
        Self {
            fleet,
            running,
            ledger,
            outbox,
            clock,
        }
    }

    /// What a restart after a crash at this moment finds.
    async fn crashed(self, config: Config) -> Self {
        let copy = self.ledger.crash_copy();
        let clock = Arc::clone(&self.clock);
        self.running.shutdown(Duration::from_millis(10)).await;
        Self::over(copy, config, clock).await
    }

    async fn update(&self, id: &str, body: &str) -> Result<Reply, crate::Refused> {
        self.fleet
            .shadow(&device(id), request(Verb::Update, body))
            .await
    }

    async fn version(&self, id: &str) -> u64 {
        version(
            &self
                .fleet
                .shadow(&device(id), request(Verb::Get, ""))
                .await
                .expect("served"),
        )
    }
}

fn device(id: &str) -> DeviceId {
    DeviceId::parse(id).expect("device id")
}

fn client(id: &str) -> ClientId {
    ClientId::parse(id).expect("client id")
}

fn request(verb: Verb, body: &str) -> Request {
    Request {
        shadow: ShadowKind::Classic,
        verb,
        payload: Bytes::copy_from_slice(body.as_bytes()),
        origin: Origin::Mqtt {
            client: client("tester"),
        },
    }
}

fn named(name: &str, verb: Verb, body: &str) -> Request {
    let name = ShadowName::parse(name).expect("shadow name");
    Request {
        shadow: ShadowKind::Named(name),
        ..request(verb, body)
    }
}

fn version(reply: &Reply) -> u64 {
    match reply {
        Reply::Accepted(body) => {
            let body: Value = serde_json::from_slice(body).expect("JSON");
            body["version"].as_u64().expect("a version")
        },
        Reply::Rejected(rejection) => panic!("rejected: {:?}", rejection.error),
    }
}

fn hello(will: Option<Will>) -> Connect {
    Connect {
        kind: Kind::Device,
        protocol: 5,
        clean_start: false,
        expiry: 3600,
        keep_alive: 60,
        will,
        principal: "certificate".to_owned(),
        ip: "127.0.0.1".to_owned(),
        listener: "test".to_owned(),
        gateway: NodeId(0),
        gateway_boot: 0,
    }
}

fn will(topic: &str, delay: u32) -> Will {
    let message = Message::from_cluster(
        topic.to_owned(),
        Bytes::from_static(b"\"gone\""),
        Qos::AtLeastOnce,
        Timestamp::default(),
    );
    Will {
        message,
        delay,
        expiry: None,
    }
}

/// What must not happen has its time to happen: a timer that is due by the clock of a test fires within a turn or two of
/// the runtime. This is time and not a state, because nothing tells that nothing happened.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

/// Waits until something holds.
async fn eventually(why: &str, mut holds: impl FnMut() -> bool) {
    let until = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < until,
            "never came true: {why}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
