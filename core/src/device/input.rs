//! Everything that can happen to a device or app, and the rules by which it is judged.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{Kind, Will};
use crate::{
    ids::{NodeId, SessionEpoch},
    shadow::{self, Shadow},
    time::Timestamp,
};

/// Something that happened. Epochs name the connection it happened to; an epoch that is over is ignored.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client asks for a session.
    Connect(Box<Connect>),
    /// A connection ended.
    Disconnect(Disconnect),
    /// The gateway that holds the connection is gone.
    GatewayLost {
        /// Which connection.
        epoch: SessionEpoch,
    },
    /// The owner starts with this record: timers are lost, and maybe connections.
    Recover {
        /// What became of the node that holds the connection.
        gateway: Gateway,
    },
    /// A timer fired.
    Timer(Timer),
    /// A will was published. The shell says so right after it ran `Effect::PublishWill`, before any other input.
    WillPublished {
        /// Whose will.
        epoch: SessionEpoch,
    },
    /// Heartbeats of an open connection are overdue.
    HeartbeatLate {
        /// Which connection.
        epoch: SessionEpoch,
    },
    /// A client that was called stale or offline is heard through its connection.
    Heard {
        /// Which connection.
        epoch: SessionEpoch,
    },
    /// A request to one of the device's shadows.
    Shadow {
        /// The shadow it names; a default one if none is stored.
        current: Shadow,
        /// What is asked.
        request: shadow::Request,
    },
    /// An operator lists a device.
    Create {
        /// Attributes, as a merge patch of none.
        patch: Bytes,
    },
    /// An operator changes what is said of a device.
    SetAttributes {
        /// JSON merge patch (RFC 7396).
        patch: Bytes,
        /// The revision the record must have.
        if_match: Option<u64>,
    },
    /// An operator deletes a device. Its shadows stay.
    Delete {
        /// The revision the record must have.
        if_match: Option<u64>,
    },
    /// Something went wrong that people should see with the device.
    Failed {
        /// What.
        message: String,
    },
}

/// What an owner that starts with a record knows of the node that holds the record's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gateway {
    /// It is gone, and the connection with it.
    Gone,
    /// It is there and will say whether it still holds the connection. Until then the record is believed, except that a
    /// connection that another owner took for lost is in doubt only, and gets its whole grace anew if it is lost.
    Asked,
    /// It holds the connection.
    Here,
}

/// A client asks for a session. It is authenticated, and allowed to connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// What it connects as.
    pub kind: Kind,
    /// MQTT protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// Whether an older session is to be thrown away.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; `u32::MAX` for ever. A 3.1.1 client that does not start clean gets
    /// what the broker is configured to give.
    pub expiry: u32,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// What to publish if it goes without a farewell.
    pub will: Option<Will>,
    /// Who it proved to be.
    pub principal: String,
    /// Where it connects from.
    pub ip: String,
    /// The listener it came through.
    pub listener: String,
    /// The node it is connected to.
    pub gateway: NodeId,
    /// The life of that node's process. Connections end with it.
    pub gateway_boot: u64,
}

/// A connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disconnect {
    /// Which connection.
    pub epoch: SessionEpoch,
    /// Why.
    pub reason: DisconnectReason,
    /// The session expiry its DISCONNECT asked for (MQTT 5.0, 3.14.2.2.2).
    pub expiry: Option<u32>,
    /// Its DISCONNECT asked for the will nevertheless (reason code 0x04).
    pub with_will: bool,
}

/// Why a connection ended, in AWS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DisconnectReason {
    /// The client said farewell.
    ClientInitiated,
    /// Its credentials are no longer good.
    AuthError,
    /// It did what it may not.
    ForbiddenAccess,
    /// It broke the protocol.
    ClientError,
    /// The connection broke.
    ConnectionLost,
    /// A newer connection of the same client took over.
    DuplicateClientId,
    /// It was silent for one and a half keep-alives.
    KeepAliveTimeout,
    /// A fault of ours.
    ServerError,
    /// We ended it, to stop or to move it.
    ServerInitiated,
    /// It sent too much.
    Throttled,
    /// A WebSocket was open for as long as it may.
    WebsocketTtlExpired,
    /// Its authorisation was good for a limited time.
    CustomAuthTtlExpired,
    /// An operator ended it.
    ApiInitiated {
        /// The operator asked for no will.
        prevent_will: bool,
    },
}

impl DisconnectReason {
    /// AWS's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientInitiated => "CLIENT_INITIATED_DISCONNECT",
            Self::AuthError => "AUTH_ERROR",
            Self::ForbiddenAccess => "FORBIDDEN_ACCESS",
            Self::ClientError => "CLIENT_ERROR",
            Self::ConnectionLost => "CONNECTION_LOST",
            Self::DuplicateClientId => "DUPLICATE_CLIENTID",
            Self::KeepAliveTimeout => "MQTT_KEEP_ALIVE_TIMEOUT",
            Self::ServerError => "SERVER_ERROR",
            Self::ServerInitiated => "SERVER_INITIATED_DISCONNECT",
            Self::Throttled => "THROTTLED",
            Self::WebsocketTtlExpired => "WEBSOCKET_TTL_EXPIRATION",
            Self::CustomAuthTtlExpired => "CUSTOMAUTH_TTL_EXPIRATION",
            Self::ApiInitiated { .. } => "API_INITIATED_DISCONNECT",
        }
    }

    /// Whether the will of a connection that ends like this is published.
    pub const fn sends_will(self) -> bool {
        match self {
            Self::ClientInitiated => false,
            Self::ApiInitiated { prevent_will } => !prevent_will,
            Self::AuthError
            | Self::ForbiddenAccess
            | Self::ClientError
            | Self::ConnectionLost
            | Self::DuplicateClientId
            | Self::KeepAliveTimeout
            | Self::ServerError
            | Self::ServerInitiated
            | Self::Throttled
            | Self::WebsocketTtlExpired
            | Self::CustomAuthTtlExpired => true,
        }
    }

    /// Whether a connection that ends like this broke: an end that nobody wanted.
    pub(super) const fn is_break(self) -> bool {
        match self {
            Self::ClientInitiated
            | Self::ServerInitiated
            | Self::WebsocketTtlExpired
            | Self::CustomAuthTtlExpired
            | Self::ApiInitiated { .. } => false,
            Self::AuthError
            | Self::ForbiddenAccess
            | Self::ClientError
            | Self::ConnectionLost
            | Self::DuplicateClientId
            | Self::KeepAliveTimeout
            | Self::ServerError
            | Self::Throttled => true,
        }
    }
}

/// A deadline that has passed, by a clock that does not jump. The machine believes it without looking at wall time:
/// each variant names what it was set for, so one that is doubled, or outlived by what happened since, does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The grace of a stale client is over.
    GraceOver {
        /// Which connection.
        epoch: SessionEpoch,
        /// Since when it was lost or silent.
        since: Timestamp,
    },
    /// A session that waited is over.
    SessionExpiry {
        /// Its last connection.
        epoch: SessionEpoch,
        /// Since when it waited.
        since: Timestamp,
    },
    /// A delayed will is due.
    WillDue {
        /// Whose will.
        epoch: SessionEpoch,
        /// When it was to be due.
        due: Timestamp,
    },
    /// The record of an app that went can be forgotten.
    Forget {
        /// Its last connection.
        epoch: SessionEpoch,
    },
}

/// Which devices may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Each that proves who it is; its record is made on the way.
    #[default]
    Open,
    /// Only those an operator listed.
    Listed,
}

/// When connections break so often that presence says little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlappingRule {
    /// So many breaks make a device flapping; 0 for never.
    pub breaks: u32,
    /// One break is forgotten after each of these.
    pub forget_one_after: Duration,
}

/// The rules by which inputs are judged; the same on each node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long a client whose gateway is gone, or that is silent, is stale before it is offline.
    pub grace: Duration,
    /// Which devices may connect.
    pub admission: Admission,
    /// Whether only devices with a record have shadows. AWS does not care.
    pub things_must_exist: bool,
    /// What shadows may hold.
    pub shadow: shadow::Limits,
    /// When a device is called flapping.
    pub flapping: FlappingRule,
    /// How long AWS's connection counter, and the record of an app, are remembered after the client went.
    pub remember: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            admission: Admission::Open,
            things_must_exist: false,
            shadow: shadow::Limits::default(),
            flapping: FlappingRule {
                breaks: 5,
                forget_one_after: Duration::from_mins(2),
            },
            remember: Duration::from_hours(1),
        }
    }
}
