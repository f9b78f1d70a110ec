//! Why something was refused or ended, in MQTT's words (MQTT 5.0, 2.4).
//!
//! The broker speaks MQTT 5 inside; what an older client is told is derived here and nowhere else.

use crate::packet::PacketKind;

/// A protocol version a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: level 4.
    V311,
    /// MQTT 5.0: level 5.
    V5,
}

impl ProtocolVersion {
    /// The level byte of CONNECT.
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }

    /// Whether packets carry properties and every reason code.
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Label of this version in metrics and the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $label:literal;)+) => {
        /// A reason code of MQTT 5. Codes below 0x80 are successes.
        ///
        /// The values 0x00, 0x01 and 0x02 mean different things in different packets; [`ReasonCode::GRANTED_QOS0`]
        /// and [`ReasonCode::NORMAL_DISCONNECTION`] are other names for [`ReasonCode::Success`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $($(#[$doc])* $name = $value,)+
        }

        impl ReasonCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The code of a byte, if MQTT 5 defines it.
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// A short name for logs and reason strings.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

reason_codes! {
    /// Done; granted QoS 0; normal disconnection.
    Success = 0x00, "success";
    /// SUBACK: granted QoS 1.
    GrantedQos1 = 0x01, "granted qos 1";
    /// SUBACK: granted QoS 2.
    GrantedQos2 = 0x02, "granted qos 2";
    /// DISCONNECT of a client that wants its will published.
    DisconnectWithWill = 0x04, "disconnect with will";
    /// PUBACK, PUBREC: accepted, nobody subscribes.
    NoMatchingSubscribers = 0x10, "no matching subscribers";
    /// UNSUBACK: there was no such subscription.
    NoSubscriptionExisted = 0x11, "no subscription existed";
    /// AUTH: another step follows.
    ContinueAuthentication = 0x18, "continue authentication";
    /// AUTH: a client starts again.
    ReAuthenticate = 0x19, "re-authenticate";
    /// Refused without a word.
    UnspecifiedError = 0x80, "unspecified error";
    /// The packet does not parse.
    MalformedPacket = 0x81, "malformed packet";
    /// The packet parses and must not come, or not now.
    ProtocolError = 0x82, "protocol error";
    /// Valid, and not accepted by this server.
    ImplementationSpecificError = 0x83, "implementation specific error";
    /// CONNACK: a version this server does not speak.
    UnsupportedProtocolVersion = 0x84, "unsupported protocol version";
    /// CONNACK: not an identifier this server takes.
    ClientIdentifierNotValid = 0x85, "client identifier not valid";
    /// CONNACK: wrong user name or password.
    BadUserNameOrPassword = 0x86, "bad user name or password";
    /// Not allowed.
    NotAuthorized = 0x87, "not authorized";
    /// CONNACK: not available.
    ServerUnavailable = 0x88, "server unavailable";
    /// Try again later.
    ServerBusy = 0x89, "server busy";
    /// CONNACK: an operator does not want this client.
    Banned = 0x8A, "banned";
    /// The server stops.
    ServerShuttingDown = 0x8B, "server shutting down";
    /// An authentication method this server does not have.
    BadAuthenticationMethod = 0x8C, "bad authentication method";
    /// Nothing heard for 1.5 times the keep-alive.
    KeepAliveTimeout = 0x8D, "keep alive timeout";
    /// Another connection of the same client took over.
    SessionTakenOver = 0x8E, "session taken over";
    /// A filter that is well formed and not accepted.
    TopicFilterInvalid = 0x8F, "topic filter invalid";
    /// A topic that is well formed and not accepted.
    TopicNameInvalid = 0x90, "topic name invalid";
    /// The packet identifier is taken.
    PacketIdentifierInUse = 0x91, "packet identifier in use";
    /// The packet identifier is unknown.
    PacketIdentifierNotFound = 0x92, "packet identifier not found";
    /// More unacknowledged publishes than allowed.
    ReceiveMaximumExceeded = 0x93, "receive maximum exceeded";
    /// A topic alias that is zero or above the maximum.
    TopicAliasInvalid = 0x94, "topic alias invalid";
    /// Larger than the maximum packet size.
    PacketTooLarge = 0x95, "packet too large";
    /// Too much, too fast.
    MessageRateTooHigh = 0x96, "message rate too high";
    /// A limit of the account is used up.
    QuotaExceeded = 0x97, "quota exceeded";
    /// An operator ended it.
    AdministrativeAction = 0x98, "administrative action";
    /// The payload is not what its indicator says.
    PayloadFormatInvalid = 0x99, "payload format invalid";
    /// No retained messages here.
    RetainNotSupported = 0x9A, "retain not supported";
    /// A quality of service above the maximum.
    QosNotSupported = 0x9B, "qos not supported";
    /// Go to another server for now.
    UseAnotherServer = 0x9C, "use another server";
    /// Go to another server for good.
    ServerMoved = 0x9D, "server moved";
    /// No shared subscriptions here.
    SharedSubscriptionsNotSupported = 0x9E, "shared subscriptions not supported";
    /// Too many connections per second.
    ConnectionRateExceeded = 0x9F, "connection rate exceeded";
    /// Connected for longer than allowed.
    MaximumConnectTime = 0xA0, "maximum connect time";
    /// No subscription identifiers here.
    SubscriptionIdentifiersNotSupported = 0xA1, "subscription identifiers not supported";
    /// No wildcard subscriptions here.
    WildcardSubscriptionsNotSupported = 0xA2, "wildcard subscriptions not supported";
}

impl ReasonCode {
    /// SUBACK: granted QoS 0.
    pub const GRANTED_QOS0: Self = Self::Success;
    /// DISCONNECT: normal, the will is dropped.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;

    /// The byte on the wire in MQTT 5.
    pub const fn value(self) -> u8 {
        self as u8
    }

    /// Whether this refuses or ends something.
    pub const fn is_error(self) -> bool {
        self.value() >= 0x80
    }

    /// The return code of a CONNACK for MQTT 3.1 and 3.1.1 (3.1.1, table 3.1). What has no code of its own is
    /// "server unavailable": the one an older client retries on.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what has no code of its own shares one"
    )]
    pub const fn connack_v3(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            _ if !self.is_error() => 0,
            _ => 3,
        }
    }

    /// The return code of one filter of a SUBACK for MQTT 3.1 and 3.1.1: granted QoS or 0x80.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what has no code of its own shares one"
    )]
    pub const fn suback_v3(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::GrantedQos1 => 1,
            Self::GrantedQos2 => 2,
            _ => 0x80,
        }
    }

    /// Whether a server may put this code into a packet.
    pub fn may_stand_in(self, packet: PacketKind) -> bool {
        self.packets().contains(&packet)
    }

    /// The packets in which a server may say this (MQTT 5.0, table 2-6, without what only clients say).
    const fn packets(self) -> &'static [PacketKind] {
        use PacketKind::{
            Auth, ConnAck, Disconnect, PubAck, PubComp, PubRec, PubRel, SubAck, UnsubAck,
        };
        match self {
            Self::Success => &[
                ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Auth, Disconnect,
            ],
            Self::GrantedQos1 | Self::GrantedQos2 => &[SubAck],
            Self::DisconnectWithWill | Self::ReAuthenticate => &[],
            Self::NoMatchingSubscribers => &[PubAck, PubRec],
            Self::NoSubscriptionExisted => &[UnsubAck],
            Self::ContinueAuthentication => &[Auth],
            Self::UnspecifiedError | Self::ImplementationSpecificError | Self::NotAuthorized => {
                &[ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect]
            },
            Self::UnsupportedProtocolVersion
            | Self::ClientIdentifierNotValid
            | Self::BadUserNameOrPassword
            | Self::ServerUnavailable
            | Self::Banned
            // Table 2-6 names DISCONNECT too, and the table of DISCONNECT does not.
            | Self::BadAuthenticationMethod => &[ConnAck],
            Self::MalformedPacket
            | Self::ProtocolError
            | Self::ServerBusy
            | Self::PacketTooLarge
            | Self::RetainNotSupported
            | Self::QosNotSupported
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => &[ConnAck, Disconnect],
            Self::ServerShuttingDown
            | Self::KeepAliveTimeout
            | Self::SessionTakenOver
            | Self::ReceiveMaximumExceeded
            | Self::TopicAliasInvalid
            | Self::MessageRateTooHigh
            | Self::AdministrativeAction
            | Self::MaximumConnectTime => &[Disconnect],
            Self::TopicFilterInvalid => &[SubAck, UnsubAck, Disconnect],
            Self::TopicNameInvalid | Self::PayloadFormatInvalid => {
                &[ConnAck, PubAck, PubRec, Disconnect]
            },
            Self::PacketIdentifierInUse => &[PubAck, PubRec, SubAck, UnsubAck],
            Self::PacketIdentifierNotFound => &[PubRel, PubComp],
            Self::QuotaExceeded => &[ConnAck, PubAck, PubRec, SubAck, Disconnect],
            Self::SharedSubscriptionsNotSupported
            | Self::SubscriptionIdentifiersNotSupported
            | Self::WildcardSubscriptionsNotSupported => &[SubAck, Disconnect],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for &code in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_u8(code.value()), Some(code));
        }
        assert_eq!(ReasonCode::ALL.len(), 43);
        assert_eq!(ReasonCode::from_u8(0x03), None);
        assert_eq!(ReasonCode::from_u8(0xA3), None);
    }

    #[test]
    fn older_clients_get_the_codes_they_know() {
        assert_eq!(ReasonCode::Success.connack_v3(), 0);
        assert_eq!(ReasonCode::UnsupportedProtocolVersion.connack_v3(), 1);
        assert_eq!(ReasonCode::ServerBusy.connack_v3(), 3);
        assert_eq!(ReasonCode::NotAuthorized.connack_v3(), 5);
        assert_eq!(ReasonCode::GrantedQos2.suback_v3(), 2);
        assert_eq!(ReasonCode::NotAuthorized.suback_v3(), 0x80);
    }

    /// What the sections of the packets say, against what the table of all codes says (MQTT 5.0, 3.2.2.2, 3.4.2.1,
    /// 3.5.2.1, 3.6.2.1, 3.7.2.1, 3.9.3, 3.11.3, 3.14.2.1, 3.15.2.1).
    #[test]
    fn each_packet_takes_the_codes_that_its_section_lists() {
        const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
        const PUBREL: &[u8] = &[0x00, 0x92];
        let sections: [(PacketKind, &[u8]); 9] = [
            (
                PacketKind::ConnAck,
                &[
                    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C,
                    0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
                ],
            ),
            (PacketKind::PubAck, PUBACK),
            (PacketKind::PubRec, PUBACK),
            (PacketKind::PubRel, PUBREL),
            (PacketKind::PubComp, PUBREL),
            (
                PacketKind::SubAck,
                &[
                    0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
                ],
            ),
            (
                PacketKind::UnsubAck,
                &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
            ),
            (
                PacketKind::Disconnect,
                &[
                    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93,
                    0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0,
                    0xA1, 0xA2,
                ],
            ),
            (PacketKind::Auth, &[0x00, 0x18]),
        ];
        for (packet, section) in sections {
            let taken = ReasonCode::ALL
                .iter()
                .filter(|code| code.may_stand_in(packet));
            let taken: Vec<u8> = taken.map(|code| code.value()).collect();
            assert_eq!(taken, section, "{packet:?}");
        }
        let other = [PacketKind::Publish, PacketKind::PingResp];
        assert!(
            ReasonCode::ALL
                .iter()
                .all(|code| other.iter().all(|kind| !code.may_stand_in(*kind)))
        );
    }

    #[test]
    fn who_is_not_let_in_and_who_is_cut_off_is_told_why_in_words_of_that_packet() {
        use crate::{authenticate::AuthError, codec::MalformedCause};
        let errors = [
            AuthError::BadCredentials,
            AuthError::NotAuthorized,
            AuthError::ClientId,
            AuthError::Busy,
        ];
        for error in errors {
            let code = error.reason();
            assert!(
                code.may_stand_in(PacketKind::ConnAck),
                "{error:?}: {code:?}"
            );
        }
        for cause in MalformedCause::ALL {
            let in_connect = matches!(
                cause,
                MalformedCause::ProtocolLevel | MalformedCause::ClientId
            );
            let kind = if in_connect {
                PacketKind::ConnAck
            } else {
                PacketKind::Disconnect
            };
            assert!(cause.reason().may_stand_in(kind), "{cause:?}");
        }
    }
}
