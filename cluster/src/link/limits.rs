//! Bounds and times of the link. Every bound has its reason beside it.

use std::time::Duration;

use super::Service;

/// What may wait and what may be under way, for each peer and service.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages that may wait to be sent. Beyond, the answer is "busy" at once: a longer queue would only make every
    /// answer late.
    pub queue_messages_max: usize,
    /// Bytes that may wait to be sent.
    pub queue_bytes_max: usize,
    /// Requests that one peer may have under way in one service: what its handlers hold at the same time.
    pub requests_max: usize,
    /// Bytes of the bodies of those requests.
    pub request_bytes_max: usize,
    /// One body. As much as [`crate::wire`] reads, and its format byte.
    pub body_bytes_max: usize,
    /// How long a handler may go on after its asker has given up. Beyond, its future is dropped: a handler that is stuck
    /// must not hold its place for ever.
    pub overtime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_messages_max: 16_384,
            queue_bytes_max: 32 << 20,
            requests_max: 1024,
            request_bytes_max: 32 << 20,
            body_bytes_max: crate::wire::MESSAGE_BYTES_MAX + (64 << 10),
            overtime: Duration::from_secs(30),
        }
    }
}

/// When a link is taken for broken, and a peer for gone.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A peer that says nothing for so long is unreachable.
    pub silence: Duration,
    /// A link that is down for so long makes its peer gone.
    pub gone_after: Duration,
    /// So long, if the link was reset and the peer's machine refuses each new connection: nobody is there any more.
    pub gone_after_refused: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            silence: Duration::from_millis(1200),
            gone_after: Duration::from_secs(3),
            gone_after_refused: Duration::from_millis(500),
        }
    }
}

/// The place of a service in an array of all.
pub(super) const fn place(service: Service) -> usize {
    service as usize - 1
}
