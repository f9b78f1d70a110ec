//! Packets as the session sees them: MQTT 5 is the superset, older versions leave properties empty.
//!
//! Values of these types that come from [`crate::codec`] are valid: topics and filters follow the grammar, strings
//! hold no forbidden character, every reason code and property is allowed for its sender. What depends on the
//! session (packet identifiers, windows, aliases, rights) is judged there. A PUBLISH costs two allocations, both
//! of which move into a [`umbel_core::message::Message`] without a copy.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use umbel_core::message::{Properties, Qos};

pub use crate::{
    close::{Close, CloseCause},
    outgoing::{Delivery, Outgoing, TooLarge},
    reason::{ProtocolVersion, ReasonCode},
};

/// Name and value pairs in the order they came.
pub type UserProperties = Vec<(String, String)>;

/// One MQTT packet of any version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Opens a connection.
    Connect(Box<Connect>),
    /// Answers it.
    ConnAck(Box<ConnAck>),
    /// Carries a message.
    Publish(Publish),
    /// Acknowledges QoS 1.
    PubAck(Ack),
    /// QoS 2, received.
    PubRec(Ack),
    /// QoS 2, release.
    PubRel(Ack),
    /// QoS 2, complete.
    PubComp(Ack),
    /// Asks for topics.
    Subscribe(Box<Subscribe>),
    /// Answers each filter of a SUBSCRIBE.
    SubAck(Box<SubAck>),
    /// Asks no longer.
    Unsubscribe(Box<Unsubscribe>),
    /// Answers each filter of an UNSUBSCRIBE.
    UnsubAck(Box<SubAck>),
    /// Are you there?
    PingReq,
    /// I am.
    PingResp,
    /// Ends a connection.
    Disconnect(Box<Disconnect>),
    /// Extended authentication (MQTT 5).
    Auth(Box<Auth>),
}

impl Packet {
    /// Which of the fifteen it is.
    pub const fn kind(&self) -> PacketKind {
        match self {
            Self::Connect(_) => PacketKind::Connect,
            Self::ConnAck(_) => PacketKind::ConnAck,
            Self::Publish(_) => PacketKind::Publish,
            Self::PubAck(_) => PacketKind::PubAck,
            Self::PubRec(_) => PacketKind::PubRec,
            Self::PubRel(_) => PacketKind::PubRel,
            Self::PubComp(_) => PacketKind::PubComp,
            Self::Subscribe(_) => PacketKind::Subscribe,
            Self::SubAck(_) => PacketKind::SubAck,
            Self::Unsubscribe(_) => PacketKind::Unsubscribe,
            Self::UnsubAck(_) => PacketKind::UnsubAck,
            Self::PingReq => PacketKind::PingReq,
            Self::PingResp => PacketKind::PingResp,
            Self::Disconnect(_) => PacketKind::Disconnect,
            Self::Auth(_) => PacketKind::Auth,
        }
    }
}

/// The fifteen packet types; the value is the high half of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// CONNECT
    Connect = 1,
    /// CONNACK
    ConnAck = 2,
    /// PUBLISH
    Publish = 3,
    /// PUBACK
    PubAck = 4,
    /// PUBREC
    PubRec = 5,
    /// PUBREL
    PubRel = 6,
    /// PUBCOMP
    PubComp = 7,
    /// SUBSCRIBE
    Subscribe = 8,
    /// SUBACK
    SubAck = 9,
    /// UNSUBSCRIBE
    Unsubscribe = 10,
    /// UNSUBACK
    UnsubAck = 11,
    /// PINGREQ
    PingReq = 12,
    /// PINGRESP
    PingResp = 13,
    /// DISCONNECT
    Disconnect = 14,
    /// AUTH
    Auth = 15,
}

impl PacketKind {
    /// Every kind, in the order of their values.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The kind of a packet's first byte; `None` for the reserved type 0.
    pub fn of_first_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .get(usize::from(byte >> 4).checked_sub(1)?)
            .copied()
    }

    /// Label of this kind in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnAck => "connack",
            Self::Publish => "publish",
            Self::PubAck => "puback",
            Self::PubRec => "pubrec",
            Self::PubRel => "pubrel",
            Self::PubComp => "pubcomp",
            Self::Subscribe => "subscribe",
            Self::SubAck => "suback",
            Self::Unsubscribe => "unsubscribe",
            Self::UnsubAck => "unsuback",
            Self::PingReq => "pingreq",
            Self::PingResp => "pingresp",
            Self::Disconnect => "disconnect",
            Self::Auth => "auth",
        }
    }
}

/// CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// What the client speaks.
    pub version: ProtocolVersion,
    /// Forget an earlier session (3.1.1: clean session).
    pub clean_start: bool,
    /// Longest silence in seconds the client promises; 0: it promises none.
    pub keep_alive: u16,
    /// Empty: the server assigns one.
    pub client_id: String,
    /// User name, if sent.
    pub username: Option<String>,
    /// Password, if sent. MQTT 5 allows it without a user name.
    pub password: Option<Bytes>,
    /// Last will, if any.
    pub will: Option<Will>,
    /// Seconds a session outlives its connection; `None` if not sent, always `None` for 3.x where a session
    /// without clean session lives as long as the server's limit.
    pub session_expiry: Option<u32>,
    /// Most unacknowledged QoS 1 and 2 messages the client takes (65,535 if it did not say).
    pub receive_maximum: NonZeroU16,
    /// Largest packet the client takes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest topic alias the client takes; 0: none.
    pub topic_alias_maximum: u16,
    /// The client asks for response information in CONNACK.
    pub request_response_information: bool,
    /// False: no reason strings and user properties except in PUBLISH, CONNACK and DISCONNECT.
    pub request_problem_information: bool,
    /// Extended authentication, if asked for.
    pub authentication_method: Option<String>,
    /// Its data.
    pub authentication_data: Option<Bytes>,
    /// User properties.
    pub user: UserProperties,
}

/// The message a server publishes when a client is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// How surely.
    pub qos: Qos,
    /// Whether it is retained.
    pub retain: bool,
    /// Seconds between the end of the connection and the will.
    pub delay: u32,
    /// Seconds the message is worth delivering.
    pub message_expiry: Option<u32>,
    /// What goes with the message.
    pub properties: Option<Box<Properties>>,
}

/// CONNACK. For 3.x only the first two fields are sent.
#[expect(clippy::struct_excessive_bools, reason = "the packet has these flags")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// The server kept a session for this client.
    pub session_present: bool,
    /// Accepted, or why not.
    pub reason: ReasonCode,
    /// Session expiry, if not what the client asked for.
    pub session_expiry: Option<u32>,
    /// Most unacknowledged QoS 1 and 2 messages the server takes.
    pub receive_maximum: Option<NonZeroU16>,
    /// Highest quality of service.
    pub maximum_qos: Qos,
    /// Retained messages are supported.
    pub retain_available: bool,
    /// Largest packet the server takes.
    pub maximum_packet_size: Option<u32>,
    /// The identifier given to a client that sent none.
    pub assigned_client_id: Option<String>,
    /// Highest topic alias the server takes; 0: none.
    pub topic_alias_maximum: u16,
    /// Words for a person.
    pub reason_string: Option<String>,
    /// User properties.
    pub user: UserProperties,
    /// Wildcards in filters are supported.
    pub wildcard_available: bool,
    /// Subscription identifiers are supported.
    pub subscription_ids_available: bool,
    /// Shared subscriptions are supported.
    pub shared_available: bool,
    /// The keep-alive the client has to use instead of its own.
    pub server_keep_alive: Option<u16>,
    /// Basis for response topics.
    pub response_information: Option<String>,
    /// Another server to use.
    pub server_reference: Option<String>,
}

impl ConnAck {
    /// An acceptance with everything available.
    pub fn accepted(session_present: bool) -> Self {
        Self {
            session_present,
            reason: ReasonCode::Success,
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            user: Vec::new(),
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
        }
    }

    /// A refusal.
    pub fn refused(reason: ReasonCode) -> Self {
        Self {
            reason,
            ..Self::accepted(false)
        }
    }
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: Qos,
    /// Retain, or (from a server) was retained.
    pub retain: bool,
    /// Topic name; empty if an alias stands for it.
    pub topic: String,
    /// There for QoS 1 and 2, and only there.
    pub packet_id: Option<NonZeroU16>,
    /// The message. A buffer of its own: keeping it pins nothing else.
    pub payload: Bytes,
    /// MQTT 5 properties, if there are any.
    pub properties: Option<Box<PublishProperties>>,
}

/// MQTT 5 properties of a PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties {
    /// Seconds the message is worth delivering.
    pub message_expiry: Option<u32>,
    /// Alias of the topic. May be above the maximum; never zero.
    pub topic_alias: Option<NonZeroU16>,
    /// Only from a server: the identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<NonZeroU32>,
    /// What travels on to subscribers.
    pub message: Properties,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// What is acknowledged.
    pub packet_id: NonZeroU16,
    /// How it went. Not sent to clients before MQTT 5.
    pub reason: ReasonCode,
    /// MQTT 5 properties, if there are any.
    pub properties: Option<Box<AckProperties>>,
}

impl Ack {
    /// An acknowledgement without further words.
    pub const fn new(packet_id: NonZeroU16, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: None,
        }
    }
}

/// Words beside a reason code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AckProperties {
    /// Words for a person.
    pub reason_string: Option<String>,
    /// User properties.
    pub user: UserProperties,
}

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Answered by the SUBACK with the same.
    pub packet_id: NonZeroU16,
    /// Comes back with every message these filters match.
    pub subscription_id: Option<NonZeroU32>,
    /// At least one.
    pub filters: Vec<Subscription>,
    /// User properties.
    pub user: UserProperties,
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter's text, `$share/…` included.
    pub filter: String,
    /// How to deliver.
    pub options: SubscribeOptions,
}

/// How messages of one subscription are delivered. 3.x has only the quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Highest quality of service.
    pub qos: Qos,
    /// Not what this client published itself.
    pub no_local: bool,
    /// Keep the retain flag of the publisher.
    pub retain_as_published: bool,
    /// Which retained messages come on subscribing.
    pub retain_handling: RetainHandling,
}

/// Which retained messages a SUBSCRIBE brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// Those that match.
    #[default]
    Send = 0,
    /// Those that match if the subscription is new.
    SendIfNew = 1,
    /// None.
    Never = 2,
}

/// SUBACK and UNSUBACK. An UNSUBACK before MQTT 5 has no reasons on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Of the request.
    pub packet_id: NonZeroU16,
    /// One for each filter, in order.
    pub reasons: Vec<ReasonCode>,
    /// MQTT 5 properties, if there are any.
    pub properties: Option<Box<AckProperties>>,
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Answered by the UNSUBACK with the same.
    pub packet_id: NonZeroU16,
    /// At least one.
    pub filters: Vec<String>,
    /// User properties.
    pub user: UserProperties,
}

/// DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Why. Before MQTT 5 a client can only say [`ReasonCode::NORMAL_DISCONNECTION`].
    pub reason: ReasonCode,
    /// Only from a client: its last word on how long the session lives.
    pub session_expiry: Option<u32>,
    /// Words for a person.
    pub reason_string: Option<String>,
    /// User properties.
    pub user: UserProperties,
    /// Only from a server: another server to use.
    pub server_reference: Option<String>,
}

impl Disconnect {
    /// A reason without further words.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry: None,
            reason_string: None,
            user: Vec::new(),
            server_reference: None,
        }
    }
}

/// AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Which step.
    pub reason: ReasonCode,
    /// The method; never missing on the wire unless the packet is empty.
    pub method: Option<String>,
    /// Its data.
    pub data: Option<Bytes>,
    /// Words for a person.
    pub reason_string: Option<String>,
    /// User properties.
    pub user: UserProperties,
}
