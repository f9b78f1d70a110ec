//! Durable sessions whose client is connected to another node than the one that keeps them.

use umbel_core::message::Qos;

use super::{
    net::{Net, a_while, eventually},
    world::{Client, Got, Hello, Said, V3, V5, hello},
};
use crate::{close::CloseCause, packet::Packet, reason::ReasonCode};

/// Hears at least so many things.
pub(super) async fn heard(client: &mut Client, count: usize) -> Vec<Said> {
    let mut said = Vec::new();
    eventually("the client hears enough", || {
        said.extend(client.hear());
        said.len() >= count
    })
    .await;
    said
}

/// Subscribes and waits until that is granted.
pub(super) async fn subscribe(client: &mut Client, filter: &str, qos: Qos) {
    let mut said = client.subscribe(filter, qos);
    if said.is_empty() {
        said = heard(client, 1).await;
    }
    let granted = matches!(&said[..], [Said::SubAck(_, codes)] if codes == &[qos as u8]);
    assert!(granted, "{said:?}");
}

/// Publishes and waits until that is acknowledged; QoS 2 to its end.
pub(super) async fn publish(client: &mut Client, topic: &str, payload: &str, qos: Qos) {
    let mut said = client.publish(topic, payload, qos);
    if qos == Qos::AtMostOnce {
        return;
    }
    loop {
        if said.is_empty() {
            said = heard(client, 1).await;
        }
        match said.remove(0) {
            Said::PubAck(_, 0) | Said::PubComp(_, 0) => return,
            Said::PubRec(id, 0) => said = client.pubrel(id),
            other => panic!("{other:?}"),
        }
    }
}

/// Takes so many messages and acknowledges each, QoS 2 to its end.
pub(super) async fn take(client: &mut Client, count: usize) -> Vec<Got> {
    let mut got = Vec::new();
    let mut open = 0;
    let mut said = client.hear();
    eventually("the client gets its messages", || {
        said.extend(client.hear());
        while !said.is_empty() {
            match said.remove(0) {
                Said::Publish(message) => {
                    let next = match message.qos {
                        1 => client.puback(message.id),
                        2 => {
                            open += 1;
                            client.pubrec(message.id)
                        },
                        _ => Vec::new(),
                    };
                    said.extend(next);
                    got.push(message);
                },
                Said::PubRel(id, _) => {
                    open -= 1;
                    said.extend(client.pubcomp(id));
                },
                other => panic!("{other:?}"),
            }
        }
        got.len() >= count && open == 0
    })
    .await;
    got
}

pub(super) fn payloads(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| got.payload.as_str()).collect()
}

pub(super) fn durable(name: &str) -> Hello {
    hello(name, V5).persistent()
}

#[tokio::test]
async fn what_an_absent_session_was_sent_comes_once_and_in_order_on_any_node() {
    for version in [V3, V5] {
        let net = Net::new(3).await;
        let name = net.name_at(2, "reader");
        let reader = || hello(&name, version).persistent();
        let mut first = net.connect(1, reader()).await;
        assert!(!first.answer.session_present);
        subscribe(&mut first, "a/#", Qos::ExactlyOnce).await;
        first.lose().await;
        net.converged().await;
        let mut writer = net.connect(3, hello("writer", V5)).await;
        let sent: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        for (number, payload) in sent.iter().enumerate() {
            let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][number % 2];
            publish(&mut writer, "a/b", payload, qos).await;
        }
        let mut second = net.connect(3, reader()).await;
        assert!(second.answer.session_present);
        let got = take(&mut second, sent.len()).await;
        assert_eq!(payloads(&got), sent);
        assert!(got.iter().all(|got| !got.dup));
        second.disconnect().await;
        eventually("all is acknowledged", || {
            net.broker(2).totals().queued + net.broker(2).totals().inflight as u64 == 0
        })
        .await;
        let mut third = net.connect(1, reader()).await;
        publish(&mut writer, "a/b", "last", Qos::AtLeastOnce).await;
        assert_eq!(payloads(&take(&mut third, 1).await), ["last"]);
    }
}

#[tokio::test]
async fn a_connected_session_with_a_far_home_gets_every_quality_and_says_goodbye() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::ExactlyOnce).await;
    net.converged().await;
    let mut writer = net.connect(3, hello("writer", V5)).await;
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        publish(&mut writer, "a", "x", qos).await;
        assert_eq!(take(&mut reader, 1).await[0].qos, qos as u8);
    }
    let said = reader.unsubscribe("never");
    let said = if said.is_empty() {
        heard(&mut reader, 1).await
    } else {
        said
    };
    assert!(matches!(&said[..], [Said::UnsubAck(_, codes)] if codes == &[0x11]));
    reader.disconnect().await;
    eventually("the home knows", || {
        net.broker(2).totals().offline == 1 && net.broker(1).totals().connected == 0
    })
    .await;
}

#[tokio::test]
async fn no_more_is_in_flight_than_the_client_takes() {
    let net = Net::new(2).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name).receive_maximum(3)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    let mut writer = net.connect(2, hello("writer", V5)).await;
    for number in 0..10 {
        publish(&mut writer, "a", &number.to_string(), Qos::AtLeastOnce).await;
    }
    let mut seen: Vec<Got> = Vec::new();
    eventually("three come", || {
        seen.extend(reader.messages());
        seen.len() >= 3
    })
    .await;
    a_while().await;
    assert!(reader.hear().is_empty() && seen.len() == 3, "{seen:?}");
    for got in seen {
        reader.puback(got.id);
    }
    let rest = take(&mut reader, 7).await;
    assert_eq!(payloads(&rest), ["3", "4", "5", "6", "7", "8", "9"]);
}

#[tokio::test]
async fn a_connection_on_another_node_takes_over_and_goes_on() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut older = net.connect(1, durable(&name)).await;
    subscribe(&mut older, "a", Qos::AtLeastOnce).await;
    let mut writer = net.connect(2, hello("writer", V5)).await;
    publish(&mut writer, "a", "one", Qos::AtLeastOnce).await;
    let unacknowledged = heard(&mut older, 1).await;
    let mut newer = net.connect(3, durable(&name)).await;
    assert!(newer.answer.session_present);
    let mut close = None;
    eventually("the older one ends", || {
        close = older.try_hear().err();
        close.is_some()
    })
    .await;
    assert_eq!(
        close.map(|close| (close.reason, close.cause)),
        Some((ReasonCode::SessionTakenOver, CloseCause::TakenOver))
    );
    older.lose().await;
    publish(&mut writer, "a", "two", Qos::AtLeastOnce).await;
    let got = take(&mut newer, 2).await;
    let flags: Vec<_> = got
        .iter()
        .map(|got| (got.payload.as_str(), got.dup))
        .collect();
    assert_eq!(flags, [("one", true), ("two", false)]);
    assert!(matches!(&unacknowledged[..], [Said::Publish(first)] if first.id == got[0].id));
    assert_eq!(net.broker(1).totals().connected, 0);
}

#[tokio::test]
async fn a_received_exactly_once_message_has_no_second_effect_on_another_node() {
    let net = Net::new(3).await;
    let mut reader = net.connect(2, hello("reader", V5)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    let name = net.name_at(2, "writer");
    let mut writer = net.connect(1, durable(&name)).await;
    let message = writer.message("a", "x", Qos::ExactlyOnce);
    let mut said = writer.send(Packet::Publish(message.clone()));
    if said.is_empty() {
        said = heard(&mut writer, 1).await;
    }
    assert_eq!(said, [Said::PubRec(1, 0)]);
    writer.lose().await;
    let mut writer = net.connect(3, durable(&name)).await;
    let mut again = message.clone();
    again.dup = true;
    assert_eq!(writer.send(Packet::Publish(again)), [Said::PubRec(1, 0)]);
    assert!(writer.pubrel(1).is_empty());
    assert_eq!(heard(&mut writer, 1).await, [Said::PubComp(1, 0)]);
    // the identifier belongs to the next message
    writer.send(Packet::Publish(message));
    assert_eq!(heard(&mut writer, 1).await, [Said::PubRec(1, 0)]);
    assert_eq!(take(&mut reader, 2).await.len(), 2);
}

#[tokio::test]
async fn a_clean_start_elsewhere_forgets_the_session() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut away = net.connect(1, durable(&name)).await;
    subscribe(&mut away, "a", Qos::AtLeastOnce).await;
    away.lose().await;
    net.converged().await;
    let mut writer = net.connect(2, hello("writer", V5)).await;
    publish(&mut writer, "a", "old", Qos::AtLeastOnce).await;
    let clean = net.connect(3, hello(&name, V5)).await;
    assert!(!clean.answer.session_present);
    assert_eq!(net.broker(2).totals().subscriptions, 0);
    clean.disconnect().await;
    let mut fresh = net.connect(1, durable(&name)).await;
    assert!(!fresh.answer.session_present);
    subscribe(&mut fresh, "a", Qos::AtLeastOnce).await;
    publish(&mut writer, "a", "new", Qos::AtLeastOnce).await;
    assert_eq!(payloads(&take(&mut fresh, 1).await), ["new"]);
}

#[tokio::test]
async fn a_far_home_bounds_subscriptions_and_queued_messages() {
    let net = Net::with(2, |config| {
        config.subscriptions_max = 1;
        config.stored_messages_max = 5;
    })
    .await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    reader.subscribe("b", Qos::AtLeastOnce);
    let said = heard(&mut reader, 1).await;
    assert!(
        matches!(&said[..], [Said::SubAck(_, codes)] if codes == &[0x97]),
        "{said:?}"
    );
    reader.lose().await;
    let mut writer = net.connect(2, hello("writer", V5)).await;
    for number in 0..9 {
        publish(&mut writer, "a", &number.to_string(), Qos::AtLeastOnce).await;
    }
    let mut reader = net.connect(1, durable(&name)).await;
    assert_eq!(
        payloads(&take(&mut reader, 5).await),
        ["0", "1", "2", "3", "4"]
    );
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_drained_node_are_sent_away_at_a_rate_and_find_their_sessions_elsewhere() {
    let net = Net::new(2).await;
    let mut clients = Vec::new();
    for (number, version) in [V5, V3, V5, V5, V3, V5].into_iter().enumerate() {
        let reader = hello(&format!("reader{number}"), version).persistent();
        let mut client = net.connect(1, reader).await;
        subscribe(&mut client, "a", Qos::AtLeastOnce).await;
        clients.push(client);
    }
    let broker = std::sync::Arc::clone(net.broker(1));
    let drain = tokio::spawn(async move {
        let began = tokio::time::Instant::now();
        let others = ["one:1883", "other:1883"].map(str::to_owned);
        let sent = broker.hand_over(20, others.into()).await;
        (sent, began.elapsed())
    });
    let mut servers = Vec::new();
    for mut client in clients {
        let mut close = None;
        eventually("it is sent away", || {
            close = client.try_hear().err();
            close.is_some()
        })
        .await;
        let close = close.expect("sent away");
        assert_eq!(
            (close.reason, close.cause),
            (ReasonCode::UseAnotherServer, CloseCause::Moved)
        );
        let session = client.session.take().expect("connected");
        servers.extend(session.server_reference());
        session.close(close).await;
    }
    let to_one = servers
        .iter()
        .filter(|server| *server == "one:1883")
        .count();
    assert!(
        servers.len() == 6 && (1..6).contains(&to_one),
        "{servers:?}"
    );
    let (sent, took) = drain.await.expect("drained");
    assert_eq!(sent, 6);
    assert!(took >= std::time::Duration::from_millis(200), "{took:?}");
    assert_eq!(net.broker(1).totals().connected, 0);
    let mut writer = net.connect(2, hello("writer", V5)).await;
    publish(&mut writer, "a", "x", Qos::AtLeastOnce).await;
    for number in 0..6 {
        let mut back = net.connect(2, durable(&format!("reader{number}"))).await;
        assert!(back.answer.session_present);
        assert_eq!(payloads(&take(&mut back, 1).await), ["x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_owner_answers_come_soon_and_say_no() {
    let net = Net::new(3).await;
    let name = net.name_at(2, "reader");
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.break_link(1, 2, umbel_storage::Reach::Unreachable);
    let began = tokio::time::Instant::now();
    assert!(reader.subscribe("b", Qos::AtLeastOnce).is_empty());
    let said = heard(&mut reader, 1).await;
    assert!(
        matches!(&said[..], [Said::SubAck(_, codes)] if codes == &[0x83]),
        "{said:?}"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    let other = net.name_at(2, "other");
    let refused = net.try_connect(1, durable(&other)).await.err();
    assert_eq!(
        refused.map(|refused| refused.reason),
        Some(ReasonCode::ServerUnavailable)
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
    // it tries again, here or elsewhere: nobody may call it offline meanwhile (G7)
    let fleet = &net.site_of(1).fleet;
    assert_eq!(*fleet.moved.lock(), [other.as_str()]);
    assert!(fleet.ends.lock().is_empty());
    assert!(
        net.broker(1)
            .client(&umbel_core::ids::ClientId::parse(&other).expect("valid"))
            .is_none()
    );
    // what it publishes goes on, and deliveries come when the way is there again
    publish(&mut reader, "x", "to nobody", Qos::AtMostOnce).await;
    net.heal(1, 2);
    let mut writer = net.connect(2, hello("writer", V5)).await;
    publish(&mut writer, "a", "again", Qos::AtLeastOnce).await;
    assert_eq!(payloads(&take(&mut reader, 1).await), ["again"]);
}

#[tokio::test]
async fn many_that_come_back_at_once_to_all_nodes_get_their_messages() {
    let net = std::sync::Arc::new(Net::new(3).await);
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = net.connect(1, durable(&format!("reader{number}"))).await;
        subscribe(&mut client, "a", Qos::ExactlyOnce).await;
        clients.push(client);
    }
    let mut writer = net.connect(3, hello("writer", V5)).await;
    publish(&mut writer, "a", "one", Qos::ExactlyOnce).await;
    // the older connections are still there: each is taken over
    let storm = (0..60).map(|number| {
        let net = std::sync::Arc::clone(&net);
        async move {
            let node = number % 3 + 1;
            let mut back = net.connect(node, durable(&format!("reader{number}"))).await;
            assert!(back.answer.session_present);
            payloads(&take(&mut back, 1).await)
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        }
    });
    for got in futures_util::future::join_all(storm).await {
        assert_eq!(got, ["one"]);
    }
    for mut client in clients {
        eventually("the older one ends", || client.try_hear().is_err()).await;
        client.lose().await;
    }
}
