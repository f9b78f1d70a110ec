//! What is wrong with bytes that are no acceptable packet.

use thiserror::Error;

use crate::reason::{ProtocolVersion, ReasonCode};

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $reason:ident;)+) => {
        /// Why bytes are refused. The label set of `umbel_mqtt_malformed_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum MalformedCause {
            $($(#[$doc])* $name,)+
        }

        impl MalformedCause {
            /// Every cause there is.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Label of this cause in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// What an MQTT 5 client is told.
            pub const fn reason(self) -> ReasonCode {
                match self {
                    $(Self::$name => ReasonCode::$reason,)+
                }
            }
        }
    };
}

causes! {
    /// Packet type 0, or AUTH before MQTT 5.
    PacketType = "packet_type", MalformedPacket;
    /// Reserved bits of the first byte.
    HeaderFlags = "header_flags", MalformedPacket;
    /// A variable byte integer of more than four bytes, or of more than it needs.
    Length = "length", MalformedPacket;
    /// Above the maximum packet size.
    TooLarge = "too_large", PacketTooLarge;
    /// The packet ends before its fields do.
    Truncated = "truncated", MalformedPacket;
    /// The fields end before the packet does.
    TrailingBytes = "trailing_bytes", MalformedPacket;
    /// Not UTF-8, or with a character MQTT forbids.
    Text = "text", MalformedPacket;
    /// Not `MQTT` or `MQIsdp`, or the wrong one for the level.
    ProtocolName = "protocol_name", ProtocolError;
    /// A level this server does not speak.
    ProtocolLevel = "protocol_level", UnsupportedProtocolVersion;
    /// Flags of CONNECT that contradict each other or the reserved bit.
    ConnectFlags = "connect_flags", MalformedPacket;
    /// An empty client identifier where one is needed.
    ClientId = "client_id", ClientIdentifierNotValid;
    /// A quality of service of 3, or DUP with quality of service 0.
    Qos = "qos", MalformedPacket;
    /// Packet identifier 0.
    PacketId = "packet_id", MalformedPacket;
    /// A PUBLISH without a topic and without an alias for it.
    MissingTopic = "missing_topic", ProtocolError;
    /// A topic name that is empty or has wildcards.
    TopicName = "topic_name", TopicNameInvalid;
    /// A filter that is empty, misplaces wildcards, or misses the group or filter of `$share`.
    TopicFilter = "topic_filter", TopicFilterInvalid;
    /// Reserved bits of subscription options.
    ReservedBits = "reserved_bits", MalformedPacket;
    /// Values subscription options do not have; no local on a shared subscription.
    SubscribeOptions = "subscribe_options", ProtocolError;
    /// A SUBSCRIBE or UNSUBSCRIBE without filters.
    EmptyList = "empty_list", ProtocolError;
    /// A property that does not belong into this packet, or not from a client.
    Property = "property", MalformedPacket;
    /// A subscription identifier in a PUBLISH of a client.
    SubscriptionId = "subscription_id", ProtocolError;
    /// A property twice.
    DuplicateProperty = "duplicate_property", ProtocolError;
    /// A property with a value it must not have.
    PropertyValue = "property_value", ProtocolError;
    /// Topic alias 0.
    TopicAlias = "topic_alias", TopicAliasInvalid;
    /// A reason code this packet must not carry, or not from a client.
    ReasonCode = "reason_code", ProtocolError;
    /// A packet only servers send.
    Direction = "direction", ProtocolError;
    /// The first packet is not CONNECT.
    NotConnect = "not_connect", ProtocolError;
    /// A second CONNECT.
    SecondConnect = "second_connect", ProtocolError;
    /// Refused by the codec library after our own judgement let it pass.
    Library = "library", MalformedPacket;
}

/// Bytes that are no acceptable packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("malformed packet: {}", cause.label())]
pub struct Malformed {
    /// What is wrong.
    pub cause: MalformedCause,
    /// What the client speaks, as far as it came: decides in which form it is told.
    pub version: Option<ProtocolVersion>,
}

impl Malformed {
    pub(crate) const fn new(cause: MalformedCause) -> Self {
        Self {
            cause,
            version: None,
        }
    }

    /// What an MQTT 5 client is told.
    pub const fn reason(self) -> ReasonCode {
        self.cause.reason()
    }
}

impl From<MalformedCause> for Malformed {
    fn from(cause: MalformedCause) -> Self {
        Self::new(cause)
    }
}
