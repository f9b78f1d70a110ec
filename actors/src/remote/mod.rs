//! What nodes ask each other about devices, and how the owner answers.
//!
//! These types go over the wire between releases: a variant or field is only ever added at the end, and a field only
//! together with a new format number of the link.

mod resync;
mod serve;
mod view;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use umbel_core::{
    device::{Connect, Disconnect, Opened},
    ids::{ClientId, DeviceId, NodeId, SessionEpoch, ShadowName, ShardId, Term},
    shadow::{Reply, Request},
};
use umbel_storage::nodes::Owner;

pub(crate) use serve::is_device;
pub use serve::serve;

use crate::{
    fleet::Counts,
    query::{Filter, NamedPage, Page},
    refused::Refused,
    registry::EditError,
    troubles::Quarantined,
    view::DeviceView,
};

/// The name of one command of one gateway: the same however often it is sent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RequestId {
    /// Who asks.
    pub gateway: NodeId,
    /// In which life.
    pub boot: u64,
    /// Rises with each command of that life.
    pub number: u64,
}

/// One sending of a command that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Of the command.
    pub id: RequestId,
    /// It was sent before, and may have been applied.
    pub again: bool,
}

/// A session to open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The sending.
    pub call: Call,
    /// Who.
    pub client: ClientId,
    /// How.
    pub connect: Connect,
    /// The end of its connection before, which the owner may not have heard of yet.
    pub ended: Option<Disconnect>,
}

/// What operators change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// List a device.
    Create {
        /// Attributes, as a merge patch of none.
        patch: Bytes,
    },
    /// Change what is said of it.
    SetAttributes {
        /// JSON merge patch.
        patch: Bytes,
        /// The revision it must have.
        if_match: Option<u64>,
    },
    /// Delete it.
    Delete {
        /// The revision it must have.
        if_match: Option<u64>,
    },
}

/// A part of what a gateway holds of one shard, for the owner to compare with what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    /// Of which shard.
    pub shard: ShardId,
    /// For the owner of this term and no other.
    pub term: Term,
    /// The gateway's life.
    pub boot: u64,
    /// Tells one comparison from the one before.
    pub round: u64,
    /// The comparison begins.
    pub is_first: bool,
    /// It ends: who was named in no part is not connected there.
    pub is_last: bool,
    /// Open connections.
    pub connected: Vec<(ClientId, SessionEpoch)>,
    /// Clients whose connection is being opened.
    pub opening: Vec<ClientId>,
    /// Ends of connections that the owner may not have heard of.
    pub ended: Vec<(ClientId, Disconnect)>,
}

/// What an owner says to a part of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resynced {
    /// Connections that are over, though the gateway holds them.
    pub over: Vec<Over>,
    /// Whose ends are recorded now.
    pub recorded: Vec<ClientId>,
    /// The owner could not take it all: begin again a little later.
    pub is_incomplete: bool,
}

/// A connection that its gateway has to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// Whose.
    pub client: ClientId,
    /// Which.
    pub epoch: SessionEpoch,
    /// A newer connection took over, elsewhere or here.
    pub by_newer: bool,
}

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Open a session.
    Connect(Box<Opening>),
    /// Connections ended.
    Ended {
        /// In which shard.
        shard: ShardId,
        /// Which.
        ends: Vec<(ClientId, Disconnect)>,
    },
    /// A connection is given up without a word, so that its client can come back elsewhere within its grace.
    Lost {
        /// Whose.
        client: ClientId,
        /// Which.
        epoch: SessionEpoch,
    },
    /// A request to a shadow.
    Shadow {
        /// The sending.
        call: Call,
        /// Whose shadow.
        device: DeviceId,
        /// What.
        request: Request,
    },
    /// A read of a shadow as any replica has it.
    Glance {
        /// Whose shadow.
        device: DeviceId,
        /// A get.
        request: Request,
    },
    /// An operator changes a device.
    Edit {
        /// The sending.
        call: Call,
        /// Which.
        device: DeviceId,
        /// How.
        edit: Edit,
    },
    /// One client.
    Client {
        /// Which.
        client: ClientId,
    },
    /// Names of a device's shadows.
    Named {
        /// Whose.
        device: DeviceId,
        /// After this one.
        after: Option<ShadowName>,
        /// At most so many.
        limit: u32,
    },
    /// Devices of some shards, in id order.
    Devices {
        /// Of which.
        shards: Vec<ShardId>,
        /// Which.
        filter: Filter,
        /// After this one.
        after: Option<DeviceId>,
        /// At most so many.
        limit: u32,
    },
    /// Numbers of some shards.
    Counts {
        /// Of which.
        shards: Vec<ShardId>,
    },
    /// Devices in quarantine.
    Quarantined {
        /// Of which shards.
        shards: Vec<ShardId>,
    },
    /// Let a device out of quarantine.
    Release {
        /// Which.
        client: ClientId,
    },
    /// Clients that were heard of lately, and how many milliseconds ago.
    Touched {
        /// Them.
        clients: Vec<(ClientId, u32)>,
    },
    /// Compare what a gateway holds with what is recorded.
    Resync(Box<Resync>),
    /// Of a gateway: whether it holds a connection. One that it does not hold it never will.
    Holds {
        /// Whose.
        client: ClientId,
        /// Which.
        epoch: SessionEpoch,
    },
    /// Connects were given up by the gateway that asks, and may be recorded: the owner looks whether the gateway holds
    /// what is recorded.
    Review {
        /// In which shard.
        shard: ShardId,
        /// Whose.
        clients: Vec<ClientId>,
    },
}

/// What a gateway says of a connection that is recorded as its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// It holds it.
    Held,
    /// It does not, and never will.
    Not,
    /// It is over, and its owner was to be told.
    Ended(Disconnect),
}

/// What the other node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// It is not the owner, but may know who is. Nothing was done.
    NotOwner {
        /// Who.
        hint: Option<Owner>,
    },
    /// It refused.
    Refused(Refused),
    /// Done, or there was nothing to do.
    Done,
    /// The session is open.
    Opened(Opened),
    /// These ends are recorded.
    Recorded(Vec<ClientId>),
    /// The answer to a shadow request.
    Shadow(Reply),
    /// The device as it is now.
    Edited(Box<DeviceView>),
    /// The change was not made.
    NotEdited(EditError),
    /// One client, if it is known.
    Client(Option<Box<DeviceView>>),
    /// Names of shadows.
    Named(NamedPage),
    /// Devices.
    Devices(Page),
    /// Numbers.
    Counts(Counts),
    /// Devices in quarantine.
    Quarantined(Vec<Quarantined>),
    /// Whether it was in quarantine.
    Released(bool),
    /// What became of a part of a comparison.
    Resynced(Resynced),
    /// What the gateway says of a connection.
    Held(Hold),
}

impl Verb {
    /// Marks a command as one that may have been applied before.
    pub(crate) fn set_again(&mut self) {
        match self {
            Self::Connect(opening) => opening.call.again = true,
            Self::Shadow { call, .. } | Self::Edit { call, .. } => call.again = true,
            Self::Ended { .. }
            | Self::Lost { .. }
            | Self::Glance { .. }
            | Self::Client { .. }
            | Self::Named { .. }
            | Self::Devices { .. }
            | Self::Counts { .. }
            | Self::Quarantined { .. }
            | Self::Release { .. }
            | Self::Touched { .. }
            | Self::Resync(_)
            | Self::Holds { .. }
            | Self::Review { .. } => {},
        }
    }

    /// Whether the asker has to be told that an outcome is unknown: the others are reads, or change nothing twice.
    pub(crate) fn is_change(&self) -> bool {
        use umbel_core::shadow::Verb as Shadow;
        match self {
            Self::Connect(_) | Self::Edit { .. } => true,
            Self::Shadow { request, .. } => request.verb != Shadow::Get,
            Self::Ended { .. }
            | Self::Lost { .. }
            | Self::Glance { .. }
            | Self::Client { .. }
            | Self::Named { .. }
            | Self::Devices { .. }
            | Self::Counts { .. }
            | Self::Quarantined { .. }
            | Self::Release { .. }
            | Self::Touched { .. }
            | Self::Resync(_)
            | Self::Holds { .. }
            | Self::Review { .. } => false,
        }
    }

    /// As a metric label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Ended { .. } => "ended",
            Self::Lost { .. } => "lost",
            Self::Shadow { .. } => "shadow",
            Self::Glance { .. } => "glance",
            Self::Edit { .. } => "edit",
            Self::Client { .. } => "client",
            Self::Named { .. } => "named",
            Self::Devices { .. } => "devices",
            Self::Counts { .. } => "counts",
            Self::Quarantined { .. } => "quarantined",
            Self::Release { .. } => "release",
            Self::Touched { .. } => "touched",
            Self::Resync(_) => "resync",
            Self::Holds { .. } => "holds",
            Self::Review { .. } => "review",
        }
    }
}
