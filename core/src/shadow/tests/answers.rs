//! What is answered and told, and by which way.

use super::*;

// 1.2 payload fields

#[test]
fn an_update_answers_delta_documents_accepted_in_this_order() {
    let heard = Thing::new().update(&json!({"state": {"desired": {"on": true}}}));
    assert_eq!(
        heard.suffixes(),
        ["update/delta", "update/documents", "update/accepted"]
    );
}

#[test]
fn a_request_that_is_asked_again_gets_its_first_answer_and_the_delta_of_now() {
    let mut thing = Thing::new();
    let body = json!({"state": {"desired": {"a": 1}}, "clientToken": "t"}).to_string();
    let first = thing.outcome(Verb::Update, body.clone());
    let at = Timestamp::from_millis(thing.now * 1000 + 999);
    thing.now += 5;
    thing.update(&json!({"state": {"desired": {"b": 2}}}));
    let device = DeviceId::parse("thing-1").unwrap();
    let mut request = Request {
        shadow: ShadowKind::Classic,
        verb: Verb::Update,
        payload: body.into(),
        origin: Origin::Mqtt {
            client: ClientId::parse("someone").unwrap(),
        },
    };
    let limits = Limits::default();
    let second = again(&device, &thing.shadow, &request, (1, at), &limits);
    assert_eq!((second.next, &second.reply), (None, &first.reply));
    let topics: Vec<_> = second.messages.iter().map(|one| &one.topic).collect();
    assert!(topics[0].ends_with("/update/delta") && topics[1].ends_with("/update/accepted"));
    let delta: Value = serde_json::from_slice(&second.messages[0].payload).unwrap();
    assert_eq!(
        (&delta["version"], &delta["state"]["b"]),
        (&json!(2), &json!(2))
    );

    let deleted = thing.outcome(Verb::Delete, "");
    request.verb = Verb::Delete;
    request.payload = Bytes::new();
    let at = Timestamp::from_millis(thing.now * 1000 + 999);
    let second = again(&device, &thing.shadow, &request, (2, at), &limits);
    assert_eq!(second.reply, deleted.reply);
}

#[test]
fn accepted_holds_only_what_was_sent() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1, "b": {"c": 2}}, "reported": {"r": 1}}}));
    let sent =
        json!({"state": {"desired": {"b": {"c": null}, "d": [1, {"e": 2}]}}, "clientToken": "x"});
    let heard = thing.update(&sent);
    let at = json!({"timestamp": 1000});
    let expected = json!({
        "state": {"desired": {"b": {"c": null}, "d": [1, {"e": 2}]}},
        "metadata": {"desired": {"b": {"c": at}, "d": [at, {"e": at}]}},
        "version": 2, "timestamp": 1000, "clientToken": "x",
    });
    assert_eq!(heard.get("update/accepted"), &expected);
}

#[test]
fn a_null_state_clears_both_sections() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}, "reported": {"a": 1}}}));
    let heard = thing.update(&json!({"state": null}));
    let expected =
        json!({"state": null, "metadata": {"timestamp": 1000}, "version": 2, "timestamp": 1000});
    assert_eq!(heard.get("update/accepted"), &expected);
    assert_eq!(thing.get()["state"], json!({}));
}

#[test]
fn a_null_section_is_dropped() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}, "reported": {"a": 2}}}));
    let heard = thing.update(&json!({"state": {"desired": null}}));
    let accepted = heard.get("update/accepted");
    assert_eq!(accepted["state"], json!({"desired": null}));
    assert_eq!(
        accepted["metadata"],
        json!({"desired": {"timestamp": 1000}})
    );
    assert_eq!(thing.get()["state"], json!({"reported": {"a": 2}}));
}

#[test]
fn other_top_level_keys_are_ignored_and_not_stored() {
    let mut thing = Thing::new();
    let heard = thing.update(&json!({"state": {"reported": {"a": 1}}, "extra": {"x": [null]}}));
    assert!(heard.get("update/accepted").get("extra").is_none());
    assert!(thing.get().get("extra").is_none());
}

#[test]
fn get_shows_sections_and_delta_only_when_they_are_not_empty() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"reported": {"a": 1}}}));
    thing.now = 2000;
    let at = json!({"timestamp": 1000});
    let expected = json!({
        "state": {"reported": {"a": 1}}, "metadata": {"reported": {"a": at}},
        "version": 1, "timestamp": 2000,
    });
    assert_eq!(thing.get(), expected);
    thing.update(&json!({"state": {"desired": {"a": 2}}}));
    let got = thing.get();
    assert_eq!(got["state"]["delta"], json!({"a": 2}));
    assert!(got["metadata"].get("delta").is_none());
}

#[test]
fn delta_is_flat_and_has_the_times_of_desired() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1, "n": {"x": 1, "y": 2}}}}));
    thing.now = 2000;
    let heard = thing.update(&json!({"state": {"reported": {"n": {"x": 1}}}, "clientToken": "d"}));
    let at = json!({"timestamp": 1000});
    let expected = json!({
        "version": 2, "timestamp": 2000, "state": {"a": 1, "n": {"y": 2}},
        "metadata": {"a": at, "n": {"y": at}}, "clientToken": "d",
    });
    assert_eq!(heard.get("update/delta"), &expected);
}

#[test]
fn documents_hold_before_and_after_without_delta() {
    let mut thing = Thing::new();
    let first = thing.update(&json!({"state": {"desired": {"a": 1}}}));
    assert_eq!(first.get("update/documents")["previous"], Value::Null);
    thing.now = 2000;
    let heard = thing.update(&json!({"state": {"desired": {"b": 2}}, "clientToken": "c"}));
    let (old, new) = (json!({"timestamp": 1000}), json!({"timestamp": 2000}));
    let expected = json!({
        "previous": {"state": {"desired": {"a": 1}}, "metadata": {"desired": {"a": old}}, "version": 1},
        "current": {
            "state": {"desired": {"a": 1, "b": 2}}, "metadata": {"desired": {"a": old, "b": new}},
            "version": 2,
        },
        "timestamp": 2000, "clientToken": "c",
    });
    assert_eq!(heard.get("update/documents"), &expected);
}

// 1.10 origin

#[test]
fn an_update_over_http_is_told_on_mqtt_and_its_refusal_is_not() {
    let mut thing = Thing::new();
    thing.http = true;
    let heard = thing.update(&json!({"state": {"desired": {"a": 1}}}));
    assert_eq!(
        heard.suffixes(),
        ["update/delta", "update/documents", "update/accepted"]
    );
    let refused = thing.outcome(Verb::Update, "{}");
    assert!(refused.messages.is_empty());
    assert!(matches!(refused.reply, Reply::Rejected(rejection) if rejection.error.code == 400));
    assert!(thing.outcome(Verb::Get, "").messages.is_empty());
    assert_eq!(thing.ask(Verb::Delete, "").suffixes(), ["delete/accepted"]);
    assert!(thing.outcome(Verb::Get, "").messages.is_empty());
}

#[test]
fn a_refusal_from_outside_echoes_the_token_to_mqtt_clients_only() {
    let device = DeviceId::parse("thing-1").unwrap();
    let mut request = Request {
        shadow: ShadowKind::Classic,
        verb: Verb::Update,
        payload: Bytes::from_static(br#"{"state":{},"clientToken":"t"}"#),
        origin: Origin::Mqtt {
            client: ClientId::parse("c").unwrap(),
        },
    };
    let now = Timestamp::from_millis(5000);
    let busy = ShadowError::too_many_requests;
    let (_, message) = reject(&device, &request, busy(), now);
    let message = message.expect("a message for MQTT");
    assert_eq!(message.topic, "$aws/things/thing-1/shadow/update/rejected");
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(
        (&body["code"], &body["clientToken"]),
        (&json!(429), &json!("t"))
    );
    request.origin = Origin::Http;
    let (reply, message) = reject(&device, &request, busy(), now);
    assert!(message.is_none() && matches!(reply, Reply::Rejected(_)));
}
