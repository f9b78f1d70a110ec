//! Presence and shadow changes as server-sent events.
//!
//! A reader that is too slow loses events and is told so; it never slows the fleet down. It goes on where it was
//! with `Last-Event-ID`, as long as the ring of past events reaches back that far.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, future, stream};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{Context, docs::Always, input::Parameters};
use crate::{
    metrics as names,
    model::{CHANGES, Event},
    port::Feed,
    problem::{Kind, Problem},
};

const LAST_EVENT_ID: &str = "last-event-id";
/// How long a reader waits before it connects again.
const RETRY: Duration = Duration::from_secs(3);

/// Which events.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `wanted` reads")]
struct Filter {
    /// Only of this kind.
    #[param(
        required = false,
        pattern = "^(presence|shadow|attributes|deleted|quarantined|released)$"
    )]
    kind: String,
    /// Only of this device or application.
    #[param(required = false, min_length = 1, max_length = 128)]
    client: String,
}

/// What a reader asked for.
struct Wanted {
    kind: Option<String>,
    client: Option<String>,
}

/// Events as they happen, named after the kind of change, and `lagged` where some were lost.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "streamEvents",
    tag = "devices",
    params(
        Filter,
        ("Last-Event-ID" = Option<String>, Header, description = "Go on after this event", example = "42")
    ),
    responses(
        (status = 200, description = "A stream without end; `data` is an Event",
            body = String, content_type = "text/event-stream"),
        Always
    )
)]
pub(super) async fn stream(
    State(context): State<Context>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(&parameters)?;
    let permit = Arc::clone(&context.streams)
        .try_acquire_owned()
        .map_err(|_full| Problem::new(Kind::Overloaded).with_detail("too many event streams"))?;
    let feed = context.backend.events(last_seen(&headers));
    let events = until_stop(frames(feed, wanted, permit), context.stop.clone());
    let heartbeat = KeepAlive::new()
        .interval(context.limits.heartbeat)
        .text("heartbeat");
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}

fn wanted(parameters: &Parameters) -> Result<Wanted, Problem> {
    parameters.only(&["kind", "client"], &[])?;
    let kind = parameters.one("kind").map(str::to_owned);
    if kind.as_deref().is_some_and(|kind| !CHANGES.contains(&kind)) {
        let detail = format!("a kind is one of {}", CHANGES.join(", "));
        return Err(Problem::invalid("query:kind", "unknown-kind", detail));
    }
    Ok(Wanted {
        kind,
        client: parameters.one("client").map(str::to_owned),
    })
}

/// The number to go on after. An id that is none of ours is as old as can be: the reader is told what it missed.
fn last_seen(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(LAST_EVENT_ID)?;
    Some(
        value
            .to_str()
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0),
    )
}

fn frames(
    feed: impl Stream<Item = Feed> + Send,
    wanted: Wanted,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    let open = names::Open::new(names::STREAMS, "api");
    // Something at once: the reader learns that it is connected, and how long to wait when it is not.
    let hello = sse::Event::default().retry(RETRY).comment("umbel");
    let rest = feed.filter_map(move |next| {
        // Held for as long as the stream lives.
        let _held = (&permit, &open);
        future::ready(frame(next, &wanted))
    });
    stream::once(future::ready(hello)).chain(rest).map(Ok)
}

fn frame(next: Feed, wanted: &Wanted) -> Option<sse::Event> {
    match next {
        Feed::Event(event) => wanted.includes(&event).then(|| {
            let frame = sse::Event::default()
                .id(event.sequence.to_string())
                .event(event.change.name());
            frame.json_data(&event).ok()
        })?,
        Feed::Lagged { next } => {
            metrics::counter!(names::STREAM_LAGS).increment(1);
            let id = next.saturating_sub(1).to_string();
            let data = json!({ "next": next }).to_string();
            Some(sse::Event::default().id(id).event("lagged").data(data))
        },
    }
}

impl Wanted {
    fn includes(&self, event: &Event) -> bool {
        let kind = event.change.name();
        self.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && self
                .client
                .as_ref()
                .is_none_or(|wanted| *wanted == event.client)
    }
}

fn until_stop<S>(events: S, mut stop: watch::Receiver<bool>) -> impl Stream<Item = S::Item> + Send
where
    S: Stream + Send,
{
    events.take_until(Box::pin(async move {
        // A closed channel means that the server is gone.
        drop(stop.wait_for(|stop| *stop).await);
    }))
}
