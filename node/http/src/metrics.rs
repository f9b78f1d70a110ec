//! Metric names of the HTTP edge. Labels are closed sets: `listener` (`api`, `aws`), `method` (seven and
//! `other`), `status` (a code we can answer), `reason` (the constants here). Never a path, an id or an address.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered, by `listener`, `method` and `status`.
pub const REQUESTS: &str = "umbel_http_requests_total";
/// Seconds from the whole header section to the head of the answer, by `listener`.
pub const REQUEST_SECONDS: &str = "umbel_http_request_seconds";
/// Connections open, by `listener`.
pub const CONNECTIONS: &str = "umbel_http_connections";
/// Connections closed before their time, by `listener` and `reason`.
pub const CONNECTIONS_REFUSED: &str = "umbel_http_connections_refused_total";
/// Event streams open.
pub const STREAMS: &str = "umbel_http_event_streams";
/// Times an event stream lost events because its reader was too slow.
pub const STREAM_LAGS: &str = "umbel_http_event_stream_lags_total";
/// Handlers that panicked. Each is a bug of ours.
pub const PANICS: &str = "umbel_http_panics_total";

/// Reason: more connections than allowed.
pub const REASON_FULL: &str = "full";
/// Reason: TLS failed or took too long.
pub const REASON_TLS: &str = "tls";
/// Reason: not HTTP, too slow, or gone in the middle.
pub const REASON_PROTOCOL: &str = "protocol";

/// Tells the recorder what the names mean. Call once.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests answered by the HTTP edge");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "Time to the head of the answer"
    );
    describe_gauge!(CONNECTIONS, "HTTP connections open");
    describe_counter!(
        CONNECTIONS_REFUSED,
        "HTTP connections closed before their time"
    );
    describe_gauge!(STREAMS, "Event streams open");
    describe_counter!(
        STREAM_LAGS,
        "Times an event stream lost events to a slow reader"
    );
    describe_counter!(PANICS, "HTTP handlers that panicked");
}

/// Counts something that is open for as long as the value lives.
#[derive(Debug)]
pub(crate) struct Open {
    name: &'static str,
    listener: &'static str,
}

impl Open {
    pub(crate) fn new(name: &'static str, listener: &'static str) -> Self {
        metrics::gauge!(name, "listener" => listener).increment(1.0);
        Self { name, listener }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!(self.name, "listener" => self.listener).decrement(1.0);
    }
}
