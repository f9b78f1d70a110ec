//! A client library of other people against listener, driver, session, broker and fleet together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS,
    v5::{self, mqttbytes::v5::Packet as PacketV5},
};
use umbel_actors::{
    Config as FleetConfig, Fleet, Realm, Rounds, Running, Timing,
    ports::{BoxFuture, NoPeers, Outbox},
};
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    policy::{Context, Policy},
};
use umbel_storage::{Ledger, memory::MemoryLedger};

use super::world::TestClock;
use crate::{
    authenticate::{AuthError, Authenticator, Credentials, Identity},
    broker::{Broker, Config},
    edge::Edge,
    gate::Door,
    limits::Limits,
    listener::{ListenerConfig, Listeners, Wire},
    peer::ListenerId,
};

struct Anyone;

impl Authenticator for Anyone {
    fn identify<'a>(
        &'a self,
        shown: Credentials<'a>,
    ) -> BoxFuture<'a, Result<Identity, AuthError>> {
        Box::pin(async move {
            let client = ClientId::parse(shown.client_id).map_err(|_bad| AuthError::ClientId)?;
            Ok(Identity {
                kind: Kind::Device,
                device: DeviceId::parse(shown.client_id).ok(),
                principal: "anyone".to_owned(),
                policy: Policy::open().compile(&Context::new(client.clone())),
                client,
            })
        })
    }
}

struct Node {
    broker: Arc<Broker>,
    address: SocketAddr,
    _running: Running,
    _rounds: Rounds,
    _listeners: Listeners<Door>,
}

impl Node {
    async fn start() -> Self {
        let clock: Arc<TestClock> = Arc::default();
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new(4));
        let broker = Broker::alone(
            Config::default(),
            Arc::clone(&ledger),
            Arc::clone(&clock) as _,
        );
        let outbox: Arc<dyn Outbox> = Arc::clone(&broker) as _;
        let (fleet, running) = Fleet::start(
            FleetConfig::default(),
            ledger,
            outbox,
            Arc::clone(&clock) as _,
        )
        .await
        .expect("starts");
        let (realm, rounds) = Realm::start(fleet, Arc::new(NoPeers), Timing::default());
        broker.attach(Arc::new(realm.clone()));
        realm.local().recover().await;
        let door = Arc::new(Door::new(Arc::clone(&broker), Arc::new(Anyone)));
        let edge = Edge::new(door, clock, Limits::default());
        let config = ListenerConfig {
            id: ListenerId::new("test"),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            wire: Wire::Tcp,
            proxy_protocol: false,
        };
        let listeners = Listeners::start(vec![config], &edge).expect("a free port");
        let address = listeners.address("test").expect("started");
        Self {
            broker,
            address,
            _running: running,
            _rounds: rounds,
            _listeners: listeners,
        }
    }

    fn old(&self, name: &str, clean: bool) -> (AsyncClient, EventLoop) {
        let mut options =
            MqttOptions::new(name, self.address.ip().to_string(), self.address.port());
        options.set_clean_session(clean);
        AsyncClient::new(options, 100)
    }

    fn five(&self, name: &str) -> (v5::AsyncClient, v5::EventLoop) {
        let host = self.address.ip().to_string();
        let options = v5::MqttOptions::new(name, host, self.address.port());
        v5::AsyncClient::new(options, 100)
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// Turns the client's wheel until something is seen.
async fn until<T>(events: &mut EventLoop, seen: impl Fn(&Incoming) -> Option<T>) -> T {
    let turning = async {
        loop {
            if let Event::Incoming(incoming) = events.poll().await.expect("connected")
                && let Some(found) = seen(&incoming)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, turning)
        .await
        .expect("seen in time")
}

async fn until_five<T>(events: &mut v5::EventLoop, seen: impl Fn(&PacketV5) -> Option<T>) -> T {
    let turning = async {
        loop {
            if let v5::Event::Incoming(incoming) = events.poll().await.expect("connected")
                && let Some(found) = seen(&incoming)
            {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, turning)
        .await
        .expect("seen in time")
}

#[tokio::test]
async fn a_shadow_is_updated_over_a_socket() {
    let node = Node::start().await;
    let (client, mut events) = node.five("d1");
    let shadow = "$aws/things/d1/shadow/update";
    client
        .subscribe(
            format!("{shadow}/accepted"),
            v5::mqttbytes::QoS::AtLeastOnce,
        )
        .await
        .expect("asked");
    let body = r#"{"state":{"reported":{"on":true}}}"#;
    client
        .publish(shadow, v5::mqttbytes::QoS::AtLeastOnce, false, body)
        .await
        .expect("asked");
    let answer = until_five(&mut events, |packet| match packet {
        PacketV5::Publish(publish) => Some(publish.clone()),
        _ => None,
    })
    .await;
    assert!(String::from_utf8_lossy(&answer.payload).contains(r#""version":1"#));
    until_five(&mut events, |packet| {
        matches!(packet, PacketV5::PubAck(_)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_quality_crosses_versions_and_waits_for_who_was_away() {
    let node = Node::start().await;
    let (reader, mut reading) = node.old("reader", false);
    reader
        .subscribe("a/#", QoS::ExactlyOnce)
        .await
        .expect("asked");
    until(&mut reading, |incoming| {
        matches!(incoming, Incoming::SubAck(_)).then_some(())
    })
    .await;
    reader.disconnect().await.expect("asked");
    while reading.poll().await.is_ok() {}

    let (writer, mut writing) = node.five("writer");
    let qualities = [
        v5::mqttbytes::QoS::AtLeastOnce,
        v5::mqttbytes::QoS::ExactlyOnce,
    ];
    for (number, qos) in qualities.into_iter().enumerate() {
        writer
            .publish(format!("a/{number}"), qos, true, "x")
            .await
            .expect("asked");
    }
    until_five(&mut writing, |packet| {
        matches!(packet, PacketV5::PubAck(_)).then_some(())
    })
    .await;
    until_five(&mut writing, |packet| {
        matches!(packet, PacketV5::PubComp(_)).then_some(())
    })
    .await;

    let (_reader, mut reading) = node.old("reader", false);
    let present = until(&mut reading, |incoming| match incoming {
        Incoming::ConnAck(answer) => Some(answer.session_present),
        _ => None,
    })
    .await;
    assert!(present);
    for number in 0..2 {
        let topic = until(&mut reading, |incoming| match incoming {
            Incoming::Publish(publish) => Some(publish.topic.clone()),
            _ => None,
        })
        .await;
        assert_eq!(topic, format!("a/{number}"));
    }
    until(&mut reading, |incoming| {
        matches!(incoming, Incoming::PubRel(_)).then_some(())
    })
    .await;
    let (late, mut later) = node.old("late", true);
    late.subscribe("a/1", QoS::AtMostOnce).await.expect("asked");
    let retained = until(&mut later, |incoming| match incoming {
        Incoming::Publish(publish) => Some(publish.retain),
        _ => None,
    })
    .await;
    assert!(retained);
    assert_eq!(node.broker.totals().retained, 2);
}
