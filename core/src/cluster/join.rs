//! How a cluster begins, and how nodes come in.

use std::time::Duration;

use super::{
    command::{Init, Outcome, Rejected},
    decide::GOSSIP_KEY_BYTES,
    map::{Assignment, ClusterMap, Counters, GossipKey, Identity, Row, Token, TokenHash, TokenUse},
    node::{Addresses, Node, NodeState, Profile},
};
use crate::{
    ids::{NodeId, ShardId},
    time::Timestamp,
};

/// Tokens that are good at the same time.
const TOKENS_MAX: usize = 64;
/// Nodes there may ever be, removed ones included: each is a row that every node holds.
const NODES_MAX: usize = 4096;
/// The largest node id: it is a part of every owner's term.
const NODE_ID_MAX: u64 = (1 << 24) - 1;
/// A token is for a machine that is being set up now.
const TOKEN_LIVES_MAX: Duration = Duration::from_hours(24 * 7);
/// Most shards of a cluster. The number above the last is the meta group's.
const SHARDS_MAX: u16 = 4096;

pub(super) fn init(
    map: &ClusterMap,
    init: &Init,
    counters: &mut Counters,
) -> Result<(Vec<Row>, Outcome), Rejected> {
    if let Some(identity) = map.identity {
        // Asked again after a restart, under another name: the cluster is the one that was asked for.
        return if identity.cluster == init.cluster && identity.shards == init.shards {
            Ok((Vec::new(), Outcome::Done))
        } else {
            Err(Rejected::AlreadyInitialised)
        };
    }
    check_init(init)?;
    let now = init.created_at;
    let identity = Identity {
        cluster: init.cluster,
        shards: init.shards,
        created_at: now,
    };
    let node = Node {
        profile: init.profile.clone(),
        state: NodeState::Active,
        admitted_at: now,
    };
    let key = GossipKey {
        key: init.gossip_key.clone(),
        created_at: now,
    };
    let mut rows = vec![
        Row::Identity(identity),
        Row::Authority(init.authority.clone()),
        Row::Node(init.node, node),
        Row::GossipKey(counters.next_key, Some(key)),
    ];
    let alone = Assignment {
        replicas: vec![init.node],
        epoch: 1,
        ..Assignment::default()
    };
    let shards = (0..init.shards).map(ShardId).chain([ShardId::META]);
    rows.extend(shards.map(|shard| Row::Shard(shard, alone.clone())));
    counters.next_key += 1;
    counters.next_node = init.node.0 + 1;
    Ok((rows, Outcome::Done))
}

fn check_init(init: &Init) -> Result<(), Rejected> {
    init.profile.check()?;
    let invalid = |what: &'static str| Err(Rejected::Invalid { what: what.into() });
    if init.shards == 0 || init.shards > SHARDS_MAX {
        return invalid("shards");
    }
    if init.node.0 == 0 || init.node.0 > NODE_ID_MAX {
        return invalid("node id");
    }
    if init.gossip_key.expose().len() != GOSSIP_KEY_BYTES {
        return invalid("gossip key");
    }
    Ok(())
}

pub(super) fn create_token(
    map: &ClusterMap,
    hash: TokenHash,
    lives: Duration,
    now: Timestamp,
) -> Result<Vec<Row>, Rejected> {
    if lives.is_zero() || lives > TOKEN_LIVES_MAX || map.tokens.contains_key(&hash) {
        return Err(Rejected::Invalid {
            what: "token".into(),
        });
    }
    let stale = |token: &Token| token.expires <= now;
    let good = map.tokens.values().filter(|token| !stale(token)).count();
    if good >= TOKENS_MAX {
        return Err(Rejected::TooMany {
            what: "join tokens".into(),
            max: TOKENS_MAX,
        });
    }
    let token = Token {
        expires: now + lives,
        used: None,
    };
    let mut rows = vec![Row::Token(hash, Some(token))];
    let old = map.tokens.iter().filter(|(_, token)| stale(token));
    rows.extend(old.map(|(hash, _)| Row::Token(*hash, None)));
    Ok(rows)
}

/// Lets a node in, once for each token; `proof` is the hash of the token's secret and that of the node's public key.
pub(super) fn admit(
    map: &ClusterMap,
    proof: (TokenHash, [u8; 32]),
    profile: &Profile,
    now: Timestamp,
    counters: &mut Counters,
) -> Result<(Vec<Row>, Outcome), Rejected> {
    let (hash, key) = proof;
    let token = map.tokens.get(&hash).ok_or(Rejected::Token)?;
    if token.expires <= now {
        return Err(Rejected::Token);
    }
    if let Some(used) = token.used {
        // The answer to the same node was lost: it gets the same id, and nobody else gets any.
        return if used.key == key && !map.is_removed(used.node) {
            Ok((Vec::new(), Outcome::Admitted(used.node)))
        } else {
            Err(Rejected::Token)
        };
    }
    profile.check()?;
    free_address(map, &profile.addresses, None)?;
    if map.nodes.len() >= NODES_MAX || counters.next_node > NODE_ID_MAX {
        return Err(Rejected::TooMany {
            what: "nodes".into(),
            max: NODES_MAX,
        });
    }
    let id = NodeId(counters.next_node);
    counters.next_node += 1;
    let node = Node {
        profile: profile.clone(),
        state: NodeState::Joining,
        admitted_at: now,
    };
    let used = Token {
        used: Some(TokenUse { key, node: id }),
        ..*token
    };
    let rows = vec![Row::Node(id, node), Row::Token(hash, Some(used))];
    Ok((rows, Outcome::Admitted(id)))
}

/// Two nodes cannot be reached at one address.
pub(super) fn free_address(
    map: &ClusterMap,
    addresses: &Addresses,
    except: Option<NodeId>,
) -> Result<(), Rejected> {
    let mut others = map.members().filter(|(id, _)| Some(*id) != except);
    match others.find(|(_, node)| node.profile.addresses.link == addresses.link) {
        Some((id, _)) => Err(Rejected::AddressTaken(id)),
        None => Ok(()),
    }
}
