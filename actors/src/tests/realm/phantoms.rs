//! G7: a connect that is recorded and whose gateway gave it up is nobody's connection. Its client comes again, and nobody
//! may hear that it was thrown out; and if it does not come again, it is offline like everybody who is lost.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use umbel_core::{
    device::{Connect, DisconnectReason, Presence},
    ids::{NodeId, SessionEpoch},
};

use super::{
    super::{client, eventually, hello, will},
    net::{Fate, Net},
    schedule::Dice,
};
use crate::{Refused, ports::EvictReason};

const GRACE: Duration = Duration::from_secs(31);
const CLIENTS: u32 = 8;

fn name(number: u32) -> String {
    format!("d{number:02}")
}

fn greeting(id: &str) -> Connect {
    hello(Some(will(&format!("will/{id}"), 0)))
}

/// How often a client was called disconnected, and how often its will went out.
fn heard(net: &Net, id: &str) -> (usize, usize) {
    let ends = net.count(&format!("$aws/events/presence/disconnected/{id}"));
    (ends, net.count(&format!("will/{id}")))
}

/// Nobody compares what it holds with anybody, and nobody has given up connects looked at.
fn silent(label: &str) -> Fate {
    match label {
        "resync" | "review" => Fate::Unsent,
        _ => Fate::Passes,
    }
}

/// Connects are recorded, and their gateways never hear of it.
fn unanswered(label: &str) -> Fate {
    match label {
        "connect" => Fate::Unanswered,
        label => silent(label),
    }
}

/// Clients whose connect is recorded, and which were told that it was not.
async fn phantoms(net: &Arc<Net>, node: u64) {
    net.fates(unanswered);
    let mut connects = JoinSet::new();
    for number in 0..CLIENTS {
        let net = Arc::clone(net);
        connects.spawn(async move {
            let id = name(number);
            net.connect(node, &id, greeting(&id)).await
        });
    }
    for refused in connects.join_all().await {
        assert_eq!(refused, Err(Refused::Unknown));
    }
    for number in 0..CLIENTS {
        assert_eq!(net.presence(3, &name(number)).await, Presence::Online);
    }
}

/// Long after any grace.
async fn later(net: &Net) {
    for _ in 0..3 {
        net.clock.advance(GRACE);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

async fn come_again(net: &Arc<Net>, node: u64) {
    net.fates(silent);
    for number in 0..CLIENTS {
        let id = name(number);
        net.connect(node, &id, greeting(&id)).await.expect("again");
        assert_eq!(heard(net, &id), (0, 0), "{id}");
    }
    net.all_pass();
    later(net).await;
    for number in 0..CLIENTS {
        let id = name(number);
        assert_eq!(heard(net, &id), (0, 0), "{id}");
        let view = net.view(2, &id).await.expect("known");
        assert_eq!(view.record.presence, Presence::Online);
        let session = view.record.session.as_ref().expect("connected");
        assert_eq!(session.gateway, NodeId(node));
    }
}

#[tokio::test]
async fn g7_who_was_refused_and_comes_again_through_another_node_was_never_offline() {
    let net = Net::new(3).await;
    phantoms(&net, 1).await;
    come_again(&net, 2).await;
}

#[tokio::test]
async fn g7_who_was_refused_and_comes_again_through_the_same_node_was_never_offline() {
    let net = Net::new(3).await;
    phantoms(&net, 1).await;
    come_again(&net, 1).await;
}

#[tokio::test]
async fn g7_who_was_refused_by_its_owner_comes_again_and_was_never_offline() {
    let net = Net::new(3).await;
    for (number, node) in (0..CLIENTS).zip([3, 2].into_iter().cycle()) {
        let id = name(number);
        net.fates(silent);
        net.ledger.lose_answers(true);
        let refused = net.connect(3, &id, greeting(&id)).await;
        net.ledger.lose_answers(false);
        assert_eq!(refused, Err(Refused::Unknown));
        net.connect(node, &id, greeting(&id)).await.expect("again");
        assert_eq!(heard(&net, &id), (0, 0), "{id}");
    }
    net.all_pass();
    later(&net).await;
    for number in 0..CLIENTS {
        let id = name(number);
        assert_eq!(net.presence(1, &id).await, Presence::Online);
        assert_eq!(heard(&net, &id), (0, 0), "{id}");
    }
}

#[tokio::test]
async fn who_was_refused_and_does_not_come_again_is_offline_after_its_grace_with_one_will() {
    let net = Net::new(3).await;
    phantoms(&net, 1).await;
    // The gateway has them looked at, also if it never compares anything.
    net.fates(|label| match label {
        "resync" => Fate::Unsent,
        _ => Fate::Passes,
    });
    for number in 0..CLIENTS {
        net.becomes(3, &name(number), Presence::Stale).await;
        assert_eq!(heard(&net, &name(number)), (0, 0));
    }
    later(&net).await;
    for number in 0..CLIENTS {
        net.becomes(3, &name(number), Presence::Offline).await;
        assert_eq!(heard(&net, &name(number)), (1, 1));
    }
    let site = net.site(1);
    eventually("nothing of them is remembered", || {
        (0..CLIENTS).all(|number| !site.realm.knows(&client(&name(number))))
    })
    .await;
}

#[tokio::test]
async fn a_connect_that_is_recorded_long_after_it_was_given_up_is_found_out() {
    let net = Net::new(3).await;
    net.fates(|label| match label {
        "resync" => Fate::Unsent,
        _ => Fate::Passes,
    });
    net.ledger.hold();
    let refused = net.connect(1, "d", greeting("d")).await;
    assert_eq!(refused, Err(Refused::Unknown));
    net.ledger.release();
    net.becomes(3, "d", Presence::Stale).await;
    later(&net).await;
    net.becomes(3, "d", Presence::Offline).await;
    assert_eq!(heard(&net, "d"), (1, 1));
}

#[tokio::test]
async fn a_gateway_does_not_open_a_connection_that_it_said_it_does_not_hold() {
    let net = Net::new(3).await;
    let (answer, until) = watch::channel(false);
    let mut is_first = true;
    net.fates(move |label| match label {
        "connect" if std::mem::take(&mut is_first) => Fate::Waits(until.clone()),
        label => silent(label),
    });
    let opening = {
        let net = Arc::clone(&net);
        tokio::spawn(async move { net.connect(1, "d", greeting("d")).await })
    };
    net.becomes(3, "d", Presence::Online).await;
    let second = net.connect(2, "d", greeting("d")).await.expect("opened");
    answer.send_replace(true);
    let first = opening.await.expect("ends");
    assert_eq!(first, Err(Refused::Unknown), "its client comes again");
    net.all_pass();
    later(&net).await;
    assert_eq!(net.site(1).open.lock().len(), 0);
    assert_eq!(net.view(1, "d").await.expect("known").record.epoch, second);
    assert_eq!(net.presence(1, "d").await, Presence::Online);
    assert_eq!(heard(&net, "d"), (0, 0));
}

/// Connects, and leaves without its owner hearing of it.
async fn left_unheard(net: &Net, why: DisconnectReason) -> SessionEpoch {
    let epoch = net.connect(1, "d", greeting("d")).await.expect("opened");
    net.fates(|label| match label {
        "ended" => Fate::Unsent,
        label => silent(label),
    });
    let told = net.leave(1, "d", epoch, why).await;
    assert_eq!(told, Err(Refused::Unavailable));
    epoch
}

/// Why it was called disconnected.
fn reasons(net: &Net) -> Vec<serde_json::Value> {
    let of = "$aws/events/presence/disconnected/d";
    let published = net.published.lock();
    let said = published.iter().filter(|said| said.1 == of);
    said.map(|said| said.2["disconnectReason"].clone())
        .collect()
}

#[tokio::test]
async fn a_farewell_that_its_owner_has_not_heard_of_goes_before_the_next_connection_elsewhere() {
    let net = Net::new(3).await;
    left_unheard(&net, DisconnectReason::ClientInitiated).await;
    let epoch = net.connect(2, "d", greeting("d")).await.expect("elsewhere");
    assert_eq!(reasons(&net), ["CLIENT_INITIATED_DISCONNECT"]);
    assert_eq!(heard(&net, "d"), (1, 0), "who said farewell has no will");
    net.all_pass();
    later(&net).await;
    assert_eq!(heard(&net, "d"), (1, 0));
    assert_eq!(net.view(1, "d").await.expect("known").record.epoch, epoch);
}

#[tokio::test]
async fn a_loss_that_its_owner_has_not_heard_of_leaves_one_will_before_the_next_connection() {
    let net = Net::new(3).await;
    let first = left_unheard(&net, DisconnectReason::ConnectionLost).await;
    // The end is committed, the note that its will went out is not: the record is read again.
    net.refuse_after(1);
    let second = net.connect(2, "d", greeting("d")).await.expect("elsewhere");
    assert!(second > first);
    assert_eq!(reasons(&net), ["CONNECTION_LOST"]);
    net.all_pass();
    later(&net).await;
    assert_eq!(heard(&net, "d"), (1, 1));
    assert_eq!(net.presence(1, "d").await, Presence::Online);
}

#[tokio::test]
async fn g7_who_comes_from_a_gateway_that_does_not_answer_was_never_offline() {
    let net = Net::new(3).await;
    let first = net.connect(1, "d", greeting("d")).await.expect("opened");
    net.fates(|label| match label {
        "holds" => Fate::Unsent,
        label => silent(label),
    });
    net.connect(2, "d", greeting("d")).await.expect("elsewhere");
    assert_eq!(heard(&net, "d"), (0, 0));
    // If it was there after all, it learns that it is over.
    let evicted = net.site(1).evicted.lock().clone();
    assert_eq!(evicted, [(client("d"), first, EvictReason::TakenOver)]);
}

#[tokio::test]
async fn a_session_goes_on_through_a_connect_that_nobody_heard_of() {
    let net = Net::new(3).await;
    let epoch = net.connect(1, "d", greeting("d")).await.expect("opened");
    let farewell = DisconnectReason::ClientInitiated;
    net.leave(1, "d", epoch, farewell).await.expect("recorded");
    net.fates(unanswered);
    let refused = net.connect(1, "d", greeting("d")).await;
    assert_eq!(refused, Err(Refused::Unknown));
    net.all_pass();
    let hello = Connect {
        gateway: NodeId(2),
        gateway_boot: 1,
        ..greeting("d")
    };
    let opened = net.realm(2).connect(&client("d"), hello).await;
    assert!(opened.expect("opened").session_present);
    assert_eq!(heard(&net, "d"), (1, 0));
}

/// One device: it connects through any node, again and again until it is told that it is connected. Gives back how often
/// it was not told what became of its connect.
async fn persist(net: Arc<Net>, id: String, mut dice: Dice) -> u32 {
    let mut unknown = 0;
    loop {
        let node = 1 + dice.throw(3);
        match net.connect(node, &id, greeting(&id)).await {
            Ok(_) => return unknown,
            Err(why) => unknown += u32::from(why == Refused::Unknown),
        }
    }
}

/// Owners move, and commits are not confirmed.
async fn unrest(net: &Net, dice: &mut Dice) {
    net.ledger.lose_answers(dice.throw(3) == 0);
    if dice.throw(8) == 0 {
        net.give_all(Some(1 + dice.throw(3)));
    }
    tokio::time::sleep(Duration::from_millis(40)).await;
}

#[tokio::test]
async fn g7_nobody_who_only_tries_again_is_ever_called_offline() {
    let mut unknown = 0;
    for seed in 1..=3 {
        let net = Net::new(3).await;
        let (mut dice, mut chance) = (Dice(seed), Dice(seed + 100));
        net.fates(move |label| match (label, chance.throw(8)) {
            ("connect", 0..=5) | ("holds", 0..=1) => Fate::Unanswered,
            ("resync" | "review", 0..=3) => Fate::Unsent,
            _ => Fate::Passes,
        });
        let mut devices = JoinSet::new();
        for number in 0..CLIENTS {
            let dice = Dice(dice.throw(u64::MAX));
            devices.spawn(persist(Arc::clone(&net), name(number), dice));
        }
        while !devices.is_empty() {
            unrest(&net, &mut dice).await;
            while let Some(done) = devices.try_join_next() {
                unknown += done.expect("ends");
            }
        }
        net.ledger.lose_answers(false);
        net.all_pass();
        net.settled().await;
        eventually("every gateway has said what it holds", || !net.is_calling()).await;
        later(&net).await;
        for number in 0..CLIENTS {
            let id = name(number);
            net.becomes(1, &id, Presence::Online).await;
            assert_eq!(heard(&net, &id), (0, 0), "seed {seed}: {id}");
        }
    }
    assert!(unknown > 0, "void: everybody was told at once");
}
