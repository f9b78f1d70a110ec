//! The events that tell others, as AWS words them.

use super::*;

// AWS's connection counter

#[test]
fn the_version_number_rises_and_starts_anew_after_an_hour_away() {
    let mut bench = Bench::new("d");
    for expected in 0..3 {
        assert_eq!(
            bench.connect(plain()).event("connected")["versionNumber"],
            expected
        );
        let event = bench
            .end(DisconnectReason::ClientInitiated)
            .event("disconnected");
        assert_eq!(event["versionNumber"], expected);
        bench.wait(3599);
    }
    bench.wait(1);
    assert_eq!(
        bench.connect(plain()).event("connected")["versionNumber"],
        0
    );
}

#[test]
fn a_long_session_keeps_its_version_number() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(7200));
    bench.end(DisconnectReason::ClientInitiated);
    bench.wait(7199);
    assert_eq!(
        bench.connect(persistent(7200)).event("connected")["versionNumber"],
        1
    );
}

// other events

#[test]
fn refusals_and_subscriptions_have_events() {
    let client = ClientId::parse("camera-1").unwrap();
    let subject = events::Subject {
        client: &client,
        kind: Kind::Device,
        epoch: SessionEpoch(7),
        principal: "cert-1",
    };
    let now = Timestamp::from_millis(START);
    let body = |message: Option<Message>| -> (String, Value) {
        let message = message.expect("an event");
        (
            message.topic,
            serde_json::from_slice(&message.payload).unwrap(),
        )
    };
    let session = events::session_identifier(&client, SessionEpoch(7));
    assert_eq!(session.len(), 36);
    let (topic, failed) = body(events::connect_failed(subject, "10.0.0.7", now));
    assert_eq!(topic, "$aws/events/presence/connect_failed/camera-1");
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "connect_failed",
        "connectFailureReason": "AUTHORIZATION_FAILED", "principalIdentifier": "cert-1",
        "sessionIdentifier": session, "ipAddress": "10.0.0.7", "thingName": "camera-1",
    });
    assert_eq!(failed, expected);
    let (topic, subscribed) = body(events::subscribed(subject, &["a/+", "b\"#"], now));
    assert_eq!(topic, "$aws/events/subscriptions/subscribed/camera-1");
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "subscribed",
        "sessionIdentifier": session, "principalIdentifier": "cert-1", "topics": ["a/+", "b\"#"],
        "thingName": "camera-1",
    });
    assert_eq!(subscribed, expected);
    let (topic, event) = body(events::unsubscribed(subject, &[], now));
    assert_eq!(topic, "$aws/events/subscriptions/unsubscribed/camera-1");
    assert_eq!(
        (&event["eventType"], &event["topics"]),
        (&json!("unsubscribed"), &json!([]))
    );
}
