//! The bounds of the HTTP edge, each with its reason.

use std::time::Duration;

/// Most devices, clients or shadows in one page of our API.
pub const PAGE_MAX: usize = 1000;
/// How many a page holds when nobody asked.
pub const PAGE_DEFAULT: usize = 100;
/// Most bytes of an MQTT message published over HTTP (protocol.md 4.3).
pub const PUBLISH_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of a request id we echo. A longer one is replaced: it ends up in logs.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Most `tag` filters in one query: each is compared with every device of a page.
pub const TAG_FILTERS_MAX: usize = 16;
/// Most characters of a filter by type, site or region; none of these is longer.
pub const FACT_FILTER_MAX: usize = 128;
/// Most characters of a filter by tag: name, `=` and value.
pub const TAG_FILTER_MAX: usize = 385;

/// What one server gives to its clients at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Only requests to an address or to `localhost` are answered, health and metrics apart. A page of the Internet may
    /// make a browser of this machine ask us under a name of its own: an API that asks nobody who they are must not
    /// answer to it.
    pub local_names_only: bool,
    /// Bytes of a request body. Larger is 413 before it is read to the end.
    pub body_bytes_max: usize,
    /// Bytes of a request's header section. Larger is 431.
    pub header_bytes_max: usize,
    /// Connections at once. One more is closed unanswered: an answer would cost what the bound protects.
    pub connections_max: usize,
    /// Requests being answered at once. One more is 503 with `Retry-After`.
    pub requests_max: usize,
    /// Event streams at once. One more is 503: a stream lives for hours and holds a connection.
    pub streams_max: usize,
    /// How long a client may take for TLS, and then for the header section of a request.
    pub header_timeout: Duration,
    /// How long a client may take for a request body.
    pub body_timeout: Duration,
    /// How long we may take for an answer.
    pub answer_timeout: Duration,
    /// How long a client may leave an answer unread before its connection is closed.
    pub write_timeout: Duration,
    /// Silence on an event stream before a comment shows that it lives.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            local_names_only: false,
            body_bytes_max: 256 * 1024,
            header_bytes_max: 16 * 1024,
            connections_max: 1024,
            requests_max: 256,
            streams_max: 64,
            header_timeout: Duration::from_secs(20),
            body_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            heartbeat: Duration::from_secs(15),
        }
    }
}
