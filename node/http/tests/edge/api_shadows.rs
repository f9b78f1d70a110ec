use serde_json::json;

use crate::support::{Api, JSON, MERGE};

const CLASSIC: &str = "/api/v1/devices/d/shadows/$classic";
const NAMED: &str = "/api/v1/devices/d/shadows/config";

#[tokio::test]
async fn a_patch_creates_merges_and_counts() {
    let api = Api::new();
    let body = r#"{"desired":{"a":1,"b":{"c":2}}}"#;
    let first = api.send("PATCH", CLASSIC, &[MERGE], body).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.header("etag"), "\"1\"");
    assert_eq!(
        first.json(),
        json!({"device": "d", "name": "$classic", "version": 1})
    );
    let body = r#"{"desired":{"a":null},"reported":{"b":{"c":1}}}"#;
    let second = api.send("PATCH", CLASSIC, &[MERGE], body).await;
    assert_eq!(second.header("etag"), "\"2\"");
    let shadow = api.get(CLASSIC).await;
    assert_eq!(shadow.header("etag"), "\"2\"");
    let document = shadow.json();
    assert_eq!(document["desired"], json!({"b": {"c": 2}}));
    assert_eq!(document["reported"], json!({"b": {"c": 1}}));
    assert_eq!(document["delta"], json!({"b": {"c": 2}}));
    assert_eq!(
        document["metadata"]["reported"]["b"]["c"]["timestamp"],
        1_795_194_873
    );
}

#[tokio::test]
async fn the_classic_shadow_and_a_named_one_are_two() {
    let api = Api::new();
    api.send("PATCH", CLASSIC, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    api.get(NAMED).await.is_problem(404, "not-found");
    let escaped = "/api/v1/devices/d/shadows/%24classic";
    assert_eq!(api.get(escaped).await.status, 200);
}

#[tokio::test]
async fn an_unchanged_shadow_is_304() {
    let api = Api::new();
    api.send("PATCH", NAMED, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    let known = api
        .send("GET", NAMED, &[("if-none-match", "W/\"1\"")], "")
        .await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_eq!(known.header("etag"), "\"1\"");
    let other = api
        .send("GET", NAMED, &[("if-none-match", "\"0\"")], "")
        .await;
    assert_eq!(other.status, 200);
}

#[tokio::test]
async fn a_patch_at_another_version_is_412() {
    let api = Api::new();
    let nothing = [MERGE, ("if-match", "\"1\"")];
    let body = r#"{"desired":{"a":1}}"#;
    api.send("PATCH", NAMED, &nothing, body)
        .await
        .is_problem(412, "precondition-failed");
    api.send("PATCH", NAMED, &[MERGE], body).await;
    assert_eq!(
        api.send("PATCH", NAMED, &nothing, body)
            .await
            .header("etag"),
        "\"2\""
    );
    let stale = api.send("PATCH", NAMED, &nothing, body).await;
    stale.is_problem(412, "precondition-failed");
    assert_eq!(stale.header("etag"), "\"2\"");
}

#[tokio::test]
async fn put_replaces_both_sections() {
    let api = Api::new();
    let body = r#"{"desired":{"a":1,"b":{"c":2,"d":3}},"reported":{"x":1}}"#;
    let created = api.send("PUT", NAMED, &[JSON], body).await;
    assert_eq!(created.status, 201, "{created:?}");
    let replaced = api
        .send("PUT", NAMED, &[JSON], r#"{"desired":{"b":{"c":5}}}"#)
        .await;
    assert_eq!(replaced.status, 200);
    let document = api.get(NAMED).await.json();
    assert_eq!(document["desired"], json!({"b": {"c": 5}}));
    assert_eq!(document["reported"], json!({}));
    assert_eq!(document["version"], 2);
}

#[tokio::test]
async fn put_creates_once_with_if_none_match_also_after_a_deletion() {
    let api = Api::new();
    let once = [JSON, ("if-none-match", "*")];
    assert_eq!(api.send("PUT", NAMED, &once, "{}").await.status, 201);
    api.send("PUT", NAMED, &once, "{}")
        .await
        .is_problem(412, "precondition-failed");
    assert_eq!(api.send("DELETE", NAMED, &[], "").await.status, 204);
    let again = api
        .send("PUT", NAMED, &once, r#"{"desired":{"a":1}}"#)
        .await;
    assert_eq!(again.status, 201, "{again:?}");
    // The version goes on counting over the deletion.
    assert_eq!(again.header("etag"), "\"3\"");
}

#[tokio::test]
async fn a_shadow_is_deleted_at_the_version_asked_for() {
    let api = Api::new();
    api.send("PATCH", NAMED, &[MERGE], r#"{"desired":{"a":1}}"#)
        .await;
    let stale = api
        .send("DELETE", NAMED, &[("if-match", "\"5\"")], "")
        .await;
    stale.is_problem(412, "precondition-failed");
    assert_eq!(
        api.send("DELETE", NAMED, &[("if-match", "\"1\"")], "")
            .await
            .status,
        204
    );
    api.get(NAMED).await.is_problem(404, "not-found");
    api.send("DELETE", NAMED, &[], "")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn what_is_not_a_shadow_is_refused_in_the_services_words() {
    let api = Api::new();
    for (body, words) in [
        (r#"{"other":{}}"#, "State contains an invalid node: 'other'"),
        (r#"{"desired":1}"#, "Desired node must be an object"),
    ] {
        let answer = api.send("PATCH", NAMED, &[MERGE], body).await;
        assert_eq!(answer.is_problem(400, "invalid-request")["detail"], words);
        let answer = api.send("PUT", NAMED, &[JSON], body).await;
        assert_eq!(answer.is_problem(400, "invalid-request")["detail"], words);
    }
    let large = format!(r#"{{"desired":{{"a":"{}"}}}}"#, "x".repeat(9000));
    api.send("PATCH", NAMED, &[MERGE], &large)
        .await
        .is_problem(413, "too-large");
    api.send("PATCH", NAMED, &[], "{}")
        .await
        .is_problem(415, "unsupported-media-type");
    api.send("PATCH", "/api/v1/devices/d/shadows/a%2Fb", &[MERGE], "{}")
        .await
        .is_problem(400, "invalid-request");
}

#[tokio::test]
async fn a_body_cannot_smuggle_in_what_is_not_state() {
    let api = Api::new();
    let body = r#"{"desired":{"a":1},"version":9}"#;
    let answer = api.send("PATCH", NAMED, &[MERGE], body).await;
    answer.is_problem(400, "invalid-request");
}

#[tokio::test]
async fn shadows_are_listed_with_the_classic_one_first() {
    let api = Api::new();
    for name in ["b", "$classic", "a", "c"] {
        let uri = format!("/api/v1/devices/d/shadows/{name}");
        api.send("PATCH", &uri, &[MERGE], r#"{"desired":{"a":1}}"#)
            .await;
    }
    let all = api.get("/api/v1/devices/d/shadows").await;
    assert_eq!(all.json(), json!({"items": ["$classic", "a", "b", "c"]}));
    let first = api.get("/api/v1/devices/d/shadows?limit=2").await;
    assert_eq!(first.json()["items"], json!(["$classic", "a"]));
    let uri = first
        .header("link")
        .split(['<', '>'])
        .nth(1)
        .expect("a link")
        .to_owned();
    assert_eq!(api.get(&uri).await.json(), json!({"items": ["b", "c"]}));
    let first = api.get("/api/v1/devices/d/shadows?limit=1").await;
    assert_eq!(first.json()["items"], json!(["$classic"]));
    let uri = first
        .header("link")
        .split(['<', '>'])
        .nth(1)
        .expect("a link")
        .to_owned();
    assert_eq!(api.get(&uri).await.json()["items"], json!(["a"]));
    assert_eq!(
        api.get("/api/v1/devices/nobody/shadows").await.json(),
        json!({"items": []})
    );
}
