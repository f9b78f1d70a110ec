//! Rights: at CONNECT, PUBLISH, SUBSCRIBE and delivery; and what no policy can give.

use umbel_core::{ids::ClientId, message::Qos, policy::Policy};

use super::world::{Said, V3, V5, World, hello, messages};
use crate::{close::CloseCause, packet::Packet, reason::ReasonCode};

fn policy(statements: &str) -> Policy {
    Policy::parse(&format!(
        r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#
    ))
    .expect("a policy")
}

fn allow(actions: &str, resources: &str) -> String {
    format!(r#"{{"Effect":"Allow","Action":[{actions}],"Resource":[{resources}]}}"#)
}

fn narrow() -> Policy {
    policy(
        &[
            allow(r#""iot:Connect""#, r#""*""#),
            allow(
                r#""iot:Publish","iot:Receive""#,
                r#""arn:aws:iot:eu:1:topic/mine/*""#,
            ),
            allow(r#""iot:Subscribe""#, r#""arn:aws:iot:eu:1:topicfilter/*""#),
        ]
        .join(","),
    )
}

#[tokio::test]
async fn a_client_without_the_right_to_connect_is_refused_before_anybody_is_taken_over() {
    let world = World::new();
    let mut victim = world.connect(hello("victim", V5)).await;
    for version in [V3, V5] {
        let thief = hello("victim", version).policy(Policy::deny_all());
        let refusal = world.try_connect(thief).await.err().expect("refused");
        assert_eq!(refusal.reason, ReasonCode::NotAuthorized);
    }
    assert!(victim.hear().is_empty(), "T11: the victim stays");
}

#[tokio::test]
async fn a_publish_without_right_is_refused_by_reason_or_by_closing() {
    let world = World::new();
    let mut five = world.connect(hello("five", V5).policy(narrow())).await;
    assert_eq!(
        five.publish("mine/a", "x", Qos::AtLeastOnce),
        [Said::PubAck(1, 0x10)]
    );
    assert_eq!(
        five.publish("other", "x", Qos::AtLeastOnce),
        [Said::PubAck(2, 0x87)]
    );
    assert_eq!(
        five.publish("other", "x", Qos::ExactlyOnce),
        [Said::PubRec(3, 0x87)]
    );
    assert!(five.publish("other", "x", Qos::AtMostOnce).is_empty());
    assert_eq!(
        five.pubrel(3),
        [Said::PubComp(3, 0x92)],
        "a refused identifier is free"
    );
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut old = world.connect(hello("old", V3).policy(narrow())).await;
        let publish = old.message("other", "x", qos);
        let close = old.try_send(Packet::Publish(publish)).expect_err("closes");
        assert_eq!(close.cause, CloseCause::NotAuthorized);
    }
}

#[tokio::test]
async fn an_alias_does_not_get_around_the_policy() {
    let world = World::new();
    let mut five = world.connect(hello("five", V5).policy(narrow())).await;
    for topic in ["other", ""] {
        let publish = five.message_with(topic, "x", Qos::AtLeastOnce, |said| {
            said.topic_alias = std::num::NonZeroU16::new(1);
        });
        assert!(matches!(
            five.send(Packet::Publish(publish))[..],
            [Said::PubAck(_, 0x87)]
        ));
    }
}

#[tokio::test]
async fn a_filter_without_right_is_refused_and_its_neighbours_are_granted() {
    let world = World::new();
    let only_mine = policy(
        &[
            allow(r#""iot:Connect","iot:Receive""#, r#""*""#),
            allow(
                r#""iot:Subscribe""#,
                r#""arn:aws:iot:eu:1:topicfilter/mine/*""#,
            ),
        ]
        .join(","),
    );
    for (version, code) in [(V3, 0x80), (V5, 0x87)] {
        let mut client = world
            .connect(hello("client", version).policy(only_mine.clone()))
            .await;
        for filter in ["#", "other", "$share/g/other", "+/a"] {
            assert!(
                matches!(&client.subscribe(filter, Qos::AtMostOnce)[..], [Said::SubAck(_, codes)] if *codes == [code]),
                "{filter}"
            );
        }
        for filter in ["mine/#", "$share/g/mine/a"] {
            assert!(
                matches!(&client.subscribe(filter, Qos::AtMostOnce)[..], [Said::SubAck(_, codes)] if *codes == [0]),
                "{filter}"
            );
        }
    }
}

#[tokio::test]
async fn delivery_is_judged_message_by_message() {
    let world = World::new();
    let mut client = world.connect(hello("client", V5).policy(narrow())).await;
    client.subscribe("#", Qos::AtLeastOnce);
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("mine/1", "yes", Qos::AtLeastOnce);
    writer.publish("other", "no", Qos::AtLeastOnce);
    writer.publish("other", "no", Qos::AtMostOnce);
    writer.publish("mine/2", "yes", Qos::AtMostOnce);
    assert_eq!(client.payloads(), ["yes", "yes"]);
    assert_eq!(
        world.broker.totals().inflight,
        1,
        "what was not sent takes no place in the window"
    );
}

#[tokio::test]
async fn a_right_that_was_taken_away_ends_delivery_of_what_waits() {
    let world = World::new();
    let mut away = world.connect(hello("away", V5).persistent()).await;
    away.subscribe("#", Qos::AtLeastOnce);
    away.lose().await;
    let mut writer = world.connect(hello("writer", V5)).await;
    writer.publish("other", "no", Qos::AtLeastOnce);
    writer.publish("mine/1", "yes", Qos::AtLeastOnce);
    let mut back = world
        .connect(hello("away", V5).persistent().policy(narrow()))
        .await;
    assert_eq!(back.payloads(), ["yes"]);
}

#[tokio::test]
async fn no_policy_lets_a_client_speak_for_the_cluster() {
    let world = World::new();
    let mut watcher = world.connect(hello("watcher", V5)).await;
    watcher.subscribe("$aws/#", Qos::AtMostOnce);
    watcher.subscribe("$SYS/#", Qos::AtMostOnce);
    watcher.hear();
    let mut writer = world.connect(hello("writer", V5)).await;
    for topic in [
        "$SYS/uptime",
        "$aws/events/presence/connected/d1",
        "$aws/things/d1/shadow/update/accepted",
        "$aws/things/d1/shadow/name/n/update/delta",
        "$aws/things/d1/shadow/update/documents",
        "$aws/things/d1/shadow/get/rejected",
    ] {
        let said = writer.publish(topic, "lie", Qos::AtLeastOnce);
        assert!(matches!(said[..], [Said::PubAck(_, 0x87)]), "{topic}");
    }
    assert!(watcher.hear().is_empty());
}

#[tokio::test]
async fn wildcards_see_no_reserved_topic() {
    let world = World::new();
    let mut all = world.connect(hello("all", V3)).await;
    for filter in ["#", "+/#", "+/things/#", "/#"] {
        all.subscribe(filter, Qos::AtMostOnce);
    }
    let mut exact = world.connect(hello("exact", V3)).await;
    exact.subscribe("$aws/things/+/shadow/#", Qos::AtMostOnce);
    let mut device = world.connect(hello("d1", V3)).await;
    device.publish("$aws/things/d1/shadow/update", "{}", Qos::AtMostOnce);
    assert!(all.hear().is_empty(), "T7");
    assert_eq!(
        exact.messages().len(),
        1,
        "requests are seen by those who ask for them"
    );
}

#[tokio::test]
async fn shadow_requests_reach_the_fleet_and_nothing_else_does() {
    let world = World::new();
    let mut device = world.connect(hello("d1", V5)).await;
    for (topic, qos, code) in [
        ("$aws/things/d1/shadow/update", Qos::AtLeastOnce, 0),
        ("$aws/things/d1/shadow/name/n/get", Qos::AtMostOnce, 0),
        ("$aws/things/d2/shadow/delete", Qos::AtLeastOnce, 0),
        ("aws/things/d1/shadow/update", Qos::AtLeastOnce, 0x10),
    ] {
        let said = device.publish(topic, "{}", qos);
        if qos > Qos::AtMostOnce {
            assert!(
                matches!(said[..], [Said::PubAck(_, said)] if said == code),
                "{topic} {said:?}"
            );
        }
    }
    assert_eq!(world.fleet.requests.lock().len(), 3);
    let client = ClientId::parse("d1").expect("valid");
    let origin = umbel_core::shadow::Origin::Mqtt { client };
    assert!(
        world
            .fleet
            .requests
            .lock()
            .iter()
            .all(|request| request.origin == origin)
    );
}

#[tokio::test]
async fn a_will_is_judged_when_it_is_left() {
    let world = World::new();
    for (topic, retain) in [
        ("other", false),
        ("$SYS/x", false),
        ("$aws/things/d/shadow/update/accepted", false),
        ("$aws/things/d/shadow/update", true),
    ] {
        let hello = hello("client", V5).policy(narrow()).will(topic, retain);
        let refusal = world.try_connect(hello).await.err().expect("refused");
        assert_eq!(refusal.reason, ReasonCode::NotAuthorized, "{topic}");
    }
    let mut watcher = world.connect(hello("watcher", V5)).await;
    watcher.subscribe("mine/#", Qos::AtMostOnce);
    let client = world
        .connect(
            hello("client", V5)
                .policy(narrow())
                .will("mine/will", false),
        )
        .await;
    client.lose().await;
    assert_eq!(watcher.payloads(), ["gone"]);
    assert!(messages(watcher.hear()).is_empty());
}
