use serde_json::json;
use umbel_http::{model::State, port::Refusal};

use crate::support::{Api, JSON, MERGE};

fn fleet() -> Api {
    let api = Api::new();
    api.memory.add_device(
        "a",
        r#"{"type":"camera","region":"eu-1","tags":{"model":"x2"}}"#,
    );
    api.memory
        .add_device("b", r#"{"type":"camera","site":"hall 7"}"#);
    api.memory.add_device(
        "c",
        r#"{"type":"controller","region":"eu-1","tags":{"model":"x2","n":"1"}}"#,
    );
    api.memory.with(|tables| {
        tables.devices.get_mut("b").expect("b").state = State::Online;
        tables.devices.get_mut("c").expect("c").state = State::Stale;
    });
    api
}

async fn ids(api: &Api, query: &str) -> Vec<String> {
    let answer = api.get(&format!("/api/v1/devices{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let items = body["items"].as_array().expect("items").clone();
    items
        .iter()
        .map(|item| item["id"].as_str().expect("id").to_owned())
        .collect()
}

#[tokio::test]
async fn devices_are_filtered_by_state_type_site_region_and_tags() {
    let api = fleet();
    for (query, expected) in [
        ("", vec!["a", "b", "c"]),
        ("?state=online", vec!["b"]),
        ("?state=online&state=stale", vec!["b", "c"]),
        ("?type=camera", vec!["a", "b"]),
        ("?site=hall+7", vec!["b"]),
        ("?site=hall%207", vec!["b"]),
        ("?region=eu-1&type=controller", vec!["c"]),
        ("?tag=model%3Dx2", vec!["a", "c"]),
        ("?tag=model=x2&tag=n=1", vec!["c"]),
        ("?region=nowhere", vec![]),
    ] {
        assert_eq!(ids(&api, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_by_cursor_and_link() {
    let api = fleet();
    let first = api.get("/api/v1/devices?type=camera&limit=1").await;
    assert_eq!(first.json()["items"][0]["id"], "a");
    let cursor = first.json()["next"]
        .as_str()
        .expect("a next page")
        .to_owned();
    let link = first.header("link").to_owned();
    assert_eq!(
        link,
        format!("</api/v1/devices?type=camera&limit=1&cursor={cursor}>; rel=\"next\"")
    );
    // What happens between two pages does not shift them.
    api.memory.add_device("aa", r#"{"type":"camera"}"#);
    let uri = link
        .split(['<', '>'])
        .nth(1)
        .expect("a URI in the link")
        .to_owned();
    let second = api.get(&uri).await;
    assert_eq!(second.json()["items"][0]["id"], "aa");
    let rest = api.get("/api/v1/devices?type=camera&limit=1000").await;
    assert!(rest.json().get("next").is_none());
    assert_eq!(rest.header("link"), "");
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_with_its_place() {
    let api = fleet();
    for (query, pointer) in [
        ("limit=0", "query:limit"),
        ("limit=1001", "query:limit"),
        ("limit=x", "query:limit"),
        ("cursor=zzz", "query:cursor"),
        ("state=gone", "query:state"),
        ("stat=online", "query:stat"),
        ("type=", "query:type"),
        ("type=a&type=b", "query:type"),
        ("tag=model", "query:tag"),
        ("tag==x", "query:tag"),
    ] {
        let answer = api.get(&format!("/api/v1/devices?{query}")).await;
        let body = answer.is_problem(400, "invalid-request");
        assert_eq!(body["errors"][0]["pointer"], pointer, "{query}");
        assert!(body["errors"][0]["code"].is_string());
    }
    let many = "tag=a=b&".repeat(17);
    api.get(&format!("/api/v1/devices?{many}"))
        .await
        .is_problem(400, "invalid-request");
}

#[tokio::test]
async fn a_device_is_shown_with_its_revision_as_entity_tag() {
    let api = fleet();
    let answer = api.get("/api/v1/devices/a").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("etag"), "\"1\"");
    let body = answer.json();
    assert_eq!(body["state"], "never");
    assert_eq!(body["tags"], json!({"model": "x2"}));
    assert_eq!(body["created_at"], "2026-11-20T17:14:33.042Z");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        api.send("HEAD", "/api/v1/devices/a", &[], "").await.status,
        200
    );
}

#[tokio::test]
async fn an_unknown_device_is_404_and_a_name_that_cannot_be_is_400() {
    let api = fleet();
    api.get("/api/v1/devices/nobody")
        .await
        .is_problem(404, "not-found");
    for bad in ["a%2Fb", "a%20b", "%FF", &"x".repeat(129)] {
        let answer = api.get(&format!("/api/v1/devices/{bad}")).await;
        answer.is_problem(400, "invalid-request");
    }
}

#[tokio::test]
async fn a_device_is_created_once_with_if_none_match() {
    let api = Api::new();
    let once = [JSON, ("if-none-match", "*")];
    let body = r#"{"type":"camera","tags":{"a":"1"}}"#;
    let created = api.send("PUT", "/api/v1/devices/new", &once, body).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("etag"), "\"1\"");
    assert_eq!(created.json()["type"], "camera");
    let again = api.send("PUT", "/api/v1/devices/new", &once, body).await;
    again.is_problem(412, "precondition-failed");
    assert_eq!(again.header("etag"), "\"1\"");
}

#[tokio::test]
async fn put_replaces_what_is_said_of_a_device() {
    let api = fleet();
    let body = r#"{"site":"roof","tags":{"new":"1"}}"#;
    let answer = api
        .send(
            "PUT",
            "/api/v1/devices/a",
            &[JSON, ("if-match", "\"1\"")],
            body,
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let device = answer.json();
    assert_eq!(device["type"], json!(null));
    assert_eq!(device["region"], json!(null));
    assert_eq!(device["site"], "roof");
    assert_eq!(device["tags"], json!({"new": "1"}));
    assert_eq!(device["revision"], 2);
}

#[tokio::test]
async fn put_with_if_match_creates_nothing() {
    let api = Api::new();
    let answer = api
        .send("PUT", "/api/v1/devices/x", &[JSON, ("if-match", "*")], "{}")
        .await;
    answer.is_problem(412, "precondition-failed");
    assert!(api.memory.with(|tables| tables.devices.is_empty()));
}

#[tokio::test]
async fn patch_merges_and_null_removes() {
    let api = fleet();
    let body = r#"{"type":null,"tags":{"model":null,"k":"v"},"attributes":{"serial":"7"}}"#;
    let answer = api.send("PATCH", "/api/v1/devices/a", &[MERGE], body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("etag"), "\"2\"");
    let device = answer.json();
    assert_eq!(device["type"], json!(null));
    assert_eq!(device["region"], "eu-1");
    assert_eq!(device["tags"], json!({"k": "v"}));
    assert_eq!(device["attributes"], json!({"serial": "7"}));
}

#[tokio::test]
async fn a_patch_at_an_old_revision_is_412_and_changes_nothing() {
    let api = fleet();
    let stale = [MERGE, ("if-match", "\"9\"")];
    let answer = api
        .send("PATCH", "/api/v1/devices/a", &stale, r#"{"type":"x"}"#)
        .await;
    answer.is_problem(412, "precondition-failed");
    assert_eq!(api.get("/api/v1/devices/a").await.json()["type"], "camera");
    let current = [MERGE, ("if-match", "\"9\", \"1\"")];
    let answer = api
        .send("PATCH", "/api/v1/devices/a", &current, r#"{"type":"x"}"#)
        .await;
    assert_eq!(answer.status, 200);
    let bad = [MERGE, ("if-match", "1")];
    let answer = api.send("PATCH", "/api/v1/devices/a", &bad, "{}").await;
    let body = answer.is_problem(400, "invalid-request");
    assert_eq!(body["errors"][0]["pointer"], "header:if-match");
}

#[tokio::test]
async fn a_conditional_patch_that_is_overtaken_is_412() {
    let api = fleet();
    api.memory.with(|tables| {
        tables.faster = Some(|tables| tables.devices.get_mut("a").expect("a").revision = 5);
    });
    let headers = [MERGE, ("if-match", "\"1\"")];
    let answer = api
        .send("PATCH", "/api/v1/devices/a", &headers, r#"{"type":"x"}"#)
        .await;
    answer.is_problem(412, "precondition-failed");
}

#[tokio::test]
async fn an_unconditional_put_that_is_overtaken_begins_anew() {
    let api = fleet();
    api.memory.with(|tables| {
        tables.faster = Some(|tables| tables.devices.get_mut("a").expect("a").revision = 5);
    });
    let answer = api
        .send("PUT", "/api/v1/devices/a", &[JSON], r#"{"type":"x"}"#)
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("etag"), "\"6\"");
}

#[tokio::test]
async fn a_patch_of_nobody_is_404() {
    let api = fleet();
    let answer = api
        .send("PATCH", "/api/v1/devices/nobody", &[MERGE], "{}")
        .await;
    answer.is_problem(404, "not-found");
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be_are_refused() {
    let api = fleet();
    for (method, headers, body, status, slug) in [
        (
            "PUT",
            vec![("content-type", "text/plain")],
            "{}",
            415,
            "unsupported-media-type",
        ),
        ("PUT", vec![], "{}", 415, "unsupported-media-type"),
        ("PUT", vec![JSON], "", 400, "invalid-request"),
        ("PUT", vec![JSON], "[]", 400, "invalid-request"),
        ("PUT", vec![JSON], "{", 400, "invalid-request"),
        ("PUT", vec![JSON], r#"{"typo":"x"}"#, 400, "invalid-request"),
        ("PUT", vec![JSON], r#"{"type":1}"#, 400, "invalid-request"),
        (
            "PUT",
            vec![JSON],
            r#"{"type":"a","type":"b"}"#,
            400,
            "invalid-request",
        ),
        (
            "PATCH",
            vec![("content-type", "text/plain")],
            "{}",
            415,
            "unsupported-media-type",
        ),
        ("PATCH", vec![MERGE], "7", 400, "invalid-request"),
        (
            "PATCH",
            vec![MERGE],
            r#"{"typo":"x"}"#,
            400,
            "invalid-request",
        ),
        (
            "PATCH",
            vec![MERGE],
            r#"{"tags":{"a":1}}"#,
            400,
            "invalid-request",
        ),
    ] {
        let answer = api.send(method, "/api/v1/devices/a", &headers, body).await;
        answer.is_problem(status, slug);
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let answer = api.send("PUT", "/api/v1/devices/a", &[JSON], &deep).await;
    let body = answer.is_problem(400, "invalid-request");
    assert_eq!(body["errors"][0]["code"], "too-deep");
}

#[tokio::test]
async fn a_device_is_deleted_at_the_revision_asked_for() {
    let api = fleet();
    let answer = api
        .send("DELETE", "/api/v1/devices/a", &[("if-match", "\"2\"")], "")
        .await;
    answer.is_problem(412, "precondition-failed");
    let answer = api
        .send("DELETE", "/api/v1/devices/a", &[("if-match", "\"1\"")], "")
        .await;
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let answer = api.send("DELETE", "/api/v1/devices/a", &[], "").await;
    answer.is_problem(404, "not-found");
}

#[tokio::test]
async fn refusals_of_the_fleet_are_told_in_http() {
    let api = fleet();
    for (refusal, status, slug, waits) in [
        (Refusal::Overloaded, 503, "overloaded", true),
        (Refusal::TooManyInFlight, 429, "too-many-requests", true),
        (Refusal::NotOwner, 503, "not-owner", true),
        (Refusal::StorageFull, 503, "storage-full", true),
        (Refusal::Quarantined, 503, "quarantined", true),
        (Refusal::Stopping, 503, "stopping", true),
        (Refusal::NotListed, 403, "forbidden", false),
        (Refusal::TooLarge, 413, "too-large", false),
        (
            Refusal::Internal("secret".to_owned()),
            500,
            "internal",
            false,
        ),
    ] {
        api.memory.with(|tables| tables.refusal = Some(refusal));
        let answer = api.send("PATCH", "/api/v1/devices/a", &[MERGE], "{}").await;
        answer.is_problem(status, slug);
        assert_eq!(!answer.header("retry-after").is_empty(), waits, "{slug}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
}
