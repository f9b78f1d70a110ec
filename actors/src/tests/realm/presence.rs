//! What becomes of clients whose gateway, owner, or both are gone.

use std::time::Duration;

use umbel_core::device::{DisconnectReason, Presence};
use umbel_storage::nodes::Reach;

use super::{
    super::{a_while, client, eventually, hello, will},
    net::Net,
};
use crate::{Delivery, FleetEventKind, ports::EvictReason};

const GRACE: Duration = Duration::from_secs(31);

fn name(number: u32) -> String {
    format!("d{number:02}")
}

async fn crowd(net: &Net, node: u64, count: u32) {
    for number in 0..count {
        let id = name(number);
        let hello = hello(Some(will(&format!("will/{id}"), 0)));
        net.connect(node, &id, hello).await.expect("admitted");
    }
}

fn wills(net: &Net, count: u32) -> Vec<usize> {
    (0..count)
        .map(|number| net.count(&format!("will/{}", name(number))))
        .collect()
}

#[tokio::test]
async fn f3_a_dead_gateway_makes_stale_then_offline_with_one_will_for_those_not_back() {
    let net = Net::new(3).await;
    crowd(&net, 1, 20).await;
    let dead = net.kill(1);
    net.clock.advance(Duration::from_secs(1));
    a_while().await;
    assert_eq!(
        net.presence(2, "d00").await,
        Presence::Online,
        "a broken link proves nothing"
    );
    net.gone(&dead);
    for number in 0..20 {
        net.becomes(2, &name(number), Presence::Stale).await;
    }
    for number in 0..10 {
        let hello = hello(Some(will(&format!("will/{}", name(number)), 0)));
        net.connect(2, &name(number), hello).await.expect("back");
    }
    net.clock.advance(GRACE);
    for number in 10..20 {
        net.becomes(2, &name(number), Presence::Offline).await;
    }
    let expected: Vec<_> = (0..20).map(|number| usize::from(number >= 10)).collect();
    assert_eq!(wills(&net, 20), expected);
    for number in 0..10 {
        assert_eq!(net.presence(2, &name(number)).await, Presence::Online);
    }
}

#[tokio::test]
async fn f4_owner_and_gateway_dead_together_give_exactly_one_will() {
    let net = Net::new(3).await;
    crowd(&net, 1, 12).await;
    let gateway = net.kill(1);
    let owner = net.kill(3);
    net.give_all(Some(2));
    net.settled().await;
    net.gone(&owner);
    net.gone(&gateway);
    for number in 0..12 {
        net.becomes(2, &name(number), Presence::Stale).await;
    }
    net.clock.advance(GRACE);
    for number in 0..12 {
        net.becomes(2, &name(number), Presence::Offline).await;
    }
    assert_eq!(wills(&net, 12), [1; 12]);
}

#[tokio::test]
async fn f4_one_node_that_was_owner_and_gateway_leaves_one_will_each() {
    let net = Net::new(2).await;
    crowd(&net, 2, 8).await;
    let dead = net.kill(2);
    net.give_all(Some(1));
    net.settled().await;
    // Nobody confirms that it is gone: it does not say what it holds, either.
    net.clock.advance(Duration::from_secs(6));
    for number in 0..8 {
        net.becomes(1, &name(number), Presence::Stale).await;
    }
    net.gone(&dead);
    net.clock.advance(GRACE);
    for number in 0..8 {
        net.becomes(1, &name(number), Presence::Offline).await;
    }
    assert_eq!(wills(&net, 8), [1; 8]);
}

#[tokio::test]
async fn g7_nobody_who_stayed_flaps_when_an_owner_dies() {
    let net = Net::new(3).await;
    crowd(&net, 1, 20).await;
    let mut events = net.realm(2).events(None);
    let owner = net.kill(3);
    net.give_all(Some(2));
    net.gone(&owner);
    net.settled().await;
    let resyncs = |net: &Net| {
        let asked = net.asked.lock();
        asked
            .iter()
            .filter(|one| (one.0.0, one.1.0, one.2) == (1, 2, "resync"))
            .count()
    };
    eventually("the gateway says what it holds", || resyncs(&net) >= 4).await;
    // Long after the answer was due, and after any grace.
    for _ in 0..3 {
        net.clock.advance(Duration::from_secs(20));
        a_while().await;
    }
    for number in 0..20 {
        assert_eq!(net.presence(1, &name(number)).await, Presence::Online);
    }
    assert_eq!(wills(&net, 20), [0; 20]);
    net.realm(2).local().common.feed.close();
    loop {
        match events.next().await {
            Delivery::Event(event) => assert!(
                !matches!(event.kind, FleetEventKind::Presence { .. }),
                "{event:?}"
            ),
            Delivery::Lagged { .. } => panic!("few events"),
            Delivery::Closed => break,
        }
    }
}

#[tokio::test]
async fn g7_a_gateway_that_was_only_cut_off_has_its_clients_online_again() {
    let net = Net::new(2).await;
    crowd(&net, 1, 10).await;
    net.cut(1, 2, true);
    net.cut(2, 1, true);
    net.sees(2, 1, Reach::Gone);
    net.sees(1, 2, Reach::Unreachable);
    let online = |net: &Net| net.realm(2).local().counts().devices.online;
    eventually("they are stale", || online(&net) == 0).await;
    // One goes meanwhile, and nobody can be told.
    let epoch = *net.site(1).open.lock().get(&client("d03")).expect("open");
    let left = net
        .leave(1, "d03", epoch, DisconnectReason::ClientInitiated)
        .await;
    assert!(left.is_err());
    net.cut(1, 2, false);
    net.cut(2, 1, false);
    net.sees(2, 1, Reach::Connected);
    net.sees(1, 2, Reach::Connected);
    eventually("they are online again", || online(&net) == 9).await;
    net.becomes(2, "d03", Presence::Offline).await;
    net.clock.advance(GRACE);
    a_while().await;
    assert_eq!(online(&net), 9);
    assert_eq!(wills(&net, 10), [0; 10]);
    for number in 0..10 {
        assert_eq!(
            net.count(&format!("$aws/events/presence/connected/{}", name(number))),
            1
        );
    }
}

#[tokio::test]
async fn a_connection_whose_session_is_over_is_ended_when_its_gateway_comes_back() {
    let net = Net::new(2).await;
    crowd(&net, 1, 3).await;
    net.cut(1, 2, true);
    net.cut(2, 1, true);
    net.sees(2, 1, Reach::Gone);
    net.sees(1, 2, Reach::Unreachable);
    net.becomes(2, "d00", Presence::Stale).await;
    net.becomes(2, "d01", Presence::Stale).await;
    net.connect(2, "d01", hello(None)).await.expect("elsewhere");
    net.clock.advance(GRACE);
    net.becomes(2, "d00", Presence::Offline).await;
    net.cut(1, 2, false);
    net.cut(2, 1, false);
    net.sees(2, 1, Reach::Connected);
    net.sees(1, 2, Reach::Connected);
    let site = net.site(1);
    eventually("all are ended at the gateway", || {
        site.open.lock().is_empty()
    })
    .await;
    let evicted = site.evicted.lock().clone();
    let why = |id: &str| {
        evicted
            .iter()
            .find(|one| one.0 == client(id))
            .expect("evicted")
            .2
    };
    assert_eq!(why("d00"), EvictReason::Administrative);
    assert_eq!(why("d01"), EvictReason::TakenOver);
    assert_eq!(wills(&net, 3), [1, 0, 1]);
    assert_eq!(net.presence(1, "d01").await, Presence::Online);
}

#[tokio::test]
async fn g8_a_take_over_across_nodes_ends_the_older_and_its_end_changes_nothing() {
    let net = Net::new(3).await;
    let first = net
        .connect(1, "d", hello(Some(will("bye", 5))))
        .await
        .expect("admitted");
    let second = net.connect(2, "d", hello(None)).await.expect("admitted");
    assert!(second > first);
    let evicted = net.site(1).evicted.lock().clone();
    assert_eq!(evicted, [(client("d"), first, EvictReason::TakenOver)]);
    let site = net.site(1);
    eventually("the older is closed", || site.open.lock().is_empty()).await;
    let late = net
        .leave(1, "d", first, DisconnectReason::ConnectionLost)
        .await;
    assert_eq!(late, Ok(()));
    net.clock.advance(GRACE);
    a_while().await;
    assert_eq!(net.presence(1, "d").await, Presence::Online);
    assert_eq!(net.count("bye"), 0);
    assert_eq!(net.count("$aws/events/presence/connected/d"), 2);
}

#[tokio::test]
async fn a_connect_that_was_recorded_but_never_answered_is_not_online_for_ever() {
    let net = Net::new(2).await;
    let blocked = std::sync::Arc::clone(&net);
    net.lose_next("connect", move || blocked.give_all(None));
    let refused = net.connect(1, "d", hello(Some(will("bye", 0)))).await;
    assert_eq!(refused, Err(crate::Refused::Unknown));
    net.give_all(Some(2));
    net.becomes(2, "d", Presence::Stale).await;
    net.connect(1, "d", hello(None)).await.expect("admitted");
    net.clock.advance(GRACE);
    a_while().await;
    assert_eq!(net.presence(2, "d").await, Presence::Online);
    assert_eq!(
        net.count("bye"),
        0,
        "a client that was never told it is connected has no will"
    );
}

#[tokio::test]
async fn a_node_that_starts_again_has_lost_its_connections() {
    let net = Net::new(3).await;
    crowd(&net, 1, 4).await;
    net.kill(1);
    net.start(1, 2).await;
    for number in 0..4 {
        net.becomes(1, &name(number), Presence::Stale).await;
    }
    net.connect(1, "d00", hello(None)).await.expect("back");
    net.clock.advance(GRACE);
    net.becomes(3, "d01", Presence::Offline).await;
    assert_eq!(net.presence(3, "d00").await, Presence::Online);
    assert_eq!(wills(&net, 4), [0, 1, 1, 1]);
}

#[tokio::test]
async fn a_client_that_is_sent_away_is_stale_and_not_offline() {
    let net = Net::new(2).await;
    crowd(&net, 1, 2).await;
    for number in 0..2 {
        let id = client(&name(number));
        let epoch = *net.site(1).open.lock().get(&id).expect("open");
        net.realm(1).lost(&id, epoch).await.expect("told");
        net.becomes(2, id.as_str(), Presence::Stale).await;
    }
    net.connect(2, "d00", hello(None)).await.expect("back");
    net.clock.advance(GRACE);
    net.becomes(2, "d01", Presence::Offline).await;
    assert_eq!(net.presence(2, "d00").await, Presence::Online);
    assert_eq!(wills(&net, 2), [0, 1]);
}

#[tokio::test]
async fn f24_two_clients_of_one_name_on_two_nodes_are_slowed_down() {
    let net = Net::new(2).await;
    let mut refused = 0;
    let mut last = None;
    for turn in 0..30 {
        match net.connect(1 + turn % 2, "d", hello(None)).await {
            Ok(epoch) => last = Some(epoch),
            Err(why) => {
                assert_eq!(why, crate::Refused::Overloaded);
                refused += 1;
            },
        }
    }
    assert_eq!(
        refused, 5,
        "twenty take-overs in a row, then only who holds it may come again"
    );
    net.clock.advance(Duration::from_secs(2));
    assert_eq!(net.presence(1, "d").await, Presence::Online);
    let is_last_at = |node| net.site(node).open.lock().get(&client("d")).copied() == last;
    assert!(is_last_at(1) != is_last_at(2), "one of them is connected");
    let other = if is_last_at(1) { 2 } else { 1 };
    let epoch = net.connect(other, "d", hello(None)).await;
    assert!(epoch.is_ok(), "one a second: {epoch:?}");
}

#[tokio::test]
async fn a_gateway_that_the_owner_has_not_heard_of_yet_has_time_to_speak() {
    let net = Net::new(2).await;
    crowd(&net, 1, 5).await;
    // A third node owns everything, and hears of the first only later.
    net.start(3, 1).await;
    net.site(3).nodes.forget_peer(umbel_core::ids::NodeId(1));
    net.cut(1, 3, true);
    net.give_all(Some(3));
    net.settled().await;
    let counts = |net: &Net| net.realm(3).local().counts().devices;
    net.clock.advance(Duration::from_secs(4));
    a_while().await;
    assert_eq!((counts(&net).online, counts(&net).stale), (5, 0));
    net.clock.advance(Duration::from_secs(2));
    eventually("nobody speaks for them", || counts(&net).stale == 5).await;
    net.cut(1, 3, false);
    net.sees(3, 1, Reach::Connected);
    net.sees(1, 3, Reach::Connected);
    eventually("they are online again", || counts(&net).online == 5).await;
}

#[tokio::test]
async fn g6_who_comes_back_before_anybody_noticed_the_death_of_its_node_is_not_thrown_out() {
    let net = Net::new(3).await;
    crowd(&net, 1, 10).await;
    // The link is broken, and nobody has confirmed more.
    net.kill(1);
    for number in 0..10 {
        let id = name(number);
        net.connect(2, &id, hello(Some(will(&format!("will/{id}"), 0))))
            .await
            .expect("back");
    }
    net.clock.advance(GRACE);
    a_while().await;
    assert_eq!(wills(&net, 10), [0; 10]);
    for number in 0..10 {
        let id = name(number);
        assert_eq!(net.presence(3, &id).await, Presence::Online);
        assert_eq!(
            net.count(&format!("$aws/events/presence/disconnected/{id}")),
            0
        );
    }
}
