//! Why a connection never opened, in a closed set; and a log that cannot be flooded.

use std::sync::atomic::{AtomicU64, Ordering};

use umbel_core::time::Tick;

use crate::reason::ReasonCode;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why a connection was refused. The label set of `umbel_mqtt_refused_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refusal {
            $($(#[$doc])* $name,)+
        }

        impl Refusal {
            /// Every refusal there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Label of this refusal in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

refusals! {
    /// The node has as many connections as it takes.
    ConnectionLimit = "connection_limit",
    /// Too many connections without a CONNECT.
    HalfOpenLimit = "half_open_limit",
    /// Gave its place to a newer connection after it did nothing for too long.
    HalfOpenEvicted = "half_open_evicted",
    /// No file was left.
    NoFiles = "no_files",
    /// No or a bad PROXY header.
    ProxyHeader = "proxy_header",
    /// The TLS handshake failed.
    TlsHandshake = "tls_handshake",
    /// The WebSocket handshake failed or was refused.
    WebSocketHandshake = "websocket_handshake",
    /// A handshake or CONNECT took too long.
    Timeout = "timeout",
    /// The client went away before its CONNECT was complete.
    Abandoned = "abandoned",
    /// The first packet is no acceptable CONNECT.
    Malformed = "malformed",
    /// A protocol version this server does not speak.
    Version = "version",
    /// Not an identifier this server takes.
    ClientId = "client_id",
    /// Wrong user name or password.
    Credentials = "credentials",
    /// Not allowed to connect.
    NotAuthorized = "not_authorized",
    /// An authentication method this server does not have.
    AuthenticationMethod = "authentication_method",
    /// Too much to do; try again later.
    Busy = "busy",
    /// The node stops.
    Stopping = "stopping",
    /// Anything else the broker said.
    Other = "other",
}

impl Refusal {
    /// The refusal behind a CONNACK.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is told apart by its reason code only"
    )]
    pub const fn of(reason: ReasonCode) -> Self {
        match reason {
            ReasonCode::UnsupportedProtocolVersion => Self::Version,
            ReasonCode::ClientIdentifierNotValid => Self::ClientId,
            ReasonCode::BadUserNameOrPassword => Self::Credentials,
            ReasonCode::NotAuthorized | ReasonCode::Banned => Self::NotAuthorized,
            ReasonCode::BadAuthenticationMethod => Self::AuthenticationMethod,
            ReasonCode::ServerBusy
            | ReasonCode::ServerUnavailable
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded => Self::Busy,
            ReasonCode::ServerShuttingDown | ReasonCode::UseAnotherServer => Self::Stopping,
            _ => Self::Other,
        }
    }
}

/// Lets one line per second through, and counts the others. One per cause.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Second after the one of the last line; 0: none yet.
    next: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    /// How many lines were held back since the last one, if this one may be written.
    pub(crate) fn pass(&self, now: Tick) -> Option<u64> {
        let second = now.millis() / 1000;
        let next = self.next.load(Ordering::Relaxed);
        let is_first = second >= next
            && self
                .next
                .compare_exchange(next, second + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_first {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_counts_the_others() {
        let throttle = Throttle::new();
        let at = |millis| throttle.pass(Tick::from_millis(millis));
        assert_eq!(at(10), Some(0));
        assert_eq!(at(11), None);
        assert_eq!(at(999), None);
        assert_eq!(at(1_000), Some(2));
        assert_eq!(at(1_500), None);
        assert_eq!(at(9_000), Some(1));
    }
}
