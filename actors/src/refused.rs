//! Why the fleet did not do what it was asked.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use umbel_storage::ledger::Refusal;

/// A refusal. Unless the variant says otherwise nothing was changed and nothing was told to anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refused {
    /// The shard, the node, or the bound on awake actors is full: try again later.
    #[error("the node is busy")]
    Overloaded,
    /// The device has too many requests that are not answered yet (429).
    #[error("too many requests of this device are in flight")]
    TooManyInFlight,
    /// This node does not own the device's shard (any more).
    #[error("this node does not own the device")]
    NotOwner,
    /// The disk is full; reads go on.
    #[error("the disk is full")]
    StorageFull,
    /// The device's actor failed again and again and waits for an operator, or its shard is damaged.
    #[error("the device is quarantined")]
    Quarantined,
    /// The device's actor failed and has not been restarted yet. If the request was being worked on, its
    /// outcome is unknown: it happened once or not at all.
    #[error("the device's actor failed and restarts")]
    Restarting,
    /// The node stops.
    #[error("the node stops")]
    Stopping,
    /// Only listed devices are admitted, and this one is not listed; or an app asks for a name that is not its own.
    #[error("the client may not have this name, or is not listed")]
    NotListed,
    /// A read of the stored state failed.
    #[error("the stored state cannot be read")]
    Unreadable,
    /// The outcome of a write is unknown: it happened once or not at all.
    #[error("the outcome is unknown")]
    Unknown,
    /// The change is larger than a log entry may be. Not worth a retry.
    #[error("the change is too large")]
    TooLarge,
    /// Nobody who owns the device can be reached: it moves, or there is no quorum. Worth a retry.
    #[error("nobody who owns the device can be reached")]
    Unavailable,
}

impl Refused {
    /// Every reason, in the order of their labels.
    pub const ALL: [Self; 12] = [
        Self::Overloaded,
        Self::TooManyInFlight,
        Self::NotOwner,
        Self::StorageFull,
        Self::Quarantined,
        Self::Restarting,
        Self::Stopping,
        Self::NotListed,
        Self::Unreadable,
        Self::Unknown,
        Self::TooLarge,
        Self::Unavailable,
    ];

    /// Whether the same command may be taken a little later, on this node, without an operator.
    pub const fn passes(self) -> bool {
        match self {
            Self::Overloaded
            | Self::TooManyInFlight
            | Self::StorageFull
            | Self::Restarting
            | Self::Unreadable
            | Self::Unknown => true,
            Self::NotOwner
            | Self::Quarantined
            | Self::Stopping
            | Self::NotListed
            | Self::TooLarge
            | Self::Unavailable => false,
        }
    }

    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::TooManyInFlight => "too_many_in_flight",
            Self::NotOwner => "not_owner",
            Self::StorageFull => "storage_full",
            Self::Quarantined => "quarantined",
            Self::Restarting => "restarting",
            Self::Stopping => "stopping",
            Self::NotListed => "not_listed",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotOwner => Self::NotOwner,
            Refusal::Busy => Self::Overloaded,
            Refusal::StorageFull => Self::StorageFull,
            Refusal::Quarantined => Self::Quarantined,
            Refusal::TooLarge => Self::TooLarge,
            Refusal::Unknown => Self::Unknown,
        }
    }
}
