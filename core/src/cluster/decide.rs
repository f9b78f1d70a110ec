//! From a command to the rows it changes.
//!
//! Laws: a refused command changes nothing; a command asked again under its name gets its first answer and changes
//! nothing; a node id is given once; a token lets one key in.

use super::{
    command::{Command, Decision, Outcome, Rejected, Request},
    join,
    map::{ClusterMap, Counters, GossipKey, Remembered, Row},
    node::{Addresses, Node, NodeState, Roles, check_text},
    secret::Secret,
    shards,
};
use crate::{ids::NodeId, time::Timestamp};

/// Commands that are remembered. A retry comes within seconds, and commands are rare.
const REMEMBERED_MAX: u64 = 256;
/// Keys that seal gossip: the one in use, the next, and one for packets on their way.
const GOSSIP_KEYS_MAX: usize = 3;
/// Bytes of a key that seals gossip.
pub(super) const GOSSIP_KEY_BYTES: usize = 32;

/// Decides a command on the map as of now.
pub fn decide(map: &ClusterMap, request: &Request, now: Timestamp) -> Result<Decision, Rejected> {
    if let Some(outcome) = map.remembered(request.id) {
        return Ok(Decision {
            rows: Vec::new(),
            outcome: *outcome,
        });
    }
    let made = map.identity.is_some();
    if !made && !matches!(request.command, Command::Init(_)) {
        return Err(Rejected::NotInitialised);
    }
    let mut counters = map.counters;
    let (mut rows, outcome) = match counted(map, &request.command, now, &mut counters)? {
        Some(decided) => decided,
        None => (plain(map, &request.command)?, Outcome::Done),
    };
    if rows.is_empty() {
        return Ok(Decision { rows, outcome });
    }
    let place = counters.next_request;
    counters.next_request += 1;
    counters.revision += 1;
    let remembered = Remembered {
        id: request.id,
        outcome,
    };
    rows.push(Row::Request(place, Some(remembered)));
    let forgotten = map
        .requests
        .keys()
        .filter(|old| **old + REMEMBERED_MAX <= place);
    rows.extend(forgotten.map(|old| Row::Request(*old, None)));
    rows.push(Row::Counters(counters));
    Ok(Decision { rows, outcome })
}

/// Commands that move a counter of their own; `None` for all others.
fn counted(
    map: &ClusterMap,
    command: &Command,
    now: Timestamp,
    counters: &mut Counters,
) -> Result<Option<(Vec<Row>, Outcome)>, Rejected> {
    Ok(Some(match command {
        Command::Init(init) => join::init(map, init, counters)?,
        Command::Admit {
            token,
            key,
            profile,
        } => join::admit(map, (*token, *key), profile, now, counters)?,
        Command::CreateToken { hash, lives } => {
            let rows = join::create_token(map, *hash, *lives, now)?;
            (rows, Outcome::Done)
        },
        Command::RotateGossipKey { key } => {
            let rows = rotate(map, counters.next_key, key, now)?;
            counters.next_key += 1;
            (rows, Outcome::Done)
        },
        Command::Report { .. }
        | Command::SetRoles { .. }
        | Command::SetZone { .. }
        | Command::Drain { .. }
        | Command::Undrain { .. }
        | Command::Drained { .. }
        | Command::Remove { .. }
        | Command::Assign { .. }
        | Command::Prefer { .. }
        | Command::Set { .. } => return Ok(None),
    }))
}

/// Commands that move no counter of their own.
fn plain(map: &ClusterMap, command: &Command) -> Result<Vec<Row>, Rejected> {
    match command {
        Command::Report {
            node,
            addresses,
            version,
        } => report(map, *node, addresses, version),
        Command::SetRoles { node, roles } => set_roles(map, *node, *roles),
        Command::SetZone { node, zone } => {
            check_text("zone", zone)?;
            change(map, *node, |node| node.profile.zone.clone_from(zone))
        },
        Command::Drain { node } => drain(map, *node),
        Command::Undrain { node } => step(
            map,
            *node,
            &[NodeState::Draining, NodeState::Drained],
            NodeState::Active,
        ),
        Command::Drained { node } => step(map, *node, &[NodeState::Draining], NodeState::Drained),
        Command::Remove { node, force } => remove(map, *node, *force),
        Command::Assign {
            shard,
            replicas,
            learners,
            epoch,
        } => shards::assign(map, *shard, (replicas, learners), *epoch),
        Command::Prefer { shard, node } => shards::prefer(map, *shard, *node),
        Command::Set { settings } => Ok(if *settings == map.settings {
            Vec::new()
        } else {
            vec![Row::Settings(*settings)]
        }),
        // Decided above: they move counters.
        Command::Init(_)
        | Command::CreateToken { .. }
        | Command::Admit { .. }
        | Command::RotateGossipKey { .. } => Err(Rejected::Invalid {
            what: "command".into(),
        }),
    }
}

fn member(map: &ClusterMap, id: NodeId) -> Result<&Node, Rejected> {
    let node = map.nodes.get(&id).ok_or(Rejected::UnknownNode(id))?;
    if node.is_member() {
        Ok(node)
    } else {
        Err(in_state(id, node))
    }
}

fn in_state(id: NodeId, node: &Node) -> Rejected {
    Rejected::NodeState {
        node: id,
        state: node.state,
    }
}

/// The row of a changed node; none if it is so already.
fn change(
    map: &ClusterMap,
    id: NodeId,
    edit: impl FnOnce(&mut Node),
) -> Result<Vec<Row>, Rejected> {
    let before = member(map, id)?;
    let mut after = before.clone();
    edit(&mut after);
    Ok(if after == *before {
        Vec::new()
    } else {
        vec![Row::Node(id, after)]
    })
}

/// Takes a node from one of some states to another.
fn step(
    map: &ClusterMap,
    id: NodeId,
    from: &[NodeState],
    to: NodeState,
) -> Result<Vec<Row>, Rejected> {
    let node = member(map, id)?;
    if node.state == to {
        return Ok(Vec::new());
    }
    if !from.contains(&node.state) {
        return Err(in_state(id, node));
    }
    change(map, id, |node| node.state = to)
}

fn report(
    map: &ClusterMap,
    id: NodeId,
    addresses: &Addresses,
    version: &str,
) -> Result<Vec<Row>, Rejected> {
    addresses.check()?;
    check_text("version", version)?;
    join::free_address(map, addresses, Some(id))?;
    change(map, id, |node| {
        node.profile.addresses.clone_from(addresses);
        version.clone_into(&mut node.profile.version);
        if node.state == NodeState::Joining {
            node.state = NodeState::Active;
        }
    })
}

fn set_roles(map: &ClusterMap, id: NodeId, roles: Roles) -> Result<Vec<Row>, Rejected> {
    if member(map, id)?.is_active() {
        if !roles.voter {
            others(map, id, "voter", |roles| roles.voter)?;
        }
        if !roles.shards {
            others(map, id, "shards", |roles| roles.shards)?;
        }
    }
    change(map, id, |node| node.profile.roles = roles)
}

fn drain(map: &ClusterMap, id: NodeId) -> Result<Vec<Row>, Rejected> {
    let node = member(map, id)?;
    if node.state == NodeState::Drained {
        return Ok(Vec::new());
    }
    if node.is_active() {
        leave(map, id, node)?;
    }
    step(map, id, &[NodeState::Active], NodeState::Draining)
}

fn remove(map: &ClusterMap, id: NodeId, force: bool) -> Result<Vec<Row>, Rejected> {
    let node = map.nodes.get(&id).ok_or(Rejected::UnknownNode(id))?;
    match node.state {
        NodeState::Removed => return Ok(Vec::new()),
        NodeState::Joining | NodeState::Drained => {},
        NodeState::Active | NodeState::Draining if force => leave(map, id, node)?,
        NodeState::Active | NodeState::Draining => return Err(in_state(id, node)),
    }
    let mut rows = change(map, id, |node| node.state = NodeState::Removed)?;
    // A node that was let in and never came must not come with its old token either.
    let tokens = map.tokens.iter();
    let spent = tokens.filter(|(_, token)| token.used.is_some_and(|used| used.node == id));
    rows.extend(spent.map(|(hash, _)| Row::Token(*hash, None)));
    Ok(rows)
}

/// Refuses to leave a duty without anybody who could do it.
fn leave(map: &ClusterMap, id: NodeId, node: &Node) -> Result<(), Rejected> {
    if node.profile.roles.voter {
        others(map, id, "voter", |roles| roles.voter)?;
    }
    if node.profile.roles.shards {
        others(map, id, "shards", |roles| roles.shards)?;
    }
    Ok(())
}

fn others(
    map: &ClusterMap,
    id: NodeId,
    role: &'static str,
    has: fn(&Roles) -> bool,
) -> Result<(), Rejected> {
    let mut rest = map.nodes.iter().filter(|(other, _)| **other != id);
    if rest.any(|(_, node)| node.is_active() && has(&node.profile.roles)) {
        Ok(())
    } else {
        Err(Rejected::LastNode {
            node: id,
            role: role.into(),
        })
    }
}

fn rotate(map: &ClusterMap, id: u32, key: &Secret, now: Timestamp) -> Result<Vec<Row>, Rejected> {
    if key.expose().len() != GOSSIP_KEY_BYTES {
        return Err(Rejected::Invalid {
            what: "gossip key".into(),
        });
    }
    // While the newest key is not spoken yet, a further one would push out the one that is.
    let newest = map.gossip_keys.last_key_value();
    if newest.is_some_and(|(id, _)| map.spoken_key(now) != Some(*id)) {
        return Err(Rejected::TooMany {
            what: "gossip keys on their way".into(),
            max: 1,
        });
    }
    let added = GossipKey {
        key: key.clone(),
        created_at: now,
    };
    let mut rows = vec![Row::GossipKey(id, Some(added))];
    let excess = (map.gossip_keys.len() + 1).saturating_sub(GOSSIP_KEYS_MAX);
    let oldest = map.gossip_keys.keys().take(excess);
    rows.extend(oldest.map(|id| Row::GossipKey(*id, None)));
    Ok(rows)
}
