//! The edge over the real fleet and broker, which keep everything in memory.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use umbel_actors::{Fleet, Realm, Rounds, Running, ports::Clock};
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    policy::{Context, Policy},
    time::{Tick, Timestamp},
};
use umbel_http::{
    Access, Api, Caller, Instruments, Limits, aws_router,
    port::{Backend, Check},
    router,
};
use umbel_mqtt::{
    authenticate::Identity,
    broker::{Broker, Config},
    packet::{Connect, ProtocolVersion},
    peer::{ListenerId, Peer, Transport},
    session::Session,
};
use umbel_storage::{ledger::Refusal, memory::MemoryLedger};

use crate::{
    memory::NOW,
    support::{Answer, JSON, MERGE, call, raw},
};

const PATIENCE: Duration = Duration::from_secs(10);

struct Uptime(Instant);

impl Clock for Uptime {
    fn wall(&self) -> Timestamp {
        NOW + self.0.elapsed()
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(0) + self.0.elapsed()
    }
}

struct World {
    api: Router,
    aws: Router,
    broker: Arc<Broker>,
    ledger: MemoryLedger,
    running: Option<Running>,
    _rounds: Rounds,
    _stop: watch::Sender<bool>,
}

impl World {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(Uptime(Instant::now()));
        let ledger = MemoryLedger::new(4);
        let shared = Arc::new(ledger.clone());
        let broker = Broker::alone(
            Config::default(),
            Arc::<MemoryLedger>::clone(&shared),
            Arc::clone(&clock),
        );
        let outbox = Arc::<Broker>::clone(&broker);
        let config = umbel_actors::Config::default();
        let started = Fleet::start(config, shared, outbox, Arc::clone(&clock)).await;
        let (fleet, running) = started.expect("a fleet");
        let peers = Arc::new(umbel_actors::ports::NoPeers);
        let (realm, rounds) = Realm::start(fleet, peers, umbel_actors::Timing::default());
        broker.attach(Arc::new(realm.clone()));
        realm.local().recover().await;
        let check = || {
            vec![Check {
                name: "shards",
                ok: true,
                detail: "4 owned".to_owned(),
            }]
        };
        let instruments = Instruments {
            checks: Box::new(check),
            metrics: Box::new(|| "# none\n".to_owned()),
            operator: Arc::new(umbel_http::operator::Alone),
            elsewhere: Arc::new(umbel_http::Nowhere),
        };
        let backend: Arc<dyn Backend> =
            Arc::new(Api::new(realm, Arc::clone(&broker), clock, instruments));
        let anybody = ClientId::parse("anybody").expect("an id");
        let policy = Policy::open().compile(&Context::new(anybody));
        let caller = Caller {
            principal: "anybody".to_owned(),
            policy,
        };
        let (stop, stopped) = watch::channel(false);
        let limits = Limits::default();
        Self {
            aws: aws_router(Arc::clone(&backend), Access::Open(caller), &limits),
            api: router(backend, &limits, stopped),
            broker,
            ledger,
            running: Some(running),
            _rounds: rounds,
            _stop: stop,
        }
    }

    async fn get(&self, uri: &str) -> Answer {
        call(&self.api, "GET", uri, &[], "").await
    }

    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        call(&self.api, method, uri, headers, body.to_owned()).await
    }

    /// Connects a device as its listener would.
    async fn connect(&self, device: &str) -> Session {
        let id = DeviceId::parse(device).expect("an id");
        let client = ClientId::from(id.clone());
        let identity = Identity {
            kind: Kind::Device,
            device: Some(id),
            principal: "certificate-7".to_owned(),
            policy: Policy::open().compile(&Context::new(client.clone())),
            client,
        };
        let peer = Peer {
            address: "192.0.2.7:4711".parse().expect("an address"),
            listener: ListenerId::new("mqtts"),
            transport: Transport::Tls,
            certificates: None,
        };
        let (session, _) = self
            .broker
            .connect(hello(device), identity, peer)
            .await
            .expect("accepted");
        session
    }

    /// Waits until an answer looks as it should.
    async fn eventually(&self, uri: &str, looks: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            loop {
                let answer = self.get(uri).await;
                if answer.status == 200 && looks(&answer.json()) {
                    return answer.json();
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("in time")
    }
}

fn hello(client: &str) -> Connect {
    Connect {
        version: ProtocolVersion::V5,
        clean_start: false,
        keep_alive: 60,
        client_id: client.to_owned(),
        username: None,
        password: None,
        will: None,
        session_expiry: Some(3600),
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_response_information: false,
        request_problem_information: true,
        authentication_method: None,
        authentication_data: None,
        user: Vec::new(),
    }
}

#[tokio::test]
async fn a_device_that_connects_is_online_with_its_session() {
    let world = World::new().await;
    world
        .get("/api/v1/devices/camera-1")
        .await
        .is_problem(404, "not-found");
    let _session = world.connect("camera-1").await;
    let device = world.get("/api/v1/devices/camera-1").await.json();
    assert_eq!(device["state"], "online");
    assert_eq!(device["reason"], "CONNECTED");
    assert_eq!(device["listed"], false);
    assert_eq!(device["session"]["protocol"], "5.0");
    assert_eq!(device["session"]["principal"], "certificate-7");
    assert_eq!(device["session"]["ip"], "192.0.2.7");
    assert_eq!(device["session"]["listener"], "mqtts");
    assert_eq!(device["session"]["keep_alive_seconds"], 60);
    let listed = world.get("/api/v1/devices?state=online").await.json();
    assert_eq!(listed["items"][0]["id"], "camera-1");
    assert_eq!(
        world.get("/api/v1/devices?state=offline").await.json()["items"],
        json!([])
    );
}

#[tokio::test]
async fn a_client_is_shown_connected_and_then_gone() {
    let world = World::new().await;
    let session = world.connect("camera-1").await;
    let client = world.get("/api/v1/clients/camera-1").await.json();
    assert_eq!(
        (&client["kind"], &client["connected"]),
        (&json!("device"), &json!(true))
    );
    assert_eq!(client["port"], 4711);
    let listed = world.get("/api/v1/clients").await.json();
    assert_eq!(listed["items"][0]["id"], "camera-1");
    let shown = call(&world.aws, "GET", "/connections/camera-1", &[], "")
        .await
        .json();
    assert_eq!(
        (&shown["connected"], &shown["thingName"]),
        (&json!(true), &json!("camera-1"))
    );
    session
        .close(umbel_mqtt::close::Close::silent(
            umbel_mqtt::close::CloseCause::ConnectionLost,
        ))
        .await;
    let gone = world.eventually("/api/v1/clients/camera-1", |client| {
        client["connected"] == false
    });
    let gone = gone.await;
    assert_eq!(gone["disconnect_reason"], "CONNECTION_LOST");
    assert!(gone["disconnected_at"].is_string());
    assert_eq!(
        world.get("/api/v1/devices/camera-1").await.json()["state"],
        "offline"
    );
}

#[tokio::test]
async fn a_registration_is_written_under_its_revision() {
    let world = World::new().await;
    let once = [JSON, ("if-none-match", "*")];
    let body = r#"{"type":"camera","tags":{"model":"x2"},"attributes":{"serial":"7"}}"#;
    let created = world.send("PUT", "/api/v1/devices/new", &once, body).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.json()["state"], "never");
    assert_eq!(created.json()["listed"], true);
    let again = world.send("PUT", "/api/v1/devices/new", &once, body).await;
    again.is_problem(412, "precondition-failed");
    let tag = created.header("etag").to_owned();
    let at = [MERGE, ("if-match", tag.as_str())];
    let changed = world
        .send("PATCH", "/api/v1/devices/new", &at, r#"{"site":"roof"}"#)
        .await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let stale = world
        .send("PATCH", "/api/v1/devices/new", &at, r#"{"site":"x"}"#)
        .await;
    stale.is_problem(412, "precondition-failed");
    let replaced = world
        .send(
            "PUT",
            "/api/v1/devices/new",
            &[JSON],
            r#"{"region":"eu-1"}"#,
        )
        .await;
    let device = replaced.json();
    assert_eq!(
        (&device["region"], &device["site"]),
        (&json!("eu-1"), &json!(null))
    );
    assert_eq!(
        (&device["tags"], &device["attributes"]),
        (&json!({}), &json!({}))
    );
    let bad = world
        .send("PATCH", "/api/v1/devices/new", &[MERGE], r#"{"typo":1}"#)
        .await;
    bad.is_problem(400, "invalid-request");
    assert_eq!(
        world
            .send("DELETE", "/api/v1/devices/new", &[], "")
            .await
            .status,
        204
    );
    world
        .get("/api/v1/devices/new")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn both_apis_see_the_same_shadow() {
    let world = World::new().await;
    let uri = "/api/v1/devices/camera-1/shadows/$classic";
    let body = r#"{"desired":{"a":1}}"#;
    assert_eq!(world.send("PATCH", uri, &[MERGE], body).await.status, 200);
    let seen = call(&world.aws, "GET", "/things/camera-1/shadow", &[], "").await;
    assert_eq!(seen.json()["state"]["desired"], json!({"a": 1}));
    let update = r#"{"state":{"reported":{"a":1}}}"#;
    call(&world.aws, "POST", "/things/camera-1/shadow", &[], update).await;
    let shadow = world.get(uri).await;
    assert_eq!(shadow.header("etag"), "\"2\"");
    assert_eq!(shadow.json()["delta"], json!({}));
    let listed = world.get("/api/v1/devices/camera-1/shadows").await;
    assert_eq!(listed.json()["items"], json!(["$classic"]));
}

#[tokio::test]
async fn a_publish_to_a_shadow_topic_is_a_shadow_request() {
    let world = World::new().await;
    let topic = "/topics/$aws/things/camera-1/shadow/update?qos=1";
    let body = r#"{"state":{"desired":{"a":1}}}"#;
    assert_eq!(call(&world.aws, "POST", topic, &[], body).await.status, 200);
    let shadow = world.get("/api/v1/devices/camera-1/shadows/$classic").await;
    assert_eq!(shadow.json()["desired"], json!({"a": 1}));
}

#[tokio::test]
async fn a_retained_message_is_kept_listed_and_deleted() {
    let world = World::new().await;
    let publish = "/topics/a/b?qos=1&retain=true";
    assert_eq!(
        call(&world.aws, "POST", publish, &[], "hello").await.status,
        200
    );
    let one = call(&world.aws, "GET", "/retainedMessage/a%2Fb", &[], "")
        .await
        .json();
    assert_eq!(
        (&one["payload"], &one["qos"]),
        (&json!("aGVsbG8="), &json!(1))
    );
    let all = call(&world.aws, "GET", "/retainedMessage", &[], "")
        .await
        .json();
    assert_eq!(all["retainedTopics"][0]["topic"], "a/b");
    call(&world.aws, "POST", publish, &[], "").await;
    assert_eq!(
        call(&world.aws, "GET", "/retainedMessage/a%2Fb", &[], "")
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn presence_and_shadow_changes_reach_the_stream() {
    let world = World::new().await;
    let response = raw(&world.api, "GET", "/api/v1/events", &[], Body::empty()).await;
    let mut body = response.into_body().into_data_stream();
    let _session = world.connect("camera-1").await;
    let uri = "/api/v1/devices/camera-1/shadows/config";
    world
        .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    let mut text = String::new();
    while !text.contains("event: shadow") {
        let next = timeout(PATIENCE, body.next()).await.expect("in time");
        let chunk = next.expect("no end").expect("a chunk");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    assert!(
        text.contains("event: presence") && text.contains(r#""state":"online""#),
        "{text}"
    );
    assert!(text.contains(r#""shadow":"config","version":1"#), "{text}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_by_name_and_reads_go_on() {
    let world = World::new().await;
    let uri = "/api/v1/devices/camera-1/shadows/$classic";
    world
        .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    world.ledger.refuse(Some(Refusal::StorageFull));
    let refused = world
        .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":2}}"#)
        .await;
    refused.is_problem(503, "storage-full");
    let refused = call(
        &world.aws,
        "POST",
        "/things/camera-1/shadow",
        &[],
        r#"{"state":{}}"#,
    )
    .await;
    assert_eq!(
        refused.header("x-amzn-errortype"),
        "ServiceUnavailableException"
    );
    assert_eq!(world.get(uri).await.json()["desired"], json!({"a": 1}));
    world.ledger.refuse(None);
    assert_eq!(
        world
            .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":2}}"#)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn too_many_requests_of_one_device_are_429() {
    let world = World::new().await;
    let uri = "/api/v1/devices/camera-1/shadows/$classic";
    world.ledger.hold();
    let many = futures_util::future::join_all((0..12).map(async |_| {
        let answer = world
            .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":1}}"#)
            .await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), "1");
            world.ledger.release();
        }
        answer.status
    }));
    let answers = timeout(PATIENCE, many).await.expect("in time");
    assert_eq!(
        answers.iter().filter(|status| **status == 200).count(),
        10,
        "{answers:?}"
    );
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 2);
}

#[tokio::test]
async fn a_kicked_client_is_told_to_go() {
    let world = World::new().await;
    let _session = world.connect("camera-1").await;
    assert_eq!(
        world
            .send("DELETE", "/api/v1/clients/camera-1", &[], "")
            .await
            .status,
        204
    );
    let nobody = world
        .send("DELETE", "/api/v1/clients/nobody", &[], "")
        .await;
    nobody.is_problem(404, "not-found");
}

#[tokio::test]
async fn a_stopped_fleet_refuses_by_name() {
    let mut world = World::new().await;
    let running = world.running.take().expect("runs");
    running.shutdown(PATIENCE).await;
    let uri = "/api/v1/devices/camera-1/shadows/$classic";
    let refused = world
        .send("PATCH", uri, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    assert_eq!(refused.status, 503);
    assert!(!refused.header("retry-after").is_empty());
}
