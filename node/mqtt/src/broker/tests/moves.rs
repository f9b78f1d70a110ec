//! What was acknowledged arrives, also if a shard moves in the middle of it.

use std::sync::Arc;

use umbel_actors::ports::Outbox;
use umbel_core::{
    ids::{ClientId, NodeId, ShardId, Term},
    message::Qos,
};
use umbel_storage::{Boot, Reach, Table};

use super::{
    homes::{durable, heard, payloads, subscribe, take},
    net::{Net, SHARDS, eventually, message, payloads_of},
    world::{Said, V5, hello},
};
use crate::broker::{
    PublishRefused,
    peers::home::{Ask, Attach, Reply, Speaker, Stage},
};

fn shard_of(key: &str) -> ShardId {
    ShardId::of(key, SHARDS)
}

/// Everything that can go on does, as far as it gets.
async fn go_on() {
    for _ in 0..100 {
        // what reads does so on threads of its own
        tokio::task::spawn_blocking(std::thread::yield_now)
            .await
            .expect("no panic");
        tokio::task::yield_now().await;
    }
}

/// Publishes on the first node while a shard leaves it: proposed before, answered after.
async fn publish_while_it_leaves(net: &Net, shard: ShardId, topic: &str, payload: &str, qos: Qos) {
    assert_eq!(net.owner(shard).node, NodeId(1));
    net.ledger.hold();
    let broker = Arc::clone(net.broker(1));
    let said = message(topic, payload, qos);
    let published = tokio::spawn(async move { broker.publish_external(said).await });
    eventually("the message is proposed", || net.ledger.held() > 0).await;
    net.move_shard(shard, 2);
    net.ledger.release();
    assert_eq!(published.await.expect("no panic"), Ok(()));
}

/// G1: a message of a device's own topics, such as a delta, follows the device's session to the next owner.
#[tokio::test]
async fn what_a_device_hears_of_itself_follows_its_session_to_the_next_owner() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let net = Net::new(3).await;
        let name = net.name_at(1, "device");
        let topic = format!("$aws/things/{name}/shadow/update/delta");
        let mut device = net.connect(3, durable(&name)).await;
        subscribe(&mut device, &topic, qos).await;
        net.converged().await;
        publish_while_it_leaves(&net, shard_of(&name), &topic, "delta", qos).await;
        assert_eq!(payloads_of(&mut device, 1).await, ["delta"]);
        assert!(device.payloads().is_empty(), "once");
    }
}

/// The same for one who listens to its own topics and to those of all devices: one message.
#[tokio::test]
async fn who_matches_twice_gets_what_follows_it_once() {
    let net = Net::new(3).await;
    let name = net.name_at(1, "device");
    let topic = format!("umbel/devices/{name}/x");
    let mut device = net.connect(3, durable(&name)).await;
    subscribe(&mut device, &topic, Qos::AtLeastOnce).await;
    subscribe(&mut device, "umbel/devices/+/x", Qos::AtLeastOnce).await;
    net.converged().await;
    publish_while_it_leaves(&net, shard_of(&name), &topic, "1", Qos::AtLeastOnce).await;
    let end = net
        .broker(2)
        .publish_external(message(&topic, "2", Qos::AtLeastOnce));
    assert_eq!(end.await, Ok(()));
    assert_eq!(payloads_of(&mut device, 2).await, ["1", "2"]);
}

/// G1: a member of a shared group whose home leaves in the middle gets the message there, or another member does.
#[tokio::test]
async fn a_member_of_a_shared_group_gets_what_its_home_could_not_keep() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let net = Net::new(3).await;
        let name = net.name_at(1, "member");
        let mut member = net.connect(1, durable(&name)).await;
        subscribe(&mut member, "$share/g/a", qos).await;
        net.converged().await;
        publish_while_it_leaves(&net, shard_of(&name), "a", "job", qos).await;
        assert_eq!(payloads_of(&mut member, 1).await, ["job"]);
        assert!(member.payloads().is_empty(), "once");
    }
}

/// F9: a node that lost a shard and has it again, without having noticed, does not say for it that nobody is there.
#[tokio::test]
async fn a_node_that_lost_a_shard_and_has_it_again_reads_it_before_it_answers() {
    let net = Net::new(3).await;
    let name = net.name_at(1, "reader");
    let shard = shard_of(&name);
    net.move_shard_unheard(shard, 2, 1);
    let mut reader = net.connect(2, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    eventually("the third node knows", || net.broker(3).routes_len() == 1).await;
    net.move_shard_unheard(shard, 1, 1);
    let broker = Arc::clone(net.broker(3));
    let said = message("a", "x", Qos::AtLeastOnce);
    let published = tokio::spawn(async move { broker.publish_external(said).await });
    // in vain, as long as the first node knows nothing of its luck
    eventually("it was asked", || {
        published.is_finished() || net.broker(3).waiting_for_owners() > 0
    })
    .await;
    net.site_of(1)
        .nodes
        .set_owner(shard, Some(net.owner(shard)));
    assert_eq!(published.await.expect("no panic"), Ok(()));
    assert_eq!(payloads_of(&mut reader, 1).await, ["x"]);
}

/// A home that is still being read takes no message by the way: the one that waits for it is enough.
#[tokio::test]
async fn a_message_for_a_home_that_is_being_read_comes_once() {
    let net = Net::new(2).await;
    let name = net.name_at(1, "reader");
    let shard = shard_of(&name);
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::ExactlyOnce).await;
    net.converged().await;
    // the last of what is read
    net.read_slowly(shard, Table::Retained, true);
    net.move_shard(shard, 2);
    eventually("the next home is there in part", || {
        net.broker(2).totals().subscriptions == 1
    })
    .await;
    let broker = Arc::clone(net.broker(2));
    let said = message("a", "once", Qos::ExactlyOnce);
    let published = tokio::spawn(async move { broker.publish_external(said).await });
    eventually("it waits", || net.broker(2).waiting_for_owners() > 0).await;
    net.read_slowly(shard, Table::Retained, false);
    assert_eq!(published.await.expect("no panic"), Ok(()));
    let end = message("a", "end", Qos::ExactlyOnce);
    assert_eq!(net.broker(2).publish_external(end).await, Ok(()));
    let got = take(&mut reader, 2).await;
    assert_eq!(payloads(&got), ["once", "end"]);
}

/// F3: an owner that becomes owner again while it still reads the rows for its term before takes them up once.
#[tokio::test]
async fn two_terms_in_a_row_take_the_homes_up_one_after_the_other() {
    let net = Net::new(2).await;
    let name = net.name_at(1, "reader");
    let shard = shard_of(&name);
    let mut reader = net.connect(1, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.converged().await;
    let first = Term(net.owner(shard).term.0 + 1);
    net.stall(shard, first);
    net.move_shard(shard, 2);
    eventually("the first term begins", || net.stalled(shard, first) == 1).await;
    net.move_shard(shard, 2);
    // the second would be done by now if it did not wait for the first
    go_on().await;
    net.go_on(shard, first).await;
    eventually("the second term has its homes", || {
        net.broker(2).home_ready(shard)
    })
    .await;
    go_on().await;
    let said = message("a", "x", Qos::AtLeastOnce);
    assert_eq!(net.broker(2).publish_external(said).await, Ok(()));
    assert_eq!(payloads_of(&mut reader, 1).await, ["x"]);
}

/// A subscription that is asked for while its home moves is kept by the next home.
#[tokio::test]
async fn what_a_home_could_not_write_is_asked_of_the_next_one() {
    let net = Net::new(3).await;
    let name = net.name_at(1, "reader");
    let shard = shard_of(&name);
    let mut reader = net.connect(3, durable(&name)).await;
    let term = net.owner(shard).term;
    net.stall(shard, term);
    assert_eq!(reader.subscribe("a", Qos::AtLeastOnce), []);
    eventually("it is proposed", || net.stalled(shard, term) == 1).await;
    net.move_shard(shard, 2);
    net.go_on(shard, term).await;
    let said = heard(&mut reader, 1).await;
    assert!(
        matches!(&said[..], [Said::SubAck(_, codes)] if codes == &[1]),
        "{said:?}"
    );
    net.converged().await;
    let said = message("a", "x", Qos::AtLeastOnce);
    assert_eq!(net.broker(1).publish_external(said).await, Ok(()));
    assert_eq!(payloads_of(&mut reader, 1).await, ["x"]);
}

/// A node that cannot speak to everybody does not claim that nobody subscribed.
#[tokio::test]
async fn who_is_cut_off_does_not_say_that_nobody_is_there() {
    let net = Net::new(2).await;
    let mut writer = net.connect(1, hello("writer", V5)).await;
    let mut code_of = || match &writer.publish("nobody", "x", Qos::AtLeastOnce)[..] {
        [Said::PubAck(_, code)] => *code,
        other => panic!("{other:?}"),
    };
    let mut codes = vec![code_of()];
    for reach in [Reach::Unreachable, Reach::Gone] {
        net.break_link(1, 2, reach);
        eventually("it notices", || !net.broker(1).sees_everybody()).await;
        codes.push(code_of());
        net.heal(1, 2);
        eventually("it is over", || net.broker(1).sees_everybody()).await;
        codes.push(code_of());
    }
    assert_eq!(codes, [0x10, 0, 0x10, 0, 0x10]);
}

/// G1: a shard that leaves while it is looked who wants a message, after the table was read and before the router was.
#[tokio::test]
async fn a_message_follows_a_shard_that_leaves_under_it() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for filter in ["umbel/devices/+/x", "$share/g/umbel/devices/+/x"] {
            let net = Net::new(3).await;
            let device = net.name_at(1, "device");
            let mut names = (0..).map(|number| net.name_at(1, &format!("reader{number}-")));
            let name = names.find(|name| shard_of(name) != shard_of(&device));
            let name = name.expect("one of many");
            let mut reader = net.connect(3, durable(&name)).await;
            subscribe(&mut reader, filter, qos).await;
            net.converged().await;
            let (links, ledger) = (Arc::clone(&net.links), net.ledger.clone());
            let nodes = Arc::clone(&net.site_of(1).nodes);
            let (broker, shard) = (Arc::clone(net.broker(1)), shard_of(&name));
            net.on_look(1, shard_of(&device), move || {
                let owner = links.move_shard(&ledger, shard, NodeId(2));
                nodes.set_owner(shard, Some(owner));
                broker.follow_shards();
            });
            let said = message(&format!("umbel/devices/{device}/x"), "x", qos);
            let published = net.broker(1).publish_external(said);
            let mut published = std::pin::pin!(published);
            // nobody else looks before
            let is_over = futures_util::poll!(&mut published);
            assert!(is_over.is_pending(), "it waits for the next owner");
            for site in &net.sites {
                site.nodes.set_owner(shard, Some(net.owner(shard)));
            }
            assert_eq!(published.await, Ok(()));
            assert_eq!(payloads_of(&mut reader, 1).await, ["x"], "{filter}");
            assert!(reader.payloads().is_empty(), "once");
        }
    }
}

/// F3: a will or a delta waits longer for the next owner than a client does, who is told to say it again.
#[tokio::test]
async fn what_nobody_says_again_waits_for_a_late_owner() {
    let net = Net::new(2).await;
    let name = net.name_at(1, "reader");
    let shard = shard_of(&name);
    let mut reader = net.connect(2, durable(&name)).await;
    for filter in ["will", "said"] {
        subscribe(&mut reader, filter, Qos::AtLeastOnce).await;
    }
    net.converged().await;
    net.site_of(2).nodes.set_owner(shard, None);
    let will = message("will", "will", Qos::AtLeastOnce);
    let willed = tokio::spawn(net.broker(2).publish(Arc::new(will)));
    let said = message("said", "said", Qos::AtLeastOnce);
    let refused = net.broker(2).publish_external(said).await;
    assert_eq!(refused, Err(PublishRefused::Unavailable));
    assert!(!willed.is_finished());
    net.site_of(2)
        .nodes
        .set_owner(shard, Some(net.owner(shard)));
    willed.await.expect("no panic");
    assert_eq!(payloads_of(&mut reader, 1).await, ["will"]);
}

/// Of two attempts of one window to attach, one in the middle of the other, one counts: nothing is in flight twice.
#[tokio::test]
async fn an_attempt_to_attach_that_another_came_into_begins_again() {
    let net = Net::new(2).await;
    let name = net.name_at(1, "reader");
    let client = ClientId::parse(&name).expect("an id");
    let mut reader = net.connect(2, durable(&name)).await;
    subscribe(&mut reader, "a", Qos::AtLeastOnce).await;
    net.converged().await;
    let said = message("a", "x", Qos::AtLeastOnce);
    assert_eq!(net.broker(1).publish_external(said).await, Ok(()));
    eventually("it came", || !reader.messages().is_empty()).await;
    let view = net
        .broker(2)
        .client(&client)
        .and_then(|view| view.connection);
    let epoch = view.expect("connected").epoch;
    let attempt = |generation| {
        Ask::Attach(Box::new(Attach {
            speaker: Speaker {
                client: client.clone(),
                epoch,
            },
            generation,
            boot: Boot(1),
            fresh: false,
            window: 10,
            unacknowledged: vec![(1 << 32, Stage::Sent)],
            highest: 1 << 32,
            sent: None,
        }))
    };
    let (broker, older) = (Arc::clone(net.broker(1)), attempt(100));
    net.on_read(1, shard_of(&name), move || {
        drop(broker.serve_home(NodeId(2), older));
    });
    let newer = net.broker(1).serve_home(NodeId(2), attempt(101)).await;
    assert!(matches!(newer, Reply::NotHere), "{newer:?}");
    assert_eq!(net.broker(1).totals().inflight, 1);
    let newer = net.broker(1).serve_home(NodeId(2), attempt(102)).await;
    assert!(matches!(newer, Reply::Attached(_)), "{newer:?}");
    assert_eq!(net.broker(1).totals().inflight, 1);
}
