//! Why a connection ends, in a closed set: what the counters, the log and the session's owner are told.

use umbel_core::device::DisconnectReason;

use crate::reason::ReasonCode;

/// The end of a connection, decided by the driver or by the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// What a DISCONNECT says, if one is sent.
    pub reason: ReasonCode,
    /// Who ended it, and why.
    pub cause: CloseCause,
    /// Whether an MQTT 5 client is told before the socket goes. Older clients never are.
    pub send_disconnect: bool,
}

impl Close {
    /// The server ends the connection and says why.
    pub const fn because(reason: ReasonCode, cause: CloseCause) -> Self {
        Self {
            reason,
            cause,
            send_disconnect: true,
        }
    }

    /// The connection ends without a word: the other side is gone, or has said goodbye.
    pub const fn silent(cause: CloseCause) -> Self {
        Self {
            reason: ReasonCode::Success,
            cause,
            send_disconnect: false,
        }
    }

    /// A packet that parses and must not come, or not now.
    pub const fn protocol_error() -> Self {
        Self::because(ReasonCode::ProtocolError, CloseCause::ProtocolError)
    }
}

impl Close {
    /// What the fleet, and AWS's events, are told.
    pub const fn disconnect_reason(self) -> DisconnectReason {
        match self.cause {
            CloseCause::ClientDisconnect | CloseCause::ClientDisconnectWithWill => {
                DisconnectReason::ClientInitiated
            },
            CloseCause::ConnectionLost | CloseCause::WriteStalled => {
                DisconnectReason::ConnectionLost
            },
            CloseCause::KeepAliveTimeout => DisconnectReason::KeepAliveTimeout,
            CloseCause::MalformedPacket
            | CloseCause::ProtocolError
            | CloseCause::PacketTooLarge
            | CloseCause::ReceiveMaximumExceeded
            | CloseCause::TopicAliasInvalid => DisconnectReason::ClientError,
            CloseCause::NotAuthorized => DisconnectReason::AuthError,
            CloseCause::RateExceeded | CloseCause::QuotaExceeded => DisconnectReason::Throttled,
            CloseCause::TakenOver => DisconnectReason::DuplicateClientId,
            CloseCause::Administrative => DisconnectReason::ApiInitiated {
                prevent_will: false,
            },
            CloseCause::Refused => DisconnectReason::ApiInitiated { prevent_will: true },
            CloseCause::ServerShutdown | CloseCause::Moved => DisconnectReason::ServerInitiated,
            CloseCause::ServerBusy | CloseCause::ServerError => DisconnectReason::ServerError,
        }
    }
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)+) => {
        /// Why a connection ended. The label set of `umbel_mqtt_closed_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum CloseCause {
            $($(#[$doc])* $name,)+
        }

        impl CloseCause {
            /// Every cause there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Label of this cause in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

causes! {
    /// DISCONNECT from the client; no will.
    ClientDisconnect = "client_disconnect",
    /// DISCONNECT 0x04, or with an error code, from the client: the will is due.
    ClientDisconnectWithWill = "client_disconnect_with_will",
    /// The socket ended or failed without a DISCONNECT.
    ConnectionLost = "connection_lost",
    /// Nothing heard for 1.5 times the keep-alive.
    KeepAliveTimeout = "keep_alive_timeout",
    /// Bytes that are no packet.
    MalformedPacket = "malformed_packet",
    /// A packet that must not come, or not now.
    ProtocolError = "protocol_error",
    /// A packet above the maximum size.
    PacketTooLarge = "packet_too_large",
    /// More unacknowledged publishes than allowed.
    ReceiveMaximumExceeded = "receive_maximum_exceeded",
    /// A topic alias that is zero, unknown or above the maximum.
    TopicAliasInvalid = "topic_alias_invalid",
    /// The client may not do what it did.
    NotAuthorized = "not_authorized",
    /// Faster than a limit allows.
    RateExceeded = "rate_exceeded",
    /// A quota or queue bound that ends the connection.
    QuotaExceeded = "quota_exceeded",
    /// The client did not read for longer than the write-stall limit.
    WriteStalled = "write_stalled",
    /// A newer connection of the same client took over.
    TakenOver = "taken_over",
    /// An operator asked for it.
    Administrative = "administrative",
    /// The connection was opened and could not be served: its client was never told that it was accepted.
    Refused = "refused",
    /// The node sends its clients to others.
    Moved = "moved",
    /// The node stops.
    ServerShutdown = "server_shutdown",
    /// The node cannot serve this connection now.
    ServerBusy = "server_busy",
    /// A fault of ours.
    ServerError = "server_error",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn labels_are_distinct() {
        let labels: BTreeSet<_> = CloseCause::ALL.iter().map(|cause| cause.label()).collect();
        assert_eq!(labels.len(), CloseCause::ALL.len());
    }
}
