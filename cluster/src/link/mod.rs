//! The way between nodes: requests with an answer and a deadline, and notices without one.
//!
//! [`Transport`] has two twins that pass one suite: TCP with mutual TLS, and memory. Both keep the order: what one node
//! sends another through one service arrives in the order it was sent, while the link holds.

mod desk;
pub mod join;
mod limits;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod suite;
pub mod tcp;
pub mod tls;
pub mod vet;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use umbel_core::ids::NodeId;
use umbel_storage::{PeerError, nodes::Peer};

pub use limits::{Limits, Timing};

/// A future without a name.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who is spoken to on the other node. The number is part of the wire format and is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Service {
    /// Raft of all groups. Goes before everything else.
    Raft = 1,
    /// Membership, shard map, ownership notices.
    Control = 2,
    /// Device actors.
    Fleet = 3,
    /// Publish and subscribe, sessions.
    Broker = 4,
    /// Snapshots and backups: many bytes, on a connection of their own.
    Bulk = 5,
    /// What operators ask of every node.
    Operator = 6,
}

impl Service {
    /// Every service.
    pub const ALL: [Self; 6] = [
        Self::Raft,
        Self::Control,
        Self::Fleet,
        Self::Broker,
        Self::Bulk,
        Self::Operator,
    ];
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raft => "raft",
            Self::Control => "control",
            Self::Fleet => "fleet",
            Self::Broker => "broker",
            Self::Bulk => "bulk",
            Self::Operator => "operator",
        })
    }
}

/// Answers what other nodes ask of one service.
///
/// Both calls are made in the order in which the peer sent, one at a time for each peer and service, and must not block:
/// what takes its place in an order has to take it before `request` returns its future, or at the future's first poll,
/// which follows at once. The futures then run side by side.
pub trait Handler: Send + Sync + 'static {
    /// A request; an error is told to the asker as [`PeerError::Refused`].
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
    /// A notice that wants no answer.
    fn notice(&self, from: NodeId, body: Bytes);
}

/// Speaks to other nodes.
pub trait Transport: Send + Sync + 'static {
    /// This node.
    fn me(&self) -> NodeId;
    /// Gives a service its handler; before that, its requests are refused. Only the first call counts.
    fn serve(&self, service: Service, handler: Arc<dyn Handler>);
    /// Asks another node. Queued before this returns, in the order of the calls.
    fn request(
        &self,
        to: NodeId,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;
    /// Tells another node. `Ok` means queued: it is lost if the link breaks.
    fn notify(&self, to: NodeId, service: Service, body: Bytes) -> Result<(), PeerError>;
    /// Every other node of the address book and whether it can be spoken to; changes when that does. A node whose process
    /// was started again is seen as not connected in between, or at least with another boot.
    fn peers(&self) -> watch::Receiver<Vec<Peer>>;
}

/// Whether a body may be sent at all.
fn fits(limits: &Limits, to: NodeId, body: &Bytes) -> Result<(), PeerError> {
    if body.len() <= limits.body_bytes_max {
        return Ok(());
    }
    Err(PeerError::Refused {
        node: to,
        why: format!(
            "a message of {} bytes is more than the link carries ({})",
            body.len(),
            limits.body_bytes_max
        ),
    })
}
