//! The content of the meta group.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    command::{Outcome, RequestId},
    node::{Node, NodeState},
    secret::Secret,
};
use crate::{
    ids::{NodeId, ShardId},
    time::Timestamp,
};

/// A new gossip key is spoken only when it had this long to reach every node.
const KEY_SPREADS: Duration = Duration::from_mins(1);

/// Which cluster. Random, made once; nodes of another cluster are refused by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

/// The text is not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a cluster id has 16 hexadecimal digits")]
pub struct ClusterIdError;

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = ClusterIdError;

    fn from_str(text: &str) -> Result<Self, ClusterIdError> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ClusterIdError);
        }
        let id = u64::from_str_radix(text, 16).map_err(|_not_a_number| ClusterIdError)?;
        Ok(Self(id))
    }
}

/// What never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which cluster.
    pub cluster: ClusterId,
    /// How many shards it has.
    pub shards: u16,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What operators may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// After how long a silent node's copies are made anew elsewhere; `None` leaves that to an operator, who knows whether
    /// the machine will come back.
    pub replace_after: Option<Duration>,
}

/// Who is to hold a shard, or to take part in the meta group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who is to hold a copy and vote. The first is to own the shard while it can.
    pub replicas: Vec<NodeId>,
    /// Who is to hold a copy without a vote.
    pub learners: Vec<NodeId>,
    /// The first replica was chosen by an operator and not by the balance.
    pub pinned: bool,
    /// Rises with each change of the row: what was ordered for an older one is refused.
    pub epoch: u64,
}

impl Assignment {
    /// Who is to own the shard while it can.
    pub fn preferred(&self) -> Option<NodeId> {
        self.replicas.first().copied()
    }

    /// Who votes.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.replicas.iter().copied().collect()
    }

    /// Whether a node is to hold a copy.
    pub fn includes(&self, node: NodeId) -> bool {
        self.replicas.contains(&node) || self.learners.contains(&node)
    }
}

/// SHA-256 of a token's secret.
pub type TokenHash = [u8; 32];

/// A join token, without its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Until when it is good.
    pub expires: Timestamp,
    /// Who used it.
    pub used: Option<TokenUse>,
}

/// Who used a token. The same key may ask again: its first answer may have been lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// SHA-256 of its public key.
    pub key: [u8; 32],
    /// The id it got.
    pub node: NodeId,
}

/// A key that seals gossip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// 32 bytes.
    pub key: Secret,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What makes certificates of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// Its private key, PKCS #8 DER.
    pub key: Secret,
}

/// A command that was decided, kept for as long as it may be sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Which command.
    pub id: RequestId,
    /// Its answer.
    pub outcome: Outcome,
}

/// What only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The id of the next node.
    pub next_node: u64,
    /// The id of the next gossip key.
    pub next_key: u32,
    /// The place of the next remembered command.
    pub next_request: u64,
    /// Rises with every decision: of two copies of the map, the higher one is newer.
    pub revision: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            next_node: 1,
            next_key: 1,
            next_request: 0,
            revision: 0,
        }
    }
}

/// One change of the map: the new value, or its absence. Absolute, so that applying a row twice is applying it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// What never changes.
    Identity(Identity),
    /// What only rises.
    Counters(Counters),
    /// What operators may change.
    Settings(Settings),
    /// The authority of the cluster.
    Authority(Authority),
    /// A node. Never deleted.
    Node(NodeId, Node),
    /// Who is to hold a shard.
    Shard(ShardId, Assignment),
    /// A join token.
    Token(TokenHash, Option<Token>),
    /// A key that seals gossip.
    GossipKey(u32, Option<GossipKey>),
    /// A command that was decided.
    Request(u64, Option<Remembered>),
}

/// What the cluster knows about itself. A copy may be a moment old.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    /// What never changes; `None` before the cluster was made.
    pub identity: Option<Identity>,
    /// What only rises.
    pub counters: Counters,
    /// What operators may change.
    pub settings: Settings,
    /// What makes certificates of nodes.
    pub authority: Option<Authority>,
    /// Every node there ever was.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Who is to hold which shard; the meta group is among them.
    pub shards: BTreeMap<ShardId, Assignment>,
    /// Join tokens that are good, or were lately.
    pub tokens: BTreeMap<TokenHash, Token>,
    /// Keys that seal gossip.
    pub gossip_keys: BTreeMap<u32, GossipKey>,
    /// The last commands, by age.
    pub requests: BTreeMap<u64, Remembered>,
}

impl ClusterMap {
    /// Takes one row.
    pub fn apply(&mut self, row: Row) {
        match row {
            Row::Identity(identity) => self.identity = Some(identity),
            Row::Counters(counters) => self.counters = counters,
            Row::Settings(settings) => self.settings = settings,
            Row::Authority(authority) => self.authority = Some(authority),
            Row::Node(id, node) => put(&mut self.nodes, id, Some(node)),
            Row::Shard(id, shard) => put(&mut self.shards, id, Some(shard)),
            Row::Token(hash, token) => put(&mut self.tokens, hash, token),
            Row::GossipKey(id, key) => put(&mut self.gossip_keys, id, key),
            Row::Request(place, request) => put(&mut self.requests, place, request),
        }
    }

    /// The rows that make this map out of nothing.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::Counters(self.counters), Row::Settings(self.settings)];
        rows.extend(self.identity.map(Row::Identity));
        rows.extend(self.authority.clone().map(Row::Authority));
        rows.extend(
            self.nodes
                .iter()
                .map(|(id, node)| Row::Node(*id, node.clone())),
        );
        let shards = self.shards.iter();
        rows.extend(shards.map(|(id, shard)| Row::Shard(*id, shard.clone())));
        let tokens = self.tokens.iter();
        rows.extend(tokens.map(|(hash, token)| Row::Token(*hash, Some(*token))));
        let keys = self.gossip_keys.iter();
        rows.extend(keys.map(|(id, key)| Row::GossipKey(*id, Some(key.clone()))));
        let requests = self.requests.iter();
        rows.extend(requests.map(|(place, kept)| Row::Request(*place, Some(kept.clone()))));
        rows
    }

    /// The number of shards; zero before the cluster was made.
    pub fn shard_count(&self) -> u16 {
        self.identity.map_or(0, |identity| identity.shards)
    }

    /// The nodes that belong to the cluster.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.nodes.iter().map(|(id, node)| (*id, node));
        nodes.filter(|(_, node)| node.is_member())
    }

    /// Whether a node was removed.
    pub fn is_removed(&self, node: NodeId) -> bool {
        let node = self.nodes.get(&node);
        node.is_some_and(|node| node.state == NodeState::Removed)
    }

    /// The shards a node is to hold, the meta group included.
    pub fn held_by(&self, node: NodeId) -> BTreeSet<ShardId> {
        let held = self.shards.iter().filter(|(_, row)| row.includes(node));
        held.map(|(shard, _)| *shard).collect()
    }

    /// The gossip key to speak with: the newest that every node has had time to hear of. All keys are listened to.
    pub fn spoken_key(&self, now: Timestamp) -> Option<u32> {
        let mut ripe = self.gossip_keys.iter().rev();
        let ripe = ripe.find(|(_, key)| now.since(key.created_at) >= KEY_SPREADS);
        ripe.or_else(|| self.gossip_keys.first_key_value())
            .map(|(id, _)| *id)
    }

    /// The answer of a command that was decided before.
    pub fn remembered(&self, id: RequestId) -> Option<&Outcome> {
        let mut newest_first = self.requests.values().rev();
        newest_first
            .find(|request| request.id == id)
            .map(|request| &request.outcome)
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
