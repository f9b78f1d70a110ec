//! Behaviour of the shadow service, row by row of protocol.md 1.2 to 1.9.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    ids::{ClientId, DeviceId, ShadowName},
    message::Qos,
    time::Timestamp,
};

/// A thing's shadow under test, with a clock that stands still until it is told.
struct Thing {
    shadow: Shadow,
    kind: ShadowKind,
    now: u64,
    http: bool,
}

/// What was published, by the last levels of its topic.
struct Heard(Vec<(String, Value)>);

impl Heard {
    fn suffixes(&self) -> Vec<&str> {
        self.0.iter().map(|(suffix, _)| suffix.as_str()).collect()
    }

    fn get(&self, suffix: &str) -> &Value {
        let found = self.0.iter().find(|(topic, _)| topic == suffix);
        &found
            .unwrap_or_else(|| panic!("no {suffix} in {:?}", self.suffixes()))
            .1
    }
}

impl Thing {
    fn new() -> Self {
        Self {
            shadow: Shadow::default(),
            kind: ShadowKind::Classic,
            now: 1_000,
            http: false,
        }
    }

    fn outcome(&mut self, verb: Verb, payload: impl Into<Bytes>) -> Outcome {
        let device = DeviceId::parse("thing-1").unwrap();
        let origin = if self.http {
            Origin::Http
        } else {
            Origin::Mqtt {
                client: ClientId::parse("someone").unwrap(),
            }
        };
        let request = Request {
            shadow: self.kind.clone(),
            verb,
            payload: payload.into(),
            origin,
        };
        let now = Timestamp::from_millis(self.now * 1000 + 999);
        let outcome = handle(&device, &self.shadow, &request, now, &Limits::default());
        if let Some(next) = &outcome.next {
            self.shadow = next.clone();
        }
        outcome
    }

    fn ask(&mut self, verb: Verb, payload: impl Into<Bytes>) -> Heard {
        let prefix = match self.kind.name() {
            None => "$aws/things/thing-1/shadow/".to_owned(),
            Some(name) => format!("$aws/things/thing-1/shadow/name/{name}/"),
        };
        let messages = self.outcome(verb, payload).messages;
        Heard(
            messages
                .into_iter()
                .map(|message| {
                    assert!(message.qos == Qos::AtLeastOnce && !message.retain);
                    let suffix = message
                        .topic
                        .strip_prefix(&prefix)
                        .expect("topic")
                        .to_owned();
                    (
                        suffix,
                        serde_json::from_slice(&message.payload).expect("JSON"),
                    )
                })
                .collect(),
        )
    }

    fn update(&mut self, body: &Value) -> Heard {
        self.ask(Verb::Update, body.to_string())
    }

    fn get(&mut self) -> Value {
        self.ask(Verb::Get, "").get("get/accepted").clone()
    }

    fn refused(&mut self, verb: Verb, payload: impl Into<Bytes>) -> (u64, String) {
        let before = self.shadow.clone();
        let heard = self.ask(verb, payload);
        assert_eq!(heard.0.len(), 1, "{:?}", heard.suffixes());
        assert_eq!(self.shadow, before, "a refusal changes nothing");
        let (topic, body) = &heard.0[0];
        assert!(topic.ends_with("/rejected"), "{topic}");
        (
            body["code"].as_u64().unwrap(),
            body["message"].as_str().unwrap().to_owned(),
        )
    }

    fn update_refused(&mut self, body: &Value) -> (u64, String) {
        self.refused(Verb::Update, body.to_string())
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "n": inner }))
}

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

// 1.3 client token

#[test]
fn every_answer_echoes_the_token() {
    let mut thing = Thing::new();
    let token = r#"{"clientToken":"abc"}"#;
    assert_eq!(
        thing.ask(Verb::Get, token).get("get/rejected")["clientToken"],
        "abc"
    );
    assert_eq!(
        thing.ask(Verb::Delete, token).get("delete/rejected")["clientToken"],
        "abc"
    );
    assert_eq!(
        thing.ask(Verb::Update, token).get("update/rejected")["clientToken"],
        "abc"
    );
    let heard = thing.update(&json!({"state": {"desired": {"a": 1}}, "clientToken": "abc"}));
    assert!(heard.0.iter().all(|(_, body)| body["clientToken"] == "abc"));
    assert_eq!(
        thing.ask(Verb::Get, token).get("get/accepted")["clientToken"],
        "abc"
    );
    assert_eq!(
        thing.ask(Verb::Delete, token).get("delete/accepted")["clientToken"],
        "abc"
    );
}

#[test]
fn no_token_is_invented() {
    let heard = Thing::new().update(&json!({"state": {"desired": {"a": 1}}}));
    assert!(
        heard
            .0
            .iter()
            .all(|(_, body)| body.get("clientToken").is_none())
    );
}

#[test]
fn a_body_beyond_our_limits_still_gets_its_token_back() {
    let deep = json!({"state": {"desired": {"n": nested(80)}}, "clientToken": "deep"}).to_string();
    let twice = r#"{"state":{"desired":{"a":1,"a":2}},"clientToken":"twice"}"#.to_owned();
    let huge =
        r#"{"state":{"desired":{"a":99999999999999999999}},"clientToken":"huge"}"#.to_owned();
    for (body, token) in [(deep, "deep"), (twice, "twice"), (huge, "huge")] {
        let heard = Thing::new().ask(Verb::Update, body);
        assert_eq!(heard.get("update/rejected")["clientToken"], token);
        assert_eq!(heard.get("update/rejected")["code"], 400);
    }
}

#[test]
fn a_body_nested_to_the_sky_is_refused_without_recursion() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 128 * 1024 / open.len() / 2 - 64;
        let sky = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        let body = format!(r#"{{"state":{{"desired":{{"a":{sky}}}}},"clientToken":"t"}}"#);
        let heard = Thing::new().ask(Verb::Update, body);
        let refused = heard.get("update/rejected");
        assert_eq!(
            (&refused["code"], &refused["clientToken"]),
            (&json!(400), &json!("t"))
        );
        let unclosed = open.repeat(depth);
        assert_eq!(Thing::new().refused(Verb::Update, unclosed).0, 400);
    }
}

#[test]
fn a_body_that_is_no_json_is_answered_without_token() {
    let heard = Thing::new().ask(Verb::Update, r#"{"clientToken":"abc""#);
    assert!(heard.get("update/rejected").get("clientToken").is_none());
}

// 1.4 version

#[test]
fn the_first_version_is_1_and_each_update_adds_1_even_without_effect() {
    let mut thing = Thing::new();
    for (version, state) in [
        (1, json!({})),
        (2, json!({})),
        (3, json!(null)),
        (4, json!({"desired": {}})),
    ] {
        let heard = thing.update(&json!({ "state": state }));
        assert_eq!(heard.get("update/accepted")["version"], version);
    }
}

#[test]
fn an_update_with_another_version_conflicts() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}}}));
    for version in [0, 2, 7] {
        let refused =
            thing.update_refused(&json!({"state": {"desired": {"a": 2}}, "version": version}));
        assert_eq!(refused, (409, "Version conflict".to_owned()));
    }
    let heard = thing.update(&json!({"state": {"desired": {"a": 2}}, "version": 1}));
    assert_eq!(heard.get("update/accepted")["version"], 2);
    let heard = thing.update(&json!({"state": {"desired": {"a": 2}}, "version": 2.0}));
    assert_eq!(heard.get("update/accepted")["version"], 3);
}

#[test]
fn a_shadow_that_does_not_exist_has_version_0_or_its_tombstones() {
    let mut thing = Thing::new();
    assert_eq!(
        thing.update_refused(&json!({"state": {}, "version": 1})).0,
        409
    );
    thing.update(&json!({"state": {}, "version": 0}));
    thing.ask(Verb::Delete, "");
    assert_eq!(
        thing.update_refused(&json!({"state": {}, "version": 0})).0,
        409
    );
    let heard = thing.update(&json!({"state": {}, "version": 2}));
    assert_eq!(heard.get("update/accepted")["version"], 3);
}

#[test]
fn deletion_counts_as_a_version_and_answers_the_deleted_one() {
    let mut thing = Thing::new();
    for _ in 0..3 {
        thing.update(&json!({"state": {"desired": {"a": 1}}}));
    }
    let heard = thing.ask(Verb::Delete, "");
    assert_eq!(
        heard.get("delete/accepted"),
        &json!({"version": 3, "timestamp": 1000})
    );
    assert!(!thing.shadow.exists());
    assert_eq!(thing.shadow.version(), 4);
    let heard = thing.update(&json!({"state": {"desired": {"b": 1}}}));
    assert_eq!(heard.get("update/accepted")["version"], 5);
    assert_eq!(heard.get("update/documents")["previous"], Value::Null);
    assert_eq!(thing.get()["state"]["desired"], json!({"b": 1}));
}

#[test]
fn a_deleted_version_is_forgotten_after_48_hours() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {}}));
    thing.ask(Verb::Delete, "");
    let (shadow, deleted) = (thing.shadow.clone(), thing.now);
    thing.now = deleted + 48 * 3600 - 1;
    assert_eq!(
        thing.update(&json!({"state": {}})).get("update/accepted")["version"],
        3
    );
    thing.shadow = shadow;
    thing.now = deleted + 48 * 3600;
    assert_eq!(
        thing.update(&json!({"state": {}})).get("update/accepted")["version"],
        1
    );
}

// 1.5 times

#[test]
fn untouched_keys_keep_their_time_and_removed_ones_lose_it() {
    let mut thing = Thing::new();
    thing.update(
        &json!({"state": {"reported": {"a": 1, "b": [1, 2], "c": {"d": 1, "timestamp": 5}}}}),
    );
    thing.now = 2000;
    thing.update(&json!({"state": {"reported": {"a": 2, "b": null}}}));
    let (old, new) = (json!({"timestamp": 1000}), json!({"timestamp": 2000}));
    let expected = json!({"reported": {"a": new, "c": {"d": old, "timestamp": old}}});
    assert_eq!(thing.get()["metadata"], expected);
}

#[test]
fn arrays_have_an_entry_for_each_element() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"reported": {"a": [1, {"b": true}, [], {}]}}}));
    let at = json!({"timestamp": 1000});
    assert_eq!(
        thing.get()["metadata"]["reported"]["a"],
        json!([at, {"b": at}, [], {}])
    );
}

// 1.6 merge

#[test]
fn merge_follows_the_table() {
    for (before, patch, after) in [
        (
            json!({"o": {"a": 1}}),
            json!({"o": {"b": 2}}),
            json!({"o": {"a": 1, "b": 2}}),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!({"a": null, "x": null}),
            json!({"b": 2}),
        ),
        (json!({"o": {"a": 1}}), json!({"o": 5}), json!({"o": 5})),
        (json!({"o": {"a": 1}}), json!({"o": [1]}), json!({"o": [1]})),
        (
            json!({"o": 5}),
            json!({"o": {"a": 1}}),
            json!({"o": {"a": 1}}),
        ),
        (
            json!({"l": [1, 2, 3]}),
            json!({"l": [4]}),
            json!({"l": [4]}),
        ),
        (json!({"a": 1}), json!({"e": {}}), json!({"a": 1, "e": {}})),
        (
            json!({"a": 1}),
            json!({"n": {"x": null, "y": {"z": null}}}),
            json!({"a": 1}),
        ),
        (
            json!({"o": {"a": 1}}),
            json!({"o": {"a": null}}),
            json!({"o": {}}),
        ),
    ] {
        let mut thing = Thing::new();
        thing.update(&json!({"state": {"desired": before}}));
        thing.update(&json!({"state": {"desired": patch}}));
        assert_eq!(thing.get()["state"]["desired"], after, "{patch}");
    }
}

#[test]
fn a_section_disappears_with_its_last_key() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}, "reported": {"a": 1}}}));
    thing.update(&json!({"state": {"desired": {"a": null}}}));
    let got = thing.get();
    assert_eq!(got["state"], json!({"reported": {"a": 1}}));
    assert!(got["metadata"].get("desired").is_none());
}

#[test]
fn an_empty_state_makes_an_empty_shadow() {
    for state in [json!({}), json!({"desired": {}}), json!(null)] {
        let mut thing = Thing::new();
        let heard = thing.update(&json!({ "state": state }));
        assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]);
        let got = thing.get();
        let expected = json!({"state": {}, "metadata": {}, "version": 1, "timestamp": 1000});
        assert_eq!(got, expected);
    }
}

#[test]
fn a_null_inside_an_array_is_refused() {
    for value in [
        json!([null]),
        json!([1, [null]]),
        json!({"x": [{"y": null}]}),
    ] {
        let refused = Thing::new().update_refused(&json!({"state": {"desired": {"a": value}}}));
        assert_eq!(refused.0, 400);
    }
}

// 1.7 delta

#[test]
fn delta_follows_the_table() {
    for (desired, reported, delta) in [
        (
            json!({"a": 1, "b": 2}),
            json!({"a": 1}),
            Some(json!({"b": 2})),
        ),
        (json!({"a": 1}), json!({"a": 1, "z": 2}), None),
        (
            json!({"o": {"x": 1, "y": 2}}),
            json!({"o": {"x": 1, "y": 3}}),
            Some(json!({"o": {"y": 2}})),
        ),
        (
            json!({"l": [1, 2]}),
            json!({"l": [1, 3]}),
            Some(json!({"l": [1, 2]})),
        ),
        (
            json!({"l": [1, {"a": 1}]}),
            json!({"l": [1.0, {"a": 1}]}),
            None,
        ),
        (
            json!({"v": {"a": 1}}),
            json!({"v": 1}),
            Some(json!({"v": {"a": 1}})),
        ),
        (json!({"v": "1"}), json!({"v": 1}), Some(json!({"v": "1"}))),
        (json!({"a": 1}), json!({"a": 1.0}), None),
        (json!({"e": {}}), json!({"a": 1}), Some(json!({"e": {}}))),
        (
            json!({"a": {"b": 1}}),
            json!({}),
            Some(json!({"a": {"b": 1}})),
        ),
    ] {
        let mut thing = Thing::new();
        let heard = thing.update(&json!({"state": {"desired": desired, "reported": reported}}));
        let got = thing.get();
        assert_eq!(
            got["state"].get("delta"),
            delta.as_ref(),
            "{desired} {reported}"
        );
        match delta {
            Some(delta) => assert_eq!(heard.get("update/delta")["state"], delta),
            None => assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]),
        }
    }
}

#[test]
fn a_delta_holds_differences_set_earlier_and_follows_reports_too() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}}}));
    let heard = thing.update(&json!({"state": {"desired": {"b": 2}}}));
    assert_eq!(heard.get("update/delta")["state"], json!({"a": 1, "b": 2}));
    let heard = thing.update(&json!({"state": {"reported": {"a": 1}}}));
    assert_eq!(heard.get("update/delta")["state"], json!({"b": 2}));
    let heard = thing.update(&json!({"state": {"reported": {"b": 2}}}));
    assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]);
}

// 1.8 limits

#[test]
fn depth_is_counted_below_the_section() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": nested(9), "reported": nested(9)}}));
    assert!(thing.shadow.exists());
    for levels in [10, 13, 60, 80, 200] {
        let refused = thing.update_refused(&json!({"state": {"desired": nested(levels)}}));
        let message = "JSON contains too many levels of nesting; maximum is 8".to_owned();
        assert_eq!(refused, (400, message), "{levels}");
    }
}

#[test]
fn size_is_measured_on_the_merged_document_without_whitespace() {
    let mut thing = Thing::new();
    let text = "x".repeat(4000);
    thing.update(&json!({"state": {"desired": {"a": text}}}));
    thing.update(&json!({"state": {"reported": {"a": text}}}));
    let refused = thing.update_refused(&json!({"state": {"reported": {"b": "x".repeat(200)}}}));
    assert_eq!(
        refused,
        (
            413,
            "The payload exceeds the maximum size allowed".to_owned()
        )
    );
    thing.update(&json!({"state": {"desired": null, "reported": {"b": "x".repeat(200)}}}));
    let padded = format!(
        r#"{{"state":{}{{"reported":{{"c":1}}}}}}"#,
        " ".repeat(20_000)
    );
    assert_eq!(thing.ask(Verb::Update, padded).suffixes().len(), 2);
}

#[test]
fn a_document_of_exactly_the_maximum_is_accepted() {
    let value = "x".repeat(8192 - r#"{"a":""}"#.len());
    Thing::new()
        .update(&json!({"state": {"desired": {"a": value}}}))
        .get("update/accepted");
    let refused = Thing::new().update_refused(&json!({"state": {"desired": {"a": value + "x"}}}));
    assert_eq!(refused.0, 413);
}

#[test]
fn a_payload_larger_than_any_message_is_refused() {
    let payload = format!(r#"{{"state":{{}}}}{}"#, " ".repeat(128 * 1024));
    assert_eq!(Thing::new().refused(Verb::Update, payload).0, 413);
}

// 1.9 errors

#[test]
fn errors_have_the_texts_that_clients_know() {
    for (body, message) in [
        (r"{}", "Missing required node: state"),
        (r#"{"state":1}"#, "State node must be an object"),
        (r#"{"state":[]}"#, "State node must be an object"),
        (
            r#"{"state":{"desired":1}}"#,
            "Desired node must be an object",
        ),
        (
            r#"{"state":{"reported":[]}}"#,
            "Reported node must be an object",
        ),
        (
            r#"{"state":{"delta":{}}}"#,
            "State contains an invalid node: 'delta'",
        ),
        (r#"{"state":{},"version":"1"}"#, "Invalid version"),
        (r#"{"state":{},"version":-1}"#, "Invalid version"),
        (r#"{"state":{},"version":1.5}"#, "Invalid version"),
        (r#"{"state":{},"version":1e300}"#, "Invalid version"),
        (r#"{"state":{},"version":null}"#, "Invalid version"),
        (r#"{"state":{},"clientToken":1}"#, "Invalid clientToken"),
    ] {
        assert_eq!(
            Thing::new().refused(Verb::Update, body),
            (400, message.to_owned()),
            "{body}"
        );
    }
}

#[test]
fn errors_decided_elsewhere_have_their_texts() {
    for (error, code, message) in [
        (ShadowError::unauthorized(), 401, "Unauthorized"),
        (ShadowError::forbidden(), 403, "Forbidden"),
        (ShadowError::thing_not_found(), 404, "Thing not found"),
        (ShadowError::internal(), 500, "Internal service failure"),
    ] {
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
}

#[test]
fn what_is_not_json_is_called_invalid_json() {
    for body in [
        "",
        "{",
        "nope",
        "[]",
        "1",
        "{}{}",
        r#"{"state":{}},"#,
        r#"{"a":1e999}"#,
        r#"{"a":1,"a":2}"#,
    ] {
        let (code, message) = Thing::new().refused(Verb::Update, body);
        assert_eq!(code, 400);
        assert!(message.starts_with("Invalid JSON"), "{body}: {message}");
    }
}

#[test]
fn a_token_has_at_most_64_bytes() {
    let longest = "t".repeat(64);
    let heard = Thing::new().update(&json!({"state": {}, "clientToken": longest}));
    assert_eq!(heard.get("update/accepted")["clientToken"], longest);
    let refused = Thing::new().update_refused(&json!({"state": {}, "clientToken": longest + "t"}));
    assert_eq!(refused, (400, "Invalid clientToken".to_owned()));
    assert_eq!(
        Thing::new().refused(Verb::Get, r#"{"clientToken":{}}"#).1,
        "Invalid clientToken"
    );
}

#[test]
fn a_missing_shadow_is_named_and_the_answer_has_no_time() {
    let mut thing = Thing::new();
    for verb in [Verb::Get, Verb::Delete] {
        let message = "No shadow exists with name: 'thing-1'".to_owned();
        assert_eq!(thing.refused(verb, ""), (404, message));
    }
    thing.kind = ShadowKind::Named(ShadowName::parse("config").unwrap());
    let heard = thing.ask(Verb::Get, "");
    let expected = json!({"code": 404, "message": "No shadow exists with name: 'config'"});
    assert_eq!(heard.get("get/rejected"), &expected);
}

#[test]
fn bytes_that_are_not_utf8_are_an_unsupported_encoding() {
    let (code, message) = Thing::new().refused(
        Verb::Update,
        &b"{\"state\":{\"desired\":{\"a\":\"\xff\"}}}"[..],
    );
    assert_eq!(code, 415);
    assert!(message.contains("UTF-8"), "{message}");
}

#[test]
fn a_malformed_get_or_delete_is_answered_as_if_it_were_empty() {
    for payload in [&b"{"[..], b"[]", b"\xff", b"null"] {
        let mut thing = Thing::new();
        thing.update(&json!({"state": {"desired": {"a": 1}}}));
        thing
            .ask(Verb::Get, Bytes::copy_from_slice(payload))
            .get("get/accepted");
        thing
            .ask(Verb::Delete, Bytes::copy_from_slice(payload))
            .get("delete/accepted");
    }
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

// stored form

#[test]
fn a_damaged_stored_shadow_is_refused() {
    let section = |state: &str, stamps: &[u64]| StoredShadow {
        version: 1,
        updated_at: Timestamp::default(),
        document: Some(StoredDocument {
            desired: Some(StoredSection {
                state: state.to_owned(),
                stamps: stamps.to_vec(),
            }),
            reported: None,
        }),
    };
    assert!(Shadow::from_stored(&section(r#"{"a":[1,2]}"#, &[1, 2])).is_ok());
    for damaged in [
        section(r#"{"a":[1,2]}"#, &[1]),
        section(r#"{"a":1}"#, &[1, 2]),
        section(r#"{"a":null}"#, &[1]),
        section("[1]", &[1]),
        section("{", &[]),
    ] {
        assert!(Shadow::from_stored(&damaged).is_err(), "{damaged:?}");
    }
}
