//! The client token in every answer.

use super::*;

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
