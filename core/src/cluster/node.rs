//! A node as the cluster knows it.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::command::Rejected;
use crate::time::Timestamp;

/// Most bytes of a zone label, a version and a client address.
const TEXT_BYTES_MAX: usize = 255;

/// What a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// It may vote in the meta group.
    pub voter: bool,
    /// It may hold shards.
    pub shards: bool,
    /// It takes connections of clients.
    pub gateway: bool,
}

impl Default for Roles {
    /// Everything.
    fn default() -> Self {
        Self {
            voter: true,
            shards: true,
            gateway: true,
        }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.voter, "voter"),
            (self.shards, "shards"),
            (self.gateway, "gateway"),
        ];
        let mut separator = "";
        for (_, name) in names.into_iter().filter(|(has, _)| *has) {
            write!(f, "{separator}{name}")?;
            separator = ",";
        }
        Ok(())
    }
}

/// Where a node is in its life. The number is part of the format on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It has an id and a certificate, and has not been heard of since.
    Joining,
    /// It takes part.
    Active,
    /// It gives away what it holds.
    Draining,
    /// It holds nothing any more and may be stopped, removed or taken back.
    Drained,
    /// It is gone for good; its id is never used again.
    Removed,
}

impl NodeState {
    /// The state in one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// By other nodes, over TCP.
    pub link: SocketAddr,
    /// By gossip, over UDP.
    pub gossip: SocketAddr,
    /// By clients, as told to one that has to go elsewhere (MQTT 5 server reference).
    pub client: Option<String>,
}

/// What a node says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Where it is reached.
    pub addresses: Addresses,
    /// Its failure domain; nodes of one zone may fail together.
    pub zone: String,
    /// What it is for.
    pub roles: Roles,
    /// Its release.
    pub version: String,
}

impl Profile {
    /// Refuses what does not fit into a row or a line of a terminal.
    pub(super) fn check(&self) -> Result<(), Rejected> {
        check_text("zone", &self.zone)?;
        check_text("version", &self.version)?;
        self.addresses.check()
    }
}

impl Addresses {
    pub(super) fn check(&self) -> Result<(), Rejected> {
        if self.link.port() == 0 || self.gossip.port() == 0 {
            return Err(Rejected::Invalid {
                what: "address".into(),
            });
        }
        if self.link.ip().is_unspecified() || self.gossip.ip().is_unspecified() {
            return Err(Rejected::Invalid {
                what: "address".into(),
            });
        }
        check_text("client address", self.client.as_deref().unwrap_or("unused"))
    }
}

pub(super) fn check_text(what: &'static str, text: &str) -> Result<(), Rejected> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Rejected::Invalid { what: what.into() });
    }
    Ok(())
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it said of itself, and what operators changed since.
    pub profile: Profile,
    /// Where it is in its life.
    pub state: NodeState,
    /// When it was let in.
    pub admitted_at: Timestamp,
}

impl Node {
    /// Whether it may be given shards or a vote.
    pub fn is_active(&self) -> bool {
        self.state == NodeState::Active
    }

    /// Whether it belongs to the cluster.
    pub fn is_member(&self) -> bool {
        self.state != NodeState::Removed
    }
}
