//! Limits, the words of errors, and a stored form that is damaged.

use super::*;

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
