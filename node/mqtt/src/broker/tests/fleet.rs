//! The broker with the real fleet behind it: both on one ledger, as in the node.

use std::sync::Arc;

use umbel_actors::{
    Config as FleetConfig, Fleet, Realm, Rounds, Running, Timing,
    ports::{NoPeers, Outbox},
};
use umbel_core::{
    device::Kind,
    ids::{ClientId, DeviceId},
    message::Qos,
    policy::{Context, Policy},
};
use umbel_storage::{Ledger, memory::MemoryLedger};

use super::world::{Client, Got, Hello, Said, TestClock, V3, V5, connect_to, hello};
use crate::{
    authenticate::Identity,
    broker::{Broker, Config},
    close::CloseCause,
};

struct Node {
    ledger: MemoryLedger,
    broker: Arc<Broker>,
    clock: Arc<TestClock>,
    running: Running,
    rounds: Rounds,
}

impl Node {
    async fn start(ledger: MemoryLedger, clock: Arc<TestClock>) -> Self {
        let shared: Arc<dyn Ledger> = Arc::new(ledger.clone());
        let broker = Broker::alone(
            Config::default(),
            Arc::clone(&shared),
            Arc::clone(&clock) as _,
        );
        let outbox: Arc<dyn Outbox> = Arc::clone(&broker) as _;
        let (fleet, running) = Fleet::start(
            FleetConfig::default(),
            shared,
            outbox,
            Arc::clone(&clock) as _,
        )
        .await
        .expect("starts");
        let (realm, rounds) = Realm::start(fleet, Arc::new(NoPeers), Timing::default());
        broker.attach(Arc::new(realm.clone()));
        broker.recover();
        realm.local().recover().await;
        Self {
            ledger,
            broker,
            clock,
            running,
            rounds,
        }
    }

    async fn new() -> Self {
        Self::start(MemoryLedger::new(4), Arc::default()).await
    }

    /// The power goes and comes back.
    async fn crash(self) -> Self {
        let next = Self::start(self.ledger.crash_copy(), Arc::clone(&self.clock)).await;
        self.rounds.shutdown().await;
        self.running
            .shutdown(std::time::Duration::from_secs(5))
            .await;
        next
    }

    async fn connect(&self, hello: Hello) -> Client {
        let client = ClientId::parse(&hello.name).expect("valid");
        let identity = Identity {
            kind: Kind::Device,
            device: DeviceId::parse(&hello.name).ok(),
            principal: "tester".to_owned(),
            policy: Policy::open().compile(&Context::new(client.clone())),
            client,
        };
        connect_to(&self.broker, hello, identity)
            .await
            .expect("accepted")
    }
}

/// Hears until `enough` is true of what was heard.
async fn hear_until(client: &mut Client, enough: impl Fn(&[Said]) -> bool) -> Vec<Said> {
    let mut heard = Vec::new();
    for _ in 0..2_000 {
        heard.extend(client.hear());
        if enough(&heard) {
            return heard;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("not enough was heard: {heard:?}");
}

fn messages(said: &[Said]) -> Vec<&Got> {
    said.iter()
        .filter_map(|said| match said {
            Said::Publish(got) => Some(got),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_shadow_update_is_answered_and_acknowledged() {
    let node = Node::new().await;
    let mut device = node.connect(hello("d1", V5)).await;
    let shadow = "$aws/things/d1/shadow";
    device.subscribe(&format!("{shadow}/update/+"), Qos::AtLeastOnce);
    device.publish(
        &format!("{shadow}/update"),
        r#"{"state":{"desired":{"on":true}},"clientToken":"t"}"#,
        Qos::AtLeastOnce,
    );
    let heard = hear_until(&mut device, |heard| {
        messages(heard).len() == 3 && heard.iter().any(|said| matches!(said, Said::PubAck(2, 0)))
    })
    .await;
    let topics: Vec<_> = messages(&heard)
        .iter()
        .map(|got| got.topic.clone())
        .collect();
    let order = ["delta", "documents", "accepted"];
    assert_eq!(topics, order.map(|last| format!("{shadow}/update/{last}")));
    device.publish(&format!("{shadow}/update"), "no json", Qos::AtMostOnce);
    let heard = hear_until(&mut device, |heard| !messages(heard).is_empty()).await;
    assert_eq!(
        messages(&heard)[0].topic,
        format!("{shadow}/update/rejected")
    );
}

#[tokio::test]
async fn updates_of_one_connection_are_worked_on_in_their_order() {
    let node = Node::new().await;
    let mut device = node.connect(hello("d1", V3)).await;
    let mut app = node.connect(hello("app", V5)).await;
    app.subscribe("$aws/things/d1/shadow/update/accepted", Qos::AtLeastOnce);
    for number in 0..8 {
        let body = format!(r#"{{"state":{{"reported":{{"n":{number}}}}}}}"#);
        device.publish("$aws/things/d1/shadow/update", &body, Qos::AtLeastOnce);
    }
    let heard = hear_until(&mut app, |heard| messages(heard).len() == 8).await;
    for (number, got) in messages(&heard).iter().enumerate() {
        assert!(
            got.payload.contains(&format!(r#""n":{number}"#)),
            "{}",
            got.payload
        );
        assert!(
            got.payload
                .contains(&format!(r#""version":{}"#, number + 1)),
            "{}",
            got.payload
        );
    }
}

#[tokio::test]
async fn a_lost_connection_announces_itself_and_leaves_its_will() {
    let node = Node::new().await;
    let mut watcher = node.connect(hello("watcher", V5)).await;
    watcher.subscribe("$aws/events/presence/+/d1", Qos::AtMostOnce);
    watcher.subscribe("wills/#", Qos::AtMostOnce);
    let device = node.connect(hello("d1", V3).will("wills/d1", true)).await;
    device.lose().await;
    let heard = hear_until(&mut watcher, |heard| messages(heard).len() == 3).await;
    let topics: Vec<_> = messages(&heard)
        .iter()
        .map(|got| got.topic.clone())
        .collect();
    assert_eq!(topics[0], "$aws/events/presence/connected/d1");
    assert!(topics.contains(&"$aws/events/presence/disconnected/d1".to_owned()));
    assert!(topics.contains(&"wills/d1".to_owned()));
    assert!(
        node.broker
            .retained_get("wills/d1")
            .await
            .expect("readable")
            .is_some()
    );
    let device = node.connect(hello("d1", V3).will("wills/d1", false)).await;
    device.disconnect().await;
    let heard = hear_until(&mut watcher, |heard| messages(heard).len() == 2).await;
    assert!(
        messages(&heard)
            .iter()
            .all(|got| !got.topic.starts_with("wills"))
    );
}

#[tokio::test]
async fn sessions_and_take_over_go_by_the_fleets_epochs() {
    let node = Node::new().await;
    let mut older = node.connect(hello("d1", V5).persistent()).await;
    older.subscribe("a", Qos::AtLeastOnce);
    let mut writer = node.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    let sent = older.messages().remove(0);
    let mut newer = node.connect(hello("d1", V5).persistent()).await;
    assert!(newer.answer.session_present);
    assert_eq!(
        older.try_hear().expect_err("ends").cause,
        CloseCause::TakenOver
    );
    older.lose().await;
    let again = newer.messages().remove(0);
    assert_eq!((again.id, again.dup), (sent.id, true));
    newer.lose().await;
    writer.publish("a", "y", Qos::AtLeastOnce);

    let node = node.crash().await;
    let mut back = node.connect(hello("d1", V5).persistent()).await;
    assert!(back.answer.session_present);
    assert_eq!(back.payloads(), ["x", "y"]);
    let mut clean = node.connect(hello("d1", V5)).await;
    assert!(!clean.answer.session_present);
    assert_eq!(
        back.try_hear().expect_err("ends").cause,
        CloseCause::TakenOver
    );
    assert!(clean.hear().is_empty());
    assert_eq!(node.broker.totals().subscriptions, 0);
    clean.disconnect().await;
    assert!(
        node.broker
            .client(&ClientId::parse("d1").expect("valid"))
            .is_none()
    );
    let again = node.connect(hello("d1", V5).persistent()).await;
    assert!(!again.answer.session_present);
}

#[tokio::test]
async fn g8_a_take_over_on_a_node_without_others_is_announced_and_leaves_the_will() {
    let node = Node::new().await;
    let mut watcher = node.connect(hello("watcher", V5)).await;
    watcher.subscribe("$aws/events/presence/disconnected/d1", Qos::AtMostOnce);
    watcher.subscribe("wills/#", Qos::AtMostOnce);
    let mut older = node.connect(hello("d1", V5).will("wills/d1", false)).await;
    let _newer = node.connect(hello("d1", V5)).await;
    assert_eq!(
        older.try_hear().expect_err("ends").cause,
        CloseCause::TakenOver
    );
    let heard = hear_until(&mut watcher, |heard| messages(heard).len() == 2).await;
    let heard = messages(&heard);
    let ended = heard
        .iter()
        .find(|got| got.topic.starts_with("$aws"))
        .expect("an event");
    assert!(
        ended.payload.contains("DUPLICATE_CLIENTID"),
        "{}",
        ended.payload
    );
    assert!(heard.iter().any(|got| got.topic == "wills/d1"));
}

#[tokio::test]
async fn a_session_that_is_to_end_with_its_connection_does() {
    let node = Node::new().await;
    let mut device = node.connect(hello("d1", V5).persistent()).await;
    device.subscribe("a", Qos::AtLeastOnce);
    device.lose().await;
    // continued, but no longer kept
    let last = hello("d1", V5)
        .persistent()
        .change(|connect| connect.session_expiry = None);
    let mut device = node.connect(last).await;
    assert!(device.answer.session_present);
    let mut writer = node.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    assert_eq!(device.payloads(), ["x"]);
    device.lose().await;
    let gone = ClientId::parse("d1").expect("valid");
    for _ in 0..2_000 {
        if node.broker.client(&gone).is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(node.broker.client(&gone).is_none());
    let node = node.crash().await;
    assert_eq!(
        (
            node.broker.totals().subscriptions,
            node.broker.totals().queued
        ),
        (0, 0)
    );
}
