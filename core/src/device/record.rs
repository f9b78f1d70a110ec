//! What the cluster remembers of a device or app: one record per client id.
//!
//! Made for storage formats without names: no untagged enums, no skipped fields, no free JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Attributes, DisconnectReason, FlappingRule};
use crate::{
    ids::{NodeId, SessionEpoch},
    message::Message,
    time::Timestamp,
};

/// What a client is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Kind {
    /// It speaks for the device of the same name; the record stays when it goes.
    Device,
    /// Anything else; the record is forgotten some time after it went.
    #[default]
    App,
}

/// Whether a client is there, as far as its owner knows.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Presence {
    /// It has never been seen.
    #[default]
    Never,
    /// It is connected and heard of.
    Online,
    /// Its gateway is gone or its heartbeats stopped, and the grace is not over.
    Stale,
    /// It is not connected, or silent for too long.
    Offline,
}

impl Presence {
    /// The word for people and interfaces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }
}

/// Why the presence is what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// It was created and has not connected yet.
    #[default]
    NeverConnected,
    /// It connected.
    Connected,
    /// It was silent and is heard again.
    HeardAgain,
    /// The gateway that held its connection is gone.
    GatewayLost,
    /// Its heartbeats stopped while its connection is open.
    HeartbeatLate,
    /// Its connection ended.
    Disconnected(DisconnectReason),
}

impl Reason {
    /// The word for people and interfaces; ends of connections in AWS's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverConnected => "NEVER_CONNECTED",
            Self::Connected => "CONNECTED",
            Self::HeardAgain => "HEARD_AGAIN",
            Self::GatewayLost => "GATEWAY_LOST",
            Self::HeartbeatLate => "HEARTBEAT_LATE",
            Self::Disconnected(reason) => reason.as_str(),
        }
    }
}

/// What the presence was concluded from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Evidence {
    /// Nothing yet.
    #[default]
    None,
    /// An accepted connection.
    Connection,
    /// Something it sent.
    Traffic,
    /// Its own farewell.
    Farewell,
    /// Its gateway reported the end of the connection.
    ConnectionClosed,
    /// Nothing was heard for too long.
    Silence,
    /// Its gateway is gone.
    GatewayGone,
    /// Its owner started anew and does not find its connection.
    OwnerRestarted,
}

impl Evidence {
    /// The word for people and interfaces.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Connection => "connection",
            Self::Traffic => "traffic",
            Self::Farewell => "farewell",
            Self::ConnectionClosed => "connection_closed",
            Self::Silence => "silence",
            Self::GatewayGone => "gateway_gone",
            Self::OwnerRestarted => "owner_restarted",
        }
    }
}

/// What a client asked to have published when it goes without a farewell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// What to publish; its times are set when it is published.
    pub message: Message,
    /// Seconds to wait first (MQTT 5 will delay interval).
    pub delay: u32,
    /// Seconds after which the published message is worthless (MQTT 5 message expiry interval).
    pub expiry: Option<u32>,
}

/// A will that is to be published, from the moment its connection is over until it has been published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWill {
    /// The connection it belongs to; law: at most one will per epoch.
    pub epoch: SessionEpoch,
    /// What to publish.
    pub will: Will,
    /// When.
    pub due: Timestamp,
    /// It was handed to the shell. If the record is found like this after a crash, nobody knows whether it went
    /// out, and it is handed over again: at least once across a crash, exactly once otherwise.
    pub sent: bool,
}

/// The state of a session's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Connected.
    Up,
    /// The gateway is gone; the client may come back through another one.
    Lost {
        /// Since when.
        since: Timestamp,
    },
    /// Not connected; the session waits.
    Down {
        /// Since when.
        since: Timestamp,
    },
}

/// Session expiry that never comes (MQTT 5.0, 3.1.2.11.2).
pub const NEVER_EXPIRES: u32 = u32::MAX;

/// An MQTT session: of a connected client, or of one that may come back for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Of its last connection.
    pub epoch: SessionEpoch,
    /// What the client connected as.
    pub kind: Kind,
    /// MQTT protocol level: 3, 4 or 5.
    pub protocol: u8,
    /// Whether the client asked to start clean.
    pub clean: bool,
    /// Seconds it outlives its connection; [`NEVER_EXPIRES`] for ever.
    pub expiry: u32,
    /// Whether it may have rows in storage: it, or the one it continues, was opened with an expiry above zero.
    pub durable: bool,
    /// To be published if the connection ends without a farewell.
    pub will: Option<Will>,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// Who the client proved to be; the certificate id under mutual TLS.
    pub principal: String,
    /// Where it connects from.
    pub ip: String,
    /// The listener it came through.
    pub listener: String,
    /// When its last connection was accepted.
    pub connected_at: Timestamp,
    /// AWS's counter of connections, of its last connection.
    pub version_number: u64,
    /// Whether it is connected.
    pub link: Link,
    /// The node of its last connection; 0 if that is not known.
    pub gateway: NodeId,
    /// The life of that node's process.
    pub gateway_boot: u64,
}

impl Session {
    /// When it is over, if it is not connected and ends at all.
    pub fn expires_at(&self) -> Option<Timestamp> {
        let (Link::Lost { since } | Link::Down { since }) = self.link else {
            return None;
        };
        let expiry = Duration::from_secs(self.expiry.into());
        (self.expiry != NEVER_EXPIRES).then(|| since + expiry)
    }

    /// Whether the client finds it when it connects now without starting clean.
    pub(super) fn can_resume(&self, now: Timestamp) -> bool {
        self.expiry > 0 && self.expires_at().is_none_or(|at| now < at)
    }
}

/// Counts connections that broke, and forgets them with time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaps {
    points: u32,
    at: Timestamp,
}

impl Flaps {
    fn level(self, now: Timestamp, rule: &FlappingRule) -> u32 {
        let leak_ms = rule.forget_one_after.as_millis().max(1);
        let leaked = now.since(self.at).as_millis() / leak_ms;
        self.points
            .saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX))
    }

    pub(super) fn count(&mut self, now: Timestamp, rule: &FlappingRule) {
        // Capped, so that a device that calmed down is not called flapping for the rest of the day.
        let points = self
            .level(now, rule)
            .saturating_add(1)
            .min(rule.breaks.saturating_mul(2));
        *self = Self { points, at: now };
    }
}

/// Something that went wrong with a client, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What.
    pub message: String,
}

/// Everything the cluster remembers of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Device or app.
    pub kind: Kind,
    /// An operator put it on the list of devices.
    pub listed: bool,
    /// Whether it is there.
    pub presence: Presence,
    /// Why the presence is what it is.
    pub reason: Reason,
    /// Since when the presence is what it is.
    pub since: Timestamp,
    /// What the presence was concluded from.
    pub evidence: Evidence,
    /// How often its connections broke lately.
    pub flaps: Flaps,
    /// Of the last accepted connection. Law: never repeats.
    pub epoch: SessionEpoch,
    /// AWS's counter of connections, and when it will start anew; `None` before the first connection.
    pub version_number: Option<VersionNumber>,
    /// The session, connected or waiting.
    pub session: Option<Session>,
    /// Wills on their way.
    pub pending_wills: Vec<PendingWill>,
    /// What people say of it.
    pub attributes: Attributes,
    /// Counts changes of what people say; the entity tag.
    pub revision: u64,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it was last seen, by this record; the owner's memory knows better.
    pub last_seen: Option<Timestamp>,
    /// The last thing that went wrong.
    pub last_error: Option<LastError>,
    /// The version of the configuration it has.
    pub config_version: u64,
}

/// AWS's counter of a client's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionNumber {
    /// Of the last connection.
    pub value: u64,
    /// When the count starts anew; `None` while connected.
    pub until: Option<Timestamp>,
}

impl DeviceRecord {
    /// A client that was never seen before.
    ///
    /// Its epochs start at the time and not at 1: a record may be forgotten or deleted, and the next one of the same
    /// name must not repeat an epoch. This holds while a client connects less than once per millisecond on average and the
    /// clock is not set back by more than the time a record was gone.
    pub(super) fn new(kind: Kind, now: Timestamp) -> Self {
        Self {
            kind,
            listed: false,
            presence: Presence::Never,
            reason: Reason::NeverConnected,
            since: now,
            evidence: Evidence::None,
            flaps: Flaps::default(),
            epoch: SessionEpoch(now.millis()),
            version_number: None,
            session: None,
            pending_wills: Vec::new(),
            attributes: Attributes::default(),
            revision: 1,
            created_at: now,
            last_seen: None,
            last_error: None,
            config_version: 0,
        }
    }

    /// Whether its connections break so often that its presence says little.
    pub fn is_flapping(&self, now: Timestamp, rule: &FlappingRule) -> bool {
        rule.breaks > 0 && self.flaps.level(now, rule) >= rule.breaks
    }

    /// Whether a connection of it is open.
    pub fn is_connected(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.link == Link::Up)
    }
}
