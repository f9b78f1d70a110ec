//! Homes: the lasting part of durable sessions, on the node that owns the shard of the client.
//!
//! A home has rows in its shard and decides what is sent and in which order; the *window* of the gateway has the
//! connection. A home pushes to one window, the one of the highest epoch that attached.
//!
//! # Sequence numbers
//! A message of QoS 1 or 2 takes a number that names its row. Numbers of one client are never given out twice, in this
//! session or the next, by this home or the next, because
//! * within a home's time in office (a term) each session counts upwards, and one that begins starts above all that ended
//!   in this shard since ([`Homes::floor`]);
//! * a node that takes a shard up commits, before it gives out any number, a *generation* above that of every home
//!   before it and above the upper half of every number among the rows. Numbers begin at `generation << 32`. Homes
//!   before it cannot have come further: 2³² numbers last for thirteen years at ten messages a second.
//!
//! So a window that attaches can name what its client acknowledged by "not above `highest`, and not unacknowledged",
//! and that never hits a message of which it has not heard. Packet identifiers of two generations may still meet:
//! [`super::outbound`] does not send a message while its identifier is in flight.
//!
//! A node that is alone needs no generations: the windows of a process end with it.

mod attach;
mod feed;
mod follow;
mod shards;
mod verbs;

use std::sync::{Arc, Weak};

use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

pub(crate) use self::{attach::NotAttached, shards::Homes};
use super::mailbox::Mailbox;

/// The window a home pushes to.
#[derive(Debug)]
pub(crate) struct Gateway {
    sink: Sink,
    /// The life of the node that has the window.
    boot: Boot,
    /// Names the attempt to attach: older ones are over.
    generation: u64,
    window: usize,
    /// Messages pushed.
    pushed: u64,
    /// Messages pushed when the gateway last said how far it is.
    pushed_before: u64,
    /// Acknowledgements that came.
    acked: u64,
    /// Acknowledgements that the gateway had sent when it last said how far it is.
    acked_before: u64,
}

/// Where a window is.
#[derive(Clone, Debug)]
enum Sink {
    /// On this node.
    Here(Weak<Mailbox>),
    /// On another one.
    There(NodeId),
}

/// A home that was attached to, and the identifiers that are not free.
pub(crate) struct Attachment {
    pub(crate) home: Arc<Mailbox>,
    pub(crate) inbound: Vec<(std::num::NonZeroU16, super::mailbox::Inbound)>,
    pub(crate) subscriptions: usize,
}
