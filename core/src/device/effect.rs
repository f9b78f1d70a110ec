//! Everything a device can ask its shell to do, in the order in which it must happen.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{AttributesError, DeviceRecord, Timer};
use crate::{
    ids::{NodeId, SessionEpoch},
    message::Message,
    shadow::{self, Shadow, ShadowKind, StoredShadow},
};

/// The decision about one input.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The record to adopt, once the effects' `Persist` is committed; at once if there is none.
    pub record: RecordChange,
    /// The shadow to adopt, likewise.
    pub shadow: Option<(ShadowKind, Shadow)>,
    /// What to do, one after the other. If a `Persist` fails nothing after it happens and nothing is adopted.
    pub effects: Vec<Effect>,
}

/// What becomes of a record.
#[derive(Clone, Debug, Default)]
pub enum RecordChange {
    /// It stays as it is.
    #[default]
    Keep,
    /// This is the record now.
    Put(Arc<DeviceRecord>),
    /// There is no record any more.
    Remove,
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make these writes durable, all or none.
    Persist(Vec<RecordWrite>),
    /// Answer whoever gave the input.
    Reply(Reply),
    /// Publish a message of the cluster.
    Publish(Message),
    /// Publish a will, then tell the machine with `Input::WillPublished` before any other input.
    PublishWill {
        /// Whose will.
        epoch: SessionEpoch,
        /// What to publish.
        message: Message,
    },
    /// The session is over: forget its subscriptions and queues in memory. If it had rows in storage, the `Persist`
    /// before has removed them.
    EndSession {
        /// The session's last connection.
        epoch: SessionEpoch,
    },
    /// End the connection of this epoch, if it is still there.
    Evict {
        /// Which connection; older ones go with it.
        epoch: SessionEpoch,
        /// The node that holds it.
        gateway: NodeId,
        /// What the client is told.
        reason: EvictReason,
    },
    /// Give the timer back as an input after this time.
    Schedule {
        /// How long to wait.
        after: Duration,
        /// What to give back.
        what: Timer,
    },
}

/// Why a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvictReason {
    /// A newer connection took over.
    TakenOver,
    /// An operator wants it.
    Administrative,
}

/// A change to what is stored of a client. Absolute: done twice is done once.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordWrite {
    /// Store the record.
    Record(Arc<DeviceRecord>),
    /// Remove the record.
    RemoveRecord,
    /// Store a shadow.
    Shadow {
        /// Which.
        kind: ShadowKind,
        /// What.
        stored: StoredShadow,
    },
    /// Remove a shadow's row: its tombstone is forgotten.
    RemoveShadow {
        /// Which.
        kind: ShadowKind,
    },
    /// Remove the session's subscriptions, queued messages and received packet ids.
    DropSessionRows,
}

/// The answer to an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The session is open.
    Opened(Opened),
    /// The device is not on the list, and only listed ones may connect; or the name is a device's, or in use by
    /// another user, and the client is an app.
    NotListed,
    /// It was done, or there was nothing to do.
    Done,
    /// What came of a shadow request.
    Shadow(shadow::Reply),
    /// The record as it is now.
    Record(Arc<DeviceRecord>),
    /// There is such a device already.
    Exists,
    /// There is no such device.
    NotFound,
    /// The record is not the one the caller has seen.
    PreconditionFailed {
        /// The revision it has.
        revision: u64,
    },
    /// The attributes are not acceptable.
    Invalid(AttributesError),
}

/// A session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Of this connection.
    pub epoch: SessionEpoch,
    /// Whether an older session goes on.
    pub session_present: bool,
    /// The open connection that was taken over.
    pub taken_over: Option<SessionEpoch>,
}
