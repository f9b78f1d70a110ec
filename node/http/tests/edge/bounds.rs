use std::{sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt, stream};
use umbel_http::Limits;

use crate::support::{Api, JSON, call};

#[tokio::test]
async fn a_request_id_is_echoed_or_made() {
    let api = Api::new();
    let given = api
        .send("GET", "/livez", &[("x-request-id", "req-7")], "")
        .await;
    assert_eq!(given.header("x-request-id"), "req-7");
    for bad in ["", "a b", &"x".repeat(129)] {
        let made = api
            .send("GET", "/livez", &[("x-request-id", bad)], "")
            .await;
        assert_eq!(made.header("x-request-id").len(), 16, "{bad}");
    }
    let one = api.get("/livez").await.header("x-request-id").to_owned();
    assert_ne!(api.get("/livez").await.header("x-request-id"), one);
}

#[tokio::test]
async fn an_unknown_path_and_an_unknown_method_are_problems_too() {
    let api = Api::new();
    api.get("/api/v1/nothing")
        .await
        .is_problem(404, "not-found");
    api.get("/").await.is_problem(404, "not-found");
    let answer = api.send("POST", "/api/v1/devices", &[], "").await;
    answer.is_problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn a_problem_has_a_page_that_explains_it() {
    let api = Api::new();
    let problem = api.get("/nothing").await.json();
    let page = api.get(problem["type"].as_str().expect("a type")).await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with(b"Not found"));
    api.get("/api/problems/no-such-kind")
        .await
        .is_problem(404, "not-found");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_announced_or_not() {
    let limits = Limits {
        body_bytes_max: 64,
        ..Limits::default()
    };
    let api = Api::with(&limits);
    let uri = "/api/v1/devices/a";
    let announced = [JSON, ("content-length", "65")];
    let answer = call(&api.router, "PUT", uri, &announced, "").await;
    answer.is_problem(413, "too-large");
    let chunks = stream::iter((0..9).map(|_| Ok::<_, std::io::Error>("12345678")));
    let answer = call(&api.router, "PUT", uri, &[JSON], Body::from_stream(chunks)).await;
    answer.is_problem(413, "too-large");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let limits = Limits {
        body_timeout: Duration::from_millis(10),
        ..Limits::default()
    };
    let api = Api::with(&limits);
    let endless = stream::pending::<Result<&str, std::io::Error>>();
    let answer = call(
        &api.router,
        "PUT",
        "/api/v1/devices/a",
        &[JSON],
        Body::from_stream(endless),
    )
    .await;
    answer.is_problem(408, "request-timeout");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let api = Api::new();
    let broken = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    let answer = call(
        &api.router,
        "PUT",
        "/api/v1/devices/a",
        &[JSON],
        Body::from_stream(broken),
    )
    .await;
    answer.is_problem(400, "invalid-request");
}

#[tokio::test]
async fn headers_that_are_too_large_are_431() {
    let api = Api::new();
    let long = "x".repeat(17 * 1024);
    let answer = api.send("GET", "/livez", &[("x-long", &long)], "").await;
    answer.is_problem(431, "headers-too-large");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_503_and_tells_to_wait() {
    let limits = Limits {
        answer_timeout: Duration::from_millis(10),
        ..Limits::default()
    };
    let api = Api::with(&limits);
    api.memory.is_stuck.store(true, Ordering::Relaxed);
    let answer = api.get("/api/v1/devices").await;
    answer.is_problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test]
async fn requests_beyond_the_bound_are_503_but_the_process_shows_that_it_lives() {
    let limits = Limits {
        requests_max: 1,
        ..Limits::default()
    };
    let api = Api::with(&limits);
    api.memory.is_stuck.store(true, Ordering::Relaxed);
    let stuck = api.get("/api/v1/devices");
    let others = async {
        let answer = api.get("/api/v1/clients").await;
        answer.is_problem(503, "overloaded");
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(api.get("/livez").await.status, 200);
        assert_eq!(api.get("/readyz").await.status, 200);
        api.memory.is_stuck.store(false, Ordering::Relaxed);
        api.memory.unstick.notify_one();
    };
    // Polled in this order, so the first has its place before the second asks.
    let (first, ()) = futures_util::future::join(stuck, others).await;
    assert_eq!(first.status, 200);
    assert_eq!(api.get("/api/v1/clients").await.status, 200);
}

#[tokio::test]
async fn a_handler_that_panics_is_500_and_harms_nobody_else() {
    let api = Api::new();
    api.memory.panics.store(true, Ordering::Relaxed);
    api.get("/api/v1/devices").await.is_problem(500, "internal");
    api.memory.panics.store(false, Ordering::Relaxed);
    assert_eq!(api.get("/api/v1/devices").await.status, 200);
}

#[tokio::test]
async fn hundreds_of_requests_at_once_are_answered() {
    let api = Api::new();
    let answers = stream::iter(0..300)
        .map(|_| api.get("/api/v1/devices"))
        .buffer_unordered(64)
        .map(|answer| answer.status)
        .collect::<Vec<_>>()
        .await;
    assert!(answers.iter().all(|status| *status == 200));
}
