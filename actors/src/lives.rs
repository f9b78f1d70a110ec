//! The nodes that hold connections, in one life each, as small numbers that fit beside a device's presence.

use std::fmt;

use parking_lot::RwLock;
use umbel_core::{
    device::{DeviceRecord, Link, Session},
    ids::NodeId,
};
use umbel_storage::nodes::{Nodes, Reach};

/// One life of a gateway's process. Its connections end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    pub(crate) boot: u64,
}

impl Life {
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            node: session.gateway,
            boot: session.gateway_boot,
        }
    }

    /// The gateway of a record's connection, if one is open or may be.
    pub(crate) fn of_record(record: &DeviceRecord) -> Option<Self> {
        let session = record.session.as_ref()?;
        match session.link {
            Link::Up | Link::Lost { .. } => Some(Self::of(session)),
            Link::Down { .. } => None,
        }
    }

    /// Records of releases that did not write gateways down.
    pub(crate) const fn is_known(self) -> bool {
        self.node.0 != 0
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.boot)
    }
}

/// What is known of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is there, or its link is broken and nothing confirms more.
    Alive,
    /// Its process is gone.
    Gone,
    /// It is not a node of this cluster, as far as this node has heard.
    Stranger,
}

/// Judges a gateway by what this node knows.
pub(crate) fn judge(life: Life, nodes: &dyn Nodes) -> Verdict {
    if life.node == nodes.me() {
        return if life.boot == nodes.boot().0 {
            Verdict::Alive
        } else {
            Verdict::Gone
        };
    }
    let peers = nodes.peers();
    let Some(peer) = peers.iter().find(|peer| peer.node == life.node) else {
        return Verdict::Stranger;
    };
    let is_replaced = peer.boot.is_some_and(|boot| boot.0 > life.boot);
    if peer.reach == Reach::Gone || is_replaced {
        Verdict::Gone
    } else {
        Verdict::Alive
    }
}

/// Whether a gateway cannot be spoken to. It may only be cut off; but a client that comes back through another node
/// meanwhile has lost its connection there, and takes nothing over from anybody.
pub(crate) fn is_cut_off(life: Life, nodes: &dyn Nodes) -> bool {
    if judge(life, nodes) != Verdict::Alive {
        return true;
    }
    let peers = nodes.peers();
    let peer = peers.iter().find(|peer| peer.node == life.node);
    peer.is_some_and(|peer| peer.reach != Reach::Connected)
}

/// Numbers of lives. It grows by one for each start of a node that is heard of, and is never cleared.
#[derive(Debug, Default)]
pub(crate) struct Lives(RwLock<Vec<Life>>);

/// No connection.
pub(crate) const NO_LIFE: u32 = 0;

impl Lives {
    /// The number of a life; above zero.
    pub(crate) fn number(&self, life: Life) -> u32 {
        let known = position(&self.0.read(), life);
        if let Some(number) = known {
            return number;
        }
        let mut lives = self.0.write();
        if let Some(number) = position(&lives, life) {
            return number;
        }
        lives.push(life);
        u32::try_from(lives.len()).unwrap_or(NO_LIFE)
    }

    /// The life of a number.
    pub(crate) fn of(&self, number: u32) -> Option<Life> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.0.read().get(index).copied()
    }
}

fn position(lives: &[Life], life: Life) -> Option<u32> {
    // The last one is the one that most clients have.
    let index = lives.iter().rposition(|known| *known == life)?;
    u32::try_from(index + 1).ok()
}
