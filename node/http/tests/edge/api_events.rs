use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use tokio::time::timeout;
use umbel_http::{Limits, model::Change};

use crate::{
    memory::RING,
    support::{Api, raw},
};

struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(api: &Api, uri: &str, headers: &[(&str, &str)]) -> Self {
        let response = raw(&api.router, "GET", uri, headers, Body::empty()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        };
        assert_eq!(reader.frame().await, "retry: 3000\n: umbel");
        reader
    }

    /// The next event or comment, without the empty line behind it.
    async fn frame(&mut self) -> String {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let frame = std::mem::replace(&mut self.text, rest);
                return frame.trim_end().to_owned();
            }
            let next = timeout(Duration::from_secs(10), self.body.next()).await;
            let chunk = next
                .expect("an event in time")
                .expect("no end")
                .expect("a chunk");
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    async fn ends(mut self) {
        let next = timeout(Duration::from_secs(10), self.body.next()).await;
        assert!(next.expect("an end in time").is_none());
    }
}

fn id_of(frame: &str) -> &str {
    frame
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap_or_default()
}

#[tokio::test]
async fn changes_arrive_as_named_events_with_ids() {
    let api = Api::new();
    let mut reader = Reader::open(&api, "/api/v1/events", &[]).await;
    api.memory.tell_presence("a");
    let shadow = Change::Shadow {
        shadow: "$classic".to_owned(),
        version: 3,
        deleted: false,
    };
    api.memory.tell("b", shadow);
    let presence = reader.frame().await;
    assert!(presence.contains("event: presence"), "{presence}");
    assert_eq!(id_of(&presence), "100");
    assert!(presence.contains(
        r#"data: {"sequence":100,"at":"2026-11-20T17:14:33.042Z","client":"a","kind":"presence","state":"online""#
    ), "{presence}");
    let shadow = reader.frame().await;
    assert!(
        shadow.contains("event: shadow") && shadow.contains(r#""version":3"#),
        "{shadow}"
    );
}

#[tokio::test]
async fn a_reader_resumes_after_the_last_event_it_saw() {
    let api = Api::new();
    for client in ["a", "b", "c"] {
        api.memory.tell_presence(client);
    }
    let mut reader = Reader::open(&api, "/api/v1/events", &[("last-event-id", "100")]).await;
    assert_eq!(id_of(&reader.frame().await), "101");
    assert_eq!(id_of(&reader.frame().await), "102");
}

#[tokio::test]
async fn a_reader_that_was_away_too_long_is_told_so_and_goes_on() {
    let api = Api::new();
    for _ in 0..RING + 5 {
        api.memory.tell_presence("a");
    }
    let mut reader = Reader::open(&api, "/api/v1/events", &[("last-event-id", "100")]).await;
    let lagged = reader.frame().await;
    assert!(
        lagged.contains("event: lagged") && lagged.contains(r#"data: {"next":105}"#),
        "{lagged}"
    );
    // Coming back from here leads to the next event, not to another lag.
    assert_eq!(id_of(&lagged), "104");
    assert_eq!(id_of(&reader.frame().await), "105");
    let mut foreign = Reader::open(&api, "/api/v1/events", &[("last-event-id", "x7")]).await;
    assert!(foreign.frame().await.contains("event: lagged"));
}

#[tokio::test]
async fn a_slow_reader_loses_events_and_holds_nobody_up() {
    let api = Api::new();
    let mut reader = Reader::open(&api, "/api/v1/events", &[]).await;
    for _ in 0..RING * 4 {
        api.memory.tell_presence("a");
    }
    assert!(reader.frame().await.contains("event: lagged"));
    assert!(reader.frame().await.contains("event: presence"));
}

#[tokio::test]
async fn a_reader_chooses_kind_and_client() {
    let api = Api::new();
    let mut reader = Reader::open(&api, "/api/v1/events?kind=presence&client=b", &[]).await;
    api.memory.tell_presence("a");
    api.memory.tell("b", Change::Deleted);
    api.memory.tell_presence("b");
    assert_eq!(id_of(&reader.frame().await), "102");
    api.get("/api/v1/events?kind=weather")
        .await
        .is_problem(400, "invalid-request");
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let limits = Limits {
        heartbeat: Duration::from_millis(10),
        ..Limits::default()
    };
    let api = Api::with(&limits);
    let mut reader = Reader::open(&api, "/api/v1/events", &[]).await;
    assert_eq!(reader.frame().await, ": heartbeat");
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let limits = Limits {
        streams_max: 1,
        ..Limits::default()
    };
    let api = Api::with(&limits);
    let reader = Reader::open(&api, "/api/v1/events", &[]).await;
    let refused = api.get("/api/v1/events").await;
    refused.is_problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), "1");
    drop(reader);
    Reader::open(&api, "/api/v1/events", &[]).await;
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let api = Api::new();
    let reader = Reader::open(&api, "/api/v1/events", &[]).await;
    api.stop.send_replace(true);
    reader.ends().await;
}
