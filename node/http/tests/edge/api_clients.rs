use serde_json::json;
use umbel_http::{
    model::Quarantined,
    port::{Check, Kick},
};

use crate::support::Api;

#[tokio::test]
async fn clients_are_listed_in_pages() {
    let api = Api::new();
    for id in ["a", "b/ü", "c"] {
        api.memory.add_client(id);
    }
    let first = api.get("/api/v1/clients?limit=2").await;
    assert_eq!(first.json()["items"][1]["id"], "b/ü");
    let uri = first
        .header("link")
        .split(['<', '>'])
        .nth(1)
        .expect("a link")
        .to_owned();
    let second = api.get(&uri).await.json();
    assert_eq!(second["items"][0]["id"], "c");
    assert!(second.get("next").is_none());
}

#[tokio::test]
async fn a_client_is_shown_whatever_its_id_holds() {
    let api = Api::new();
    api.memory.add_client("b/ü");
    let client = api.get("/api/v1/clients/b%2F%C3%BC").await;
    assert_eq!(client.status, 200);
    assert_eq!(
        client.json()["session"]["connected_at"],
        "2026-11-20T17:14:33.042Z"
    );
    api.get("/api/v1/clients/nobody")
        .await
        .is_problem(404, "not-found");
    api.get("/api/v1/clients/a%00b")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn a_kick_ends_the_connection_as_asked() {
    let api = Api::new();
    api.memory.add_client("a");
    api.memory.add_client("b");
    assert_eq!(
        api.send("DELETE", "/api/v1/clients/a", &[], "")
            .await
            .status,
        204
    );
    let uri = "/api/v1/clients/b?clean_session=true&prevent_will=true";
    assert_eq!(api.send("DELETE", uri, &[], "").await.status, 204);
    let kicked = api.memory.with(|tables| tables.kicked.clone());
    let hard = Kick {
        clean_session: true,
        prevent_will: true,
    };
    assert_eq!(
        kicked,
        [("a".to_owned(), Kick::default()), ("b".to_owned(), hard)]
    );
    api.send("DELETE", "/api/v1/clients/a", &[], "")
        .await
        .is_problem(404, "not-found");
    let bad = "/api/v1/clients/b?prevent_will=maybe";
    api.send("DELETE", bad, &[], "")
        .await
        .is_problem(400, "invalid-request");
}

#[tokio::test]
async fn quarantined_devices_are_listed_and_released() {
    let api = Api::new();
    let one = Quarantined {
        id: "sick".to_owned(),
        reason: "panicked".to_owned(),
        since: None,
    };
    api.memory.with(|tables| tables.quarantined.push(one));
    let listed = api.get("/api/v1/quarantine").await.json();
    assert_eq!(
        listed["items"],
        json!([{"id": "sick", "reason": "panicked", "since": null}])
    );
    assert_eq!(
        api.send("DELETE", "/api/v1/quarantine/sick", &[], "")
            .await
            .status,
        204
    );
    api.send("DELETE", "/api/v1/quarantine/sick", &[], "")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn readiness_names_the_check_that_fails() {
    let api = Api::new();
    let check = |name, ok| Check {
        name,
        ok,
        detail: "why".to_owned(),
    };
    api.memory
        .with(|tables| tables.checks = vec![check("storage", true), check("shards", true)]);
    let ready = api.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"ready": true, "checks": []}))
    );
    assert_eq!(
        api.get("/readyz?verbose").await.json()["checks"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    api.memory.with(|tables| tables.checks[1].ok = false);
    let failing = api.get("/readyz").await;
    assert_eq!(failing.status, 503);
    let expected = json!([{"name": "shards", "ok": false, "detail": "why"}]);
    assert_eq!(failing.json()["checks"], expected);
}

#[tokio::test]
async fn a_node_that_stops_is_alive_and_not_ready() {
    let api = Api::new();
    api.stop.send_replace(true);
    assert_eq!(api.get("/livez").await.status, 200);
    let answer = api.get("/readyz").await;
    assert_eq!(
        (answer.status, &answer.json()["checks"][0]["name"]),
        (503, &json!("running"))
    );
}

#[tokio::test]
async fn metrics_are_in_the_prometheus_text_format() {
    let answer = Api::new().get("/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(answer.body.starts_with(b"# TYPE umbel_build_info"));
}
