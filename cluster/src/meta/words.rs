//! What the meta rooms of two nodes say to each other, through [`Service::Control`](crate::link::Service::Control).

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use umbel_core::{
    cluster::{Outcome, Rejected, Request},
    ids::{NodeId, ShardId, Term},
};

use crate::wire::{self, WireError};

/// The first byte of every message: which room of the control service it is for.
pub(super) const ROOM: u8 = 2;

/// A question. The order is part of the format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Decide this, as the leader of the meta group.
    Command(Request),
    /// Say what you hold.
    Observe,
    /// Do this to a group.
    Order {
        /// Who says so.
        fence: Fence,
        /// Which group.
        shard: ShardId,
        /// What.
        order: Order,
    },
}

/// The place of an order in the order of all orders: what an older leader, or an older row, wanted is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Fence {
    /// The term of the meta leader.
    pub(super) term: Term,
    /// The epoch of the group's row.
    pub(super) epoch: u64,
}

/// What is to be done to a group on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Begin a replica.
    Host,
    /// Erase the replica.
    Retire,
    /// As its leader, change its members.
    Change {
        /// Who is to vote.
        voters: BTreeSet<NodeId>,
        /// Who is to get the log without a vote.
        learners: BTreeSet<NodeId>,
    },
    /// As its leader, let another voter lead.
    Transfer {
        /// Who.
        to: NodeId,
    },
}

/// An answer. The order is part of the format.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The command was decided.
    Decided(Result<Outcome, Rejected>),
    /// Somebody else leads, maybe this one. Nothing was changed.
    NotLeader(Option<NodeId>),
    /// The command may or may not have been decided.
    Unknown,
    /// What the node holds.
    Observed(Holding),
    /// The order was carried out.
    Done,
    /// It was not, for this reason.
    Failed(String),
}

/// What a node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    /// The groups with a replica.
    pub(super) hosted: BTreeSet<ShardId>,
    /// The groups it leads and serves.
    pub(super) led: Vec<Led>,
    /// Whether its disk is full.
    pub(super) full: bool,
    /// How long a sync takes it, in milliseconds.
    pub(super) sync_ms: u64,
    /// Whether that has been long for a while.
    pub(super) slow: bool,
}

/// A group that is led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Led {
    /// Which.
    pub(super) shard: ShardId,
    /// In which term.
    pub(super) term: Term,
    /// Who votes.
    pub(super) voters: BTreeSet<NodeId>,
    /// Who gets the log without a vote.
    pub(super) learners: BTreeSet<NodeId>,
    /// A change of voters is on its way.
    pub(super) joint: bool,
    /// Whose log is near the end.
    pub(super) caught_up: BTreeSet<NodeId>,
}

/// A question as it is sent.
pub(super) fn frame(ask: &Ask) -> Bytes {
    let body = wire::encode(ask);
    let mut frame = BytesMut::with_capacity(1 + body.len());
    frame.put_u8(ROOM);
    frame.put_slice(&body);
    frame.freeze()
}

/// An answer as it was received.
pub(super) fn answer(bytes: &[u8]) -> Result<Answer, WireError> {
    wire::decode(bytes)
}
