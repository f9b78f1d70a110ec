//! Who a member says it is.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

/// Most bytes of a zone's name that are told: identities travel several to a packet.
pub const ZONE_BYTES_MAX: usize = 64;

/// What a node tells about itself. Small, because every packet carries two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which node.
    pub node: NodeId,
    /// Which life of its process.
    pub boot: Boot,
    /// How often this life was taken for dead and came back.
    pub renewals: u32,
    /// Where its links listen.
    pub link: SocketAddr,
    /// Where its gossip listens.
    pub gossip: SocketAddr,
    /// What it does, one bit for each role; gossip only carries it.
    pub roles: u8,
    /// Its failure domain.
    pub zone: String,
    /// Its release.
    pub version: [u16; 3],
}

impl Identity {
    /// What decides between two identities of one node: the later life, then the later return.
    fn rank(&self) -> (Boot, u32) {
        (self.boot, self.renewals)
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let renewals = self.renewals.checked_add(1)?;
        Some(Self {
            renewals,
            ..self.clone()
        })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank()
    }
}
