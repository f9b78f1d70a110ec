//! What every request passes, whichever API it is for: request id, bounds, timeouts, contained panics, errors
//! in the words of that API, counters.
//!
//! The body is read here, whole and bounded, before a handler runs: 413 and 408 come from one place and a
//! handler never waits for a client.

use std::{
    hash::{BuildHasher, RandomState},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::{
    aws::AwsError,
    limits::{Limits, REQUEST_ID_BYTES_MAX},
    metrics as names,
    problem::{self, Kind, Problem},
};

const REQUEST_ID: &str = "x-request-id";
const AMZN_REQUEST_ID: &str = "x-amzn-requestid";
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Whose words errors are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// Our API: problem details.
    Api,
    /// The AWS data plane: `x-amzn-ErrorType`.
    Aws,
}

impl Flavor {
    /// The label of metrics.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Aws => "aws",
        }
    }
}

/// The id of the request being answered, for handlers that log.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Bounds and counters shared by all requests of one router.
#[derive(Debug)]
struct Edge {
    flavor: Flavor,
    limits: Limits,
    slots: Semaphore,
    seed: RandomState,
    count: AtomicU64,
}

/// Puts the edge around a router.
pub(crate) fn around(router: Router, flavor: Flavor, limits: &Limits) -> Router {
    let edge = Arc::new(Edge {
        flavor,
        limits: limits.clone(),
        slots: Semaphore::new(limits.requests_max),
        seed: RandomState::new(),
        count: AtomicU64::new(0),
    });
    router
        .fallback(async || Problem::new(Kind::NotFound).with_detail("there is no such path"))
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed))
        // The body is bounded before any extractor sees it.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(edge, pass))
}

async fn pass(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = edge.request_id(request.headers());
    let method = method_label(request.method());
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let answer = match Box::pin(edge.answer(request, next, &id)).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    };
    let response = edge.finish(answer, &id);
    let listener = edge.flavor.label();
    let status = status_label(response.status());
    metrics::counter!(names::REQUESTS, "listener" => listener, "method" => method, "status" => status)
        .increment(1);
    metrics::histogram!(names::REQUEST_SECONDS, "listener" => listener)
        .record(started.elapsed().as_secs_f64());
    response
}

impl Edge {
    /// The client's request id if it is fit to be printed, otherwise one of ours.
    fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let given = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|text| {
                (1..=REQUEST_ID_BYTES_MAX).contains(&text.len())
                    && text.bytes().all(|byte| byte.is_ascii_graphic())
            });
        if let Some(text) = given {
            return Arc::from(text);
        }
        // Unique is enough; keyed hashing of a counter only keeps nodes from colliding.
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        Arc::from(format!("{:016x}", self.seed.hash_one(count)))
    }

    async fn answer(&self, request: Request, next: Next, id: &str) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        if header_bytes(&parts) > self.limits.header_bytes_max {
            return Err(Problem::new(Kind::HeadersTooLarge));
        }
        let is_probe = PROBES.contains(&parts.uri.path());
        if self.limits.local_names_only && !is_probe && !is_local(&parts) {
            return Err(Problem::new(Kind::Forbidden).with_detail(
                "this API answers to an address or to localhost only; see `open_to_network` in [http]",
            ));
        }
        let _slot = self.slot(parts.uri.path())?;
        let body = self.read(&parts, body).await?;
        let request = Request::from_parts(parts, Body::from(body));
        // A handler holds no state that a panic could leave half-changed: it owns its input and calls a port.
        let run = AssertUnwindSafe(next.run(request)).catch_unwind();
        match timeout(self.limits.answer_timeout, run).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(_panic)) => {
                metrics::counter!(names::PANICS).increment(1);
                tracing::error!(request = id, "an HTTP handler panicked");
                Err(Problem::new(Kind::Internal))
            },
            Err(_elapsed) => {
                tracing::warn!(request = id, "an HTTP request was not answered in time");
                Err(Problem::new(Kind::Overloaded)
                    .with_detail("no answer in time; whether something was changed is not known"))
            },
        }
    }

    /// A place among the requests being answered. Probes need none: a busy node is not a dead one.
    fn slot(&self, path: &str) -> Result<Option<SemaphorePermit<'_>>, Problem> {
        if PROBES.contains(&path) {
            return Ok(None);
        }
        let slot = self.slots.try_acquire();
        slot.map(Some).map_err(|_full| {
            Problem::new(Kind::Overloaded).with_detail("too many requests at once")
        })
    }

    async fn read(&self, parts: &Parts, body: Body) -> Result<Bytes, Problem> {
        let max = self.limits.body_bytes_max;
        let too_large =
            || Problem::new(Kind::TooLarge).with_detail(format!("the body exceeds {max} bytes"));
        if content_length(&parts.headers).is_some_and(|length| length > max as u64) {
            return Err(too_large());
        }
        match timeout(self.limits.body_timeout, Limited::new(body, max).collect()).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(_broken)) => Err(Problem::invalid(
                "#",
                "incomplete",
                "the body ended before its end",
            )),
            Err(_elapsed) => Err(Problem::new(Kind::RequestTimeout)),
        }
    }

    /// Renders a failure and adds what every answer carries.
    fn finish(&self, mut response: Response, id: &str) -> Response {
        if let Some(failure) = response.extensions_mut().remove::<Problem>() {
            let (status, body) = match self.flavor {
                Flavor::Api => (
                    response.status(),
                    ([problem::CONTENT_TYPE], axum::Json(failure.render(id))).into_response(),
                ),
                Flavor::Aws => {
                    let failure = AwsError::from(failure);
                    (failure.status(), failure.render(id))
                },
            };
            response = replace(response, status, body);
        }
        if let Some(failure) = response.extensions_mut().remove::<AwsError>() {
            let body = failure.render(id);
            let status = failure.status();
            response = replace(response, status, body);
        }
        let headers = response.headers_mut();
        let id = HeaderValue::from_str(id).expect("a request id is printable ASCII");
        headers.insert(REQUEST_ID, id.clone());
        if self.flavor == Flavor::Aws {
            headers.insert(AMZN_REQUEST_ID, id);
        }
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(const { HeaderValue::from_static("no-store") });
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            const { HeaderValue::from_static("nosniff") },
        );
        response
    }
}

/// The failure's body under the headers its handler set, such as `Retry-After` and `Allow`.
fn replace(old: Response, status: StatusCode, body: Response) -> Response {
    let mut headers = old.into_parts().0.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_TYPE);
    let mut response = body;
    *response.status_mut() = status;
    response.headers_mut().extend(headers);
    response
}

/// Whether a request names us by an address or as `localhost`. Who has a name of ours in mind sends no other.
fn is_local(parts: &Parts) -> bool {
    let host = parts.headers.get(header::HOST);
    let host = host.map_or(Ok(""), HeaderValue::to_str);
    let host = parts.uri.authority().map_or(host, |name| Ok(name.as_str()));
    let Ok(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let is_address = name.parse::<std::net::Ipv4Addr>().is_ok() || name.starts_with('[');
    name.is_empty() || is_address || name.eq_ignore_ascii_case("localhost")
}

/// Bytes of the header section, about as they came over the wire.
fn header_bytes(parts: &Parts) -> usize {
    let line = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let fields: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    line + fields
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The codes we answer; anything else would be a bug, and must not make a new series.
fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        408 => "408",
        409 => "409",
        412 => "412",
        413 => "413",
        415 => "415",
        429 => "429",
        431 => "431",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_somebody_else_is_not_local() {
        for (host, expected) in [
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("rebound.example:8080", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            let request = Request::builder()
                .header(header::HOST, host)
                .body(())
                .expect("a request");
            assert_eq!(is_local(&request.into_parts().0), expected, "{host}");
        }
    }
}
