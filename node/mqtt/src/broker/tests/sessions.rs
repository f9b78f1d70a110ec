//! Connections and sessions: who speaks for a client, and how it ends.

use std::time::Duration;

use umbel_actors::ports::{EvictReason, Outbox};
use umbel_core::{
    device::DisconnectReason,
    ids::{ClientId, NodeId, SessionEpoch},
    message::Qos,
};

use super::world::{Said, V3, V5, World, hello};
use crate::{
    broker::{Broker, Kick},
    close::{Close, CloseCause},
    packet::{Disconnect, Packet},
    reason::ReasonCode,
};

fn id(name: &str) -> ClientId {
    ClientId::parse(name).expect("valid")
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_the_older_is_told() {
    let world = World::new();
    let mut older = world.connect(hello("client", V5).persistent()).await;
    older.subscribe("a", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("a", "x", Qos::AtLeastOnce);
    let unacknowledged = older.messages().remove(0);
    let mut newer = world.connect(hello("client", V5).persistent()).await;
    assert!(newer.answer.session_present);
    let close = older.try_hear().expect_err("ends");
    assert_eq!(
        (close.reason, close.cause),
        (ReasonCode::SessionTakenOver, CloseCause::TakenOver)
    );
    let again = newer.messages().remove(0);
    assert_eq!((again.id, again.dup), (unacknowledged.id, true));
    // the older one may still say things; they change nothing
    assert!(
        older
            .try_send(Packet::PubAck(super::world::ack(again.id)))
            .is_err()
    );
    older.lose().await;
    assert_eq!(world.broker.totals().inflight, 1);
    newer.puback(again.id);
    assert_eq!(world.broker.totals().inflight, 0);
    assert!(world.fleet.ends.lock().is_empty(), "a take-over is no end");
}

#[tokio::test]
async fn a_clean_take_over_forgets_the_older_session() {
    for version in [V3, V5] {
        let world = World::new();
        let mut older = world.connect(hello("client", version)).await;
        older.subscribe("a", Qos::AtLeastOnce);
        let mut newer = world.connect(hello("client", version)).await;
        let close = older.try_hear().expect_err("ends");
        assert_eq!(close.cause, CloseCause::TakenOver);
        newer.subscribe("b", Qos::AtLeastOnce);
        older.lose().await;
        assert_eq!(
            world.broker.totals().subscriptions,
            1,
            "the older one took nothing with it"
        );
        assert_eq!(world.broker.totals().connected, 1);
        let mut writer = world.connect(hello("writer", V5)).await;
        writer.publish("a", "old", Qos::AtLeastOnce);
        writer.publish("b", "new", Qos::AtLeastOnce);
        assert_eq!(newer.payloads(), ["new"]);
    }
}

#[tokio::test]
async fn many_connections_of_one_client_at_once_leave_one() {
    let world = std::sync::Arc::new(World::new());
    let mut clients = Vec::new();
    let attempts = (0..20).map(|number| {
        let hello = hello("client", V5);
        let hello = if number % 2 == 0 {
            hello
        } else {
            hello.persistent()
        };
        world.try_connect(hello)
    });
    for attempt in futures_util::future::join_all(attempts).await {
        clients.extend(attempt.ok());
    }
    let newest = clients
        .iter()
        .filter_map(|client| client.session.as_ref().map(crate::session::Session::epoch))
        .max()
        .expect("one was accepted");
    let mut alive = 0;
    for mut client in clients {
        let epoch = client.session.as_ref().map(crate::session::Session::epoch);
        match client.try_hear() {
            Ok(_) => {
                alive += 1;
                assert_eq!(epoch, Some(newest));
                client.subscribe("a", Qos::AtMostOnce);
            },
            Err(close) => {
                assert_eq!(close.cause, CloseCause::TakenOver);
                client.lose().await;
                continue;
            },
        }
        client.lose().await;
    }
    assert_eq!(alive, 1);
    let totals = world.broker.totals();
    let kept = world
        .broker
        .client(&id("client"))
        .map_or(0, |view| view.subscriptions);
    assert_eq!((totals.connected, totals.subscriptions), (0, kept));
}

#[tokio::test]
async fn a_session_that_keeps_nothing_is_gone_with_its_connection() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5)).await;
    client.subscribe("a", Qos::AtLeastOnce);
    client.disconnect().await;
    assert!(world.broker.client(&id("client")).is_none());
    assert_eq!(world.broker.totals().subscriptions, 0);
    let ends = world.fleet.ends.lock();
    let (name, epoch, end) = &ends[0];
    assert_eq!((name.as_str(), *epoch), ("client", 1));
    assert_eq!(
        (end.reason, end.with_will),
        (DisconnectReason::ClientInitiated, false)
    );
}

#[tokio::test]
async fn the_last_word_on_expiry_is_the_clients_within_limits() {
    let world = World::with(|config| config.session_expiry_max = Duration::from_secs(100));
    let client = world.connect(hello("client", V5).persistent()).await;
    assert_eq!(
        client.answer.session_expiry,
        Some(100),
        "capped, and said so"
    );
    let goodbye = |expiry| {
        let mut goodbye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        goodbye.session_expiry = Some(expiry);
        Packet::Disconnect(Box::new(goodbye))
    };
    let mut client = client;
    let close = client.try_send(goodbye(1_000)).expect_err("closes");
    client.session.take().expect("connected").close(close).await;
    assert_eq!(world.fleet.ends.lock()[0].2.expiry, Some(100));
    assert!(world.broker.client(&id("client")).is_some());

    let mut client = world.connect(hello("client", V5).persistent()).await;
    let close = client.try_send(goodbye(0)).expect_err("closes");
    client.session.take().expect("connected").close(close).await;
    assert!(
        world.broker.client(&id("client")).is_none(),
        "it wanted to be forgotten"
    );

    let mut client = world.connect(hello("client", V5)).await;
    let close = client.try_send(goodbye(5)).expect_err("closes");
    assert_eq!(close.reason, ReasonCode::ProtocolError, "MQTT-3.1.2-23");
}

#[tokio::test]
async fn a_goodbye_with_will_is_an_end_with_will() {
    let world = World::new();
    let mut watcher = world.connect(hello("watcher", V5)).await;
    watcher.subscribe("will", Qos::AtMostOnce);
    for (reason, expected) in [
        (ReasonCode::NORMAL_DISCONNECTION, 0),
        (ReasonCode::DisconnectWithWill, 1),
    ] {
        let mut client = world.connect(hello("client", V5).will("will", true)).await;
        let goodbye = Packet::Disconnect(Box::new(Disconnect::new(reason)));
        let close = client.try_send(goodbye).expect_err("closes");
        assert!(!close.send_disconnect);
        client.session.take().expect("connected").close(close).await;
        assert_eq!(watcher.messages().len(), expected);
    }
    assert!(
        world
            .broker
            .retained_get("will")
            .await
            .expect("readable")
            .is_some(),
        "a will may be retained"
    );
}

#[tokio::test]
async fn a_connection_task_that_dies_ends_its_connection() {
    let world = World::new();
    let client = world.connect(hello("client", V5)).await;
    drop(client);
    world.settle().await;
    assert!(world.broker.client(&id("client")).is_none());
    let ends = world.fleet.ends.lock();
    assert_eq!(ends[0].2.reason, DisconnectReason::ConnectionLost);
    assert!(ends[0].2.with_will);
}

#[tokio::test]
async fn a_kicked_client_is_told_and_may_lose_session_and_will() {
    let world = World::new();
    assert!(!world.broker.kick(&id("nobody"), Kick::default()));
    let mut client = world
        .connect(hello("client", V5).persistent().will("will", false))
        .await;
    assert!(world.broker.kick(
        &id("client"),
        Kick {
            clean_session: true,
            prevent_will: true
        }
    ));
    let close = client.try_hear().expect_err("ends");
    assert_eq!(close.reason, ReasonCode::AdministrativeAction);
    client.session.take().expect("connected").close(close).await;
    let end = world.fleet.ends.lock()[0].2;
    assert_eq!(
        end.reason,
        DisconnectReason::ApiInitiated { prevent_will: true }
    );
    assert_eq!((end.expiry, end.with_will), (Some(0), false));
    assert!(world.broker.client(&id("client")).is_none());
}

#[tokio::test]
async fn an_eviction_of_an_older_epoch_does_not_hit_the_newer() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5)).await;
    let epoch = client
        .session
        .as_ref()
        .map(crate::session::Session::epoch)
        .expect("connected");
    let older = SessionEpoch(epoch.0 - 1);
    world
        .broker
        .evict(&id("client"), older, NodeId(1), EvictReason::Administrative);
    world.broker.end_session(&id("client"), older);
    assert!(client.hear().is_empty());
    world
        .broker
        .evict(&id("client"), epoch, NodeId(1), EvictReason::NotAuthorized);
    let close = client.try_hear().expect_err("ends");
    assert_eq!(
        (close.reason, close.cause),
        (ReasonCode::NotAuthorized, CloseCause::NotAuthorized)
    );
}

#[tokio::test]
async fn the_end_of_a_session_takes_its_subscriptions_and_rows_along() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5).persistent()).await;
    client.subscribe("a", Qos::AtLeastOnce);
    client.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    // a row on its way while the session ends
    world.ledger.hold();
    assert!(writer.publish("a", "x", Qos::AtLeastOnce).is_empty());
    world.broker.end_session(&id("client"), SessionEpoch(1));
    world.ledger.release();
    world.settle().await;
    assert_eq!(writer.hear(), [Said::PubAck(1, 0)]);
    assert_eq!(
        writer.publish("a", "y", Qos::AtLeastOnce),
        [Said::PubAck(2, 0x10)]
    );
    let found = world.crash().broker.totals();
    assert_eq!((found.subscriptions, found.queued), (0, 0));
}

#[tokio::test]
async fn a_nameless_client_gets_a_name_unless_it_wants_to_be_remembered() {
    let world = World::new();
    let nameless = |version| {
        let name = Broker::assign_client_id();
        hello(&name, version).change(|connect| connect.client_id = String::new())
    };
    let client = world.connect(nameless(V5)).await;
    let assigned = client.answer.assigned_client_id.clone().expect("assigned");
    assert!(assigned.starts_with("auto.") && assigned.len() == 25);
    world.connect(nameless(V3)).await;
    let mut old = nameless(V3);
    old.connect.clean_start = false;
    let refusal = world.try_connect(old).await.err().expect("refused");
    assert_eq!(refusal.reason, ReasonCode::ClientIdentifierNotValid);
}

#[tokio::test]
async fn connack_tells_what_differs_from_what_was_asked() {
    let world = World::with(|config| config.keep_alive_max = Duration::from_secs(100));
    let plain = world.connect(hello("a", V5)).await.answer;
    assert_eq!(
        (plain.server_keep_alive, plain.session_expiry),
        (None, None)
    );
    assert_eq!(plain.response_information, None);
    let asked = hello("b", V5).change(|connect| {
        connect.keep_alive = 0;
        connect.request_response_information = true;
    });
    let answer = world.connect(asked).await.answer;
    assert_eq!(answer.server_keep_alive, Some(100));
    assert_eq!(
        answer.response_information.as_deref(),
        Some("umbel/responses/b")
    );
    assert!(answer.wildcard_available && answer.shared_available);
    assert!(answer.subscription_ids_available && answer.retain_available);
    assert_eq!(answer.maximum_packet_size, Some(256 * 1024));
}

#[tokio::test]
async fn sessions_are_bounded() {
    let world = World::with(|config| config.sessions_max = 1);
    let _first = world.connect(hello("first", V5)).await;
    let refusal = world
        .try_connect(hello("second", V5))
        .await
        .err()
        .expect("refused");
    assert_eq!(refusal.reason, ReasonCode::QuotaExceeded);
    world.connect(hello("first", V5)).await;
}

#[tokio::test]
async fn extended_authentication_is_refused() {
    let world = World::new();
    let hello = hello("client", V5)
        .change(|connect| connect.authentication_method = Some("SCRAM".to_owned()));
    let refusal = world.try_connect(hello).await.err().expect("refused");
    assert_eq!(refusal.reason, ReasonCode::BadAuthenticationMethod);
}

#[tokio::test]
async fn operators_see_clients_in_the_order_of_their_ids() {
    let world = World::new();
    let mut kept = Vec::new();
    for name in ["c", "a", "d", "b"] {
        let mut client = world.connect(hello(name, V3).persistent()).await;
        client.subscribe("x/+", Qos::AtLeastOnce);
        kept.push(client);
    }
    kept.pop().expect("b").lose().await;
    let page = world.broker.clients(None, 3);
    let names: Vec<_> = page.iter().map(|view| view.client.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(page[1].connection.is_none() && page[1].is_persistent);
    let connection = page[0].connection.as_ref().expect("connected");
    assert_eq!(
        (connection.protocol, connection.listener.as_str()),
        (4, "test")
    );
    let rest = world.broker.clients(Some(&id("c")), 3);
    assert_eq!(rest.len(), 1);
    let subscriptions = world.broker.subscriptions(&id("a")).expect("a session");
    assert_eq!(
        (subscriptions[0].filter.as_str(), subscriptions[0].qos),
        ("x/+", Qos::AtLeastOnce)
    );
    let totals = world.broker.totals();
    assert_eq!(
        (totals.connected, totals.offline, totals.subscriptions),
        (3, 1, 4)
    );
}

#[tokio::test]
async fn watchers_of_subscription_events_are_told() {
    let world = World::new();
    let mut watcher = world.connect(hello("watcher", V5)).await;
    watcher.subscribe("$aws/events/subscriptions/+/d1", Qos::AtMostOnce);
    let mut device = world.connect(hello("d1", V5)).await;
    device.subscribe("a/b", Qos::AtMostOnce);
    device.unsubscribe("a/b");
    device.unsubscribe("never");
    let got = watcher.messages();
    let topics: Vec<_> = got.iter().map(|got| got.topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "$aws/events/subscriptions/subscribed/d1",
            "$aws/events/subscriptions/unsubscribed/d1"
        ]
    );
    assert!(
        got[0].payload.contains(r#""topics":["a/b"]"#),
        "{}",
        got[0].payload
    );
}

#[tokio::test]
async fn an_older_connection_that_closes_late_does_not_end_the_newer() {
    let world = World::new();
    let mut older = world.connect(hello("client", V3).persistent()).await;
    let mut newer = world.connect(hello("client", V3).persistent()).await;
    newer.subscribe("a", Qos::AtLeastOnce);
    let close = Close::silent(CloseCause::ConnectionLost);
    older.session.take().expect("connected").close(close).await;
    assert!(world.fleet.ends.lock().is_empty());
    assert!(newer.hear().is_empty());
    assert_eq!(world.broker.totals().connected, 1);
}

#[tokio::test]
async fn watchers_are_told_of_a_client_that_was_refused() {
    let world = World::new();
    let mut watcher = world.connect(hello("watcher", V5)).await;
    watcher.subscribe("$aws/events/presence/connect_failed/+", Qos::AtMostOnce);
    let thief = hello("thief", V3).policy(umbel_core::policy::Policy::deny_all());
    assert!(world.try_connect(thief).await.is_err());
    let got = watcher.messages();
    assert_eq!(got[0].topic, "$aws/events/presence/connect_failed/thief");
    assert!(
        got[0].payload.contains("AUTHORIZATION_FAILED"),
        "{}",
        got[0].payload
    );
}

#[test]
fn an_idle_session_is_small() {
    let session = size_of::<crate::session::Session>();
    let mailbox = size_of::<crate::broker::Mailbox>();
    assert!(session + mailbox <= 512, "{session} + {mailbox} bytes");
}

#[tokio::test]
async fn two_that_throw_each_other_out_without_end_are_slowed_down() {
    let world = World::new();
    let mut last = world.connect(hello("twin", V5)).await;
    let mut accepted = 0;
    let refusal = loop {
        match world.try_connect(hello("twin", V5)).await {
            Ok(next) => last = next,
            Err(refusal) => break refusal,
        }
        accepted += 1;
        assert!(accepted < 1_000, "there is a bound");
    };
    assert_eq!(refusal.reason, ReasonCode::ConnectionRateExceeded);
    assert!(last.try_hear().is_ok(), "who was there stays");
    assert!(accepted >= 10, "a bad network is no war");
    world.clock.advance_seconds(1);
    world.connect(hello("twin", V5)).await;
}

#[tokio::test]
async fn rows_that_outlived_their_session_are_removed_after_a_restart() {
    let world = World::new();
    for name in ["known", "orphan", "unclear"] {
        let mut client = world.connect(hello(name, V5).persistent()).await;
        client.subscribe("a", Qos::AtLeastOnce);
        client.lose().await;
    }
    let world = world.crash();
    let ended = world.broker.end_orphans(|client| match client.as_str() {
        "known" => Some(true),
        "orphan" => Some(false),
        _ => None,
    });
    assert_eq!(ended, 1);
    let left = world.crash().broker.clients(None, 10);
    let left: Vec<_> = left.iter().map(|view| view.client.as_str()).collect();
    assert_eq!(left, ["known", "unclear"]);
}
