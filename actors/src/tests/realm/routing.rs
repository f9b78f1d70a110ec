//! Questions find the owner, and changes happen once.

use std::{sync::Arc, time::Duration};

use umbel_core::{
    device::{DisconnectReason, Presence},
    ids::{NodeId, ShardId, Term},
    shadow::{Reply, Verb},
};
use umbel_storage::nodes::Owner;

use super::{
    super::{client, device, eventually, hello, request, version, will},
    net::{Net, SHARDS, shard},
};
use crate::{EditError, Filter, Refused};

async fn update(net: &Net, node: u64, id: &str) -> Result<Reply, Refused> {
    let body = r#"{"state":{"desired":{"a":1}},"clientToken":"t"}"#;
    let realm = net.realm(node);
    realm.shadow(&device(id), request(Verb::Update, body)).await
}

async fn get(net: &Net, node: u64, id: &str) -> u64 {
    let realm = net.realm(node);
    let reply = realm.shadow(&device(id), request(Verb::Get, "")).await;
    version(&reply.expect("served"))
}

#[tokio::test]
async fn a_device_is_served_through_any_node() {
    let net = Net::new(2).await;
    let epoch = net.connect(1, "d", hello(None)).await.expect("admitted");
    let view = net.view(1, "d").await.expect("known");
    let session = view.record.session.as_ref().expect("open");
    assert_eq!((session.epoch, session.gateway), (epoch, NodeId(1)));
    assert_eq!(version(&update(&net, 1, "d").await.expect("served")), 1);
    assert_eq!(version(&update(&net, 2, "d").await.expect("served")), 2);
    assert_eq!((get(&net, 1, "d").await, get(&net, 2, "d").await), (2, 2));
    let accepted = "$aws/things/d/shadow/update/accepted";
    let said = net.published.lock().clone();
    let by: Vec<_> = said
        .iter()
        .filter(|said| said.1 == accepted)
        .map(|said| said.0)
        .collect();
    assert_eq!(by, [NodeId(2), NodeId(2)], "the owner answers");
    let site = net.site(2);
    assert_eq!(site.realm.gateway_of(&client("d")), Some(NodeId(1)));
    assert_eq!(net.realm(1).gateway_of(&client("d")), None, "not the owner");
    assert_eq!(site.realm.current_epoch(&client("d")), Some(epoch));
}

#[tokio::test]
async fn a_device_that_lives_here_costs_no_question() {
    let net = Net::new(2).await;
    let epoch = net.connect(2, "d", hello(None)).await.expect("admitted");
    update(&net, 2, "d").await.expect("served");
    get(&net, 2, "d").await;
    let why = DisconnectReason::ClientInitiated;
    net.leave(2, "d", epoch, why).await.expect("recorded");
    let asked = net.asked.lock().clone();
    assert!(
        asked
            .iter()
            .all(|(from, _, label)| *from == NodeId(1) && *label == "resync"),
        "{asked:?}"
    );
    let rows = net.ledger_rows();
    assert_eq!(rows, 0, "nothing is remembered of who cannot ask again");
}

#[tokio::test]
async fn a_node_that_is_asked_wrongly_names_the_owner() {
    let net = Net::new(3).await;
    // Node 1 still believes in node 3.
    let owner = net.give_quietly(shard("d"), Some(2));
    for node in [2, 3] {
        net.site(node).nodes.set_owner(shard("d"), owner);
    }
    net.settled().await;
    net.asked.lock().clear();
    assert_eq!(version(&update(&net, 1, "d").await.expect("served")), 1);
    let asked = net.asked.lock().clone();
    let way: Vec<_> = asked
        .iter()
        .filter(|one| one.2 == "shadow")
        .map(|one| one.1)
        .collect();
    assert_eq!(
        way,
        [NodeId(3), NodeId(2)],
        "retried once, where it moved to"
    );
}

#[tokio::test]
async fn g3_a_command_whose_answer_is_lost_is_applied_once() {
    let net = Net::new(2).await;
    net.lose_next("shadow", || {});
    assert_eq!(version(&update(&net, 1, "d").await.expect("served")), 1);
    assert_eq!(net.asked("shadow"), 2);
    assert_eq!(get(&net, 2, "d").await, 1);
    // The owner that did it has told everybody already.
    assert_eq!(net.count("$aws/things/d/shadow/update/accepted"), 1);
    net.lose_next("connect", || {});
    let first = net.connect(1, "d", hello(None)).await.expect("admitted");
    assert_eq!(net.view(1, "d").await.expect("known").record.epoch, first);
    assert_eq!(net.count("$aws/events/presence/connected/d"), 1);
}

#[tokio::test]
async fn g3_a_command_that_the_dead_owner_applied_is_applied_once_by_the_next() {
    let net = Net::new(3).await;
    let world = Arc::clone(&net);
    net.lose_next("shadow", move || {
        let dead = world.kill(3);
        world.gone(&dead);
        world.give_all(Some(2));
    });
    let reply = update(&net, 1, "d").await.expect("served");
    assert_eq!(version(&reply), 1, "the first answer");
    assert_eq!(get(&net, 2, "d").await, 1);
    // Nobody knows what the dead owner said, so it is said again.
    assert_eq!(net.count("$aws/things/d/shadow/update/accepted"), 2);

    let created = Arc::clone(&net);
    net.lose_next("edit", move || created.give_all(Some(2)));
    let realm = net.realm(1);
    let view = realm.create_device(&device("e"), "{}".into()).await;
    assert!(view.is_ok(), "not that it exists: {view:?}");
    let again = realm.create_device(&device("e"), "{}".into()).await;
    assert_eq!(again, Err(EditError::Exists));
    let deleted = Arc::clone(&net);
    net.lose_next("edit", move || deleted.give_all(Some(2)));
    assert_eq!(realm.delete_device(&device("e"), None).await, Ok(()));
}

#[tokio::test]
async fn what_need_not_be_remembered_any_more_is_removed() {
    let net = Net::new(2).await;
    for _ in 0..10 {
        update(&net, 1, "d").await.expect("served");
    }
    assert_eq!(net.ledger_rows(), 10);
    net.clock
        .advance(crate::applied::WINDOW + Duration::from_secs(1));
    eventually("rows are removed", || net.ledger_rows() == 0).await;
    assert_eq!(get(&net, 1, "d").await, 10);
}

#[tokio::test]
async fn without_an_owner_everything_is_refused_and_later_at_once() {
    let net = Net::new(2).await;
    let epoch = net.connect(1, "d", hello(None)).await.expect("admitted");
    net.give_all(None);
    assert_eq!(update(&net, 1, "d").await, Err(Refused::Unavailable));
    let began = tokio::time::Instant::now();
    assert_eq!(update(&net, 1, "d").await, Err(Refused::Unavailable));
    assert_eq!(
        net.connect(1, "e", hello(None)).await,
        Err(Refused::Unavailable)
    );
    let listed = net.realm(1).devices(Filter::default(), None, 10).await;
    assert_eq!(listed, Err(Refused::Unavailable), "not silently short");
    assert!(net.realm(1).counts().await.is_err());
    assert!(began.elapsed() < Duration::from_millis(250), "at once");
    let rejected = net.published.lock().clone();
    let rejected: Vec<_> = rejected
        .iter()
        .filter(|said| said.1 == "$aws/things/d/shadow/update/rejected")
        .collect();
    assert_eq!(rejected.len(), 2);
    assert_eq!(
        (rejected[0].0, &rejected[0].2["code"]),
        (NodeId(1), &503.into())
    );
    let (realm, read) = (net.realm(1), request(Verb::Get, ""));
    let read = super::super::Request {
        origin: umbel_core::shadow::Origin::Http,
        ..read
    };
    let stale = realm.shadow_stale(&device("d"), read).await;
    assert!(stale.is_ok(), "any copy will do");

    // An end is kept until somebody owns the client.
    let why = DisconnectReason::ClientInitiated;
    assert!(net.leave(1, "d", epoch, why).await.is_err());
    net.give_all(Some(2));
    net.becomes(1, "d", Presence::Offline).await;
}

#[tokio::test]
async fn an_end_goes_before_the_next_connection_of_the_client() {
    let net = Net::new(2).await;
    let hello_will = || hello(Some(will("bye", 0)));
    let first = net.connect(1, "d", hello_will()).await.expect("admitted");
    net.give_all(None);
    let why = DisconnectReason::ClientInitiated;
    assert!(net.leave(1, "d", first, why).await.is_err());
    let owner = net.give_quietly(shard("d"), Some(2));
    net.site(1).nodes.set_owner(shard("d"), owner);
    net.connect(1, "d", hello_will()).await.expect("admitted");
    assert_eq!(net.count("bye"), 0, "it had said farewell");
    assert_eq!(net.presence(1, "d").await, Presence::Online);
}

#[tokio::test]
async fn a_list_is_merged_over_all_owners_in_id_order() {
    let net = Net::new(3).await;
    for (number, node) in [(0, 1), (1, 2), (2, 3), (3, 1)] {
        net.give(ShardId(number), Some(node));
    }
    net.settled().await;
    let mut expected = Vec::new();
    for number in 0..60 {
        let id = format!("d{number:03}");
        let realm = net.realm(1 + number % 3);
        realm
            .create_device(&device(&id), "{}".into())
            .await
            .expect("created");
        expected.push(id);
    }
    for limit in [1, 7, 60, 1000] {
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let realm = net.realm(2);
            let page = realm
                .devices(Filter::default(), after, limit)
                .await
                .expect("read");
            ids.extend(page.devices.iter().map(|view| view.id.as_str().to_owned()));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(ids, expected, "pages of {limit}");
    }
    // Whoever asks for more than there is gets all of it at once.
    let whole = net.realm(2).devices(Filter::default(), None, 1000).await;
    let whole = whole.expect("read");
    assert_eq!((whole.devices.len(), whole.next), (60, None));
    let counts = net.realm(3).counts().await.expect("counted");
    assert_eq!(counts.devices.never, 60);
    assert_eq!(net.realm(3).quarantined().await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_shard_that_went_is_forgotten_and_counted_once() {
    let net = Net::new(2).await;
    for number in 0..40 {
        net.connect(1, &format!("d{number}"), hello(None))
            .await
            .expect("admitted");
    }
    let online = |node| net.realm(node).local().counts().devices.online;
    assert_eq!((online(1), online(2)), (0, 40));
    net.give_all(Some(1));
    net.settled().await;
    eventually("the old owner forgets", || online(2) == 0).await;
    assert_eq!(online(1), 40);
    eventually("its table is empty", || net.realm(2).local().slots() == 0).await;
    net.give_all(Some(2));
    net.settled().await;
    eventually("and back again", || (online(1), online(2)) == (0, 40)).await;
}

#[tokio::test]
async fn an_owner_that_only_paused_answers_nobody() {
    let net = Net::new(2).await;
    update(&net, 1, "d").await.expect("served");
    // Node 2 still believes itself the owner; its ledger does not.
    let actual = net.give_quietly(shard("d"), Some(1));
    net.settled().await;
    let stale = Owner {
        node: NodeId(2),
        term: Term(1),
    };
    net.site(2).nodes.set_owner(shard("d"), Some(stale));
    let local = net.realm(2).local().clone();
    let told = local.shadow(&device("d"), request(Verb::Get, "")).await;
    assert_eq!(told, Err(Refused::NotOwner));
    net.site(2).nodes.set_owner(shard("d"), actual);
    assert_eq!(get(&net, 2, "d").await, 1);
}

#[tokio::test]
async fn signs_of_life_reach_the_owner_in_batches() {
    let net = Net::new(2).await;
    net.connect(1, "d", hello(None)).await.expect("admitted");
    let site = net.site(1);
    let connect = crate::ports::Clock::wall(net.clock.as_ref());
    net.clock.advance(Duration::from_secs(50));
    let again = umbel_core::device::Connect {
        gateway: site.me,
        gateway_boot: site.boot,
        ..hello(None)
    };
    let opened = site
        .realm
        .connect(&client("e"), again)
        .await
        .expect("admitted");
    net.clock.advance(Duration::from_secs(9));
    site.realm
        .touch(&opened.pulse, crate::ports::Clock::tick(net.clock.as_ref()));
    let until = tokio::time::Instant::now() + super::super::PATIENCE;
    let seen = loop {
        let seen = net
            .view(2, "e")
            .await
            .expect("known")
            .last_seen
            .expect("seen");
        if seen.since(connect) >= Duration::from_secs(59) {
            break seen;
        }
        assert!(tokio::time::Instant::now() < until, "never reported");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(seen.since(connect), Duration::from_secs(59));
    let quiet = net
        .view(2, "d")
        .await
        .expect("known")
        .last_seen
        .expect("seen");
    assert_eq!(quiet, connect, "who said nothing is not heard");
}

impl Net {
    /// How many commands are remembered.
    fn ledger_rows(&self) -> usize {
        use umbel_storage::{ledger::Ledger, table::Table};
        (0..SHARDS)
            .map(|number| {
                let rows = self
                    .ledger
                    .scan(ShardId(number), Table::Applied, &[], None, 1_000);
                rows.expect("healthy").len()
            })
            .sum()
    }
}
