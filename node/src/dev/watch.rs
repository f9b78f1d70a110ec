//! Tells what happens to the nodes of `umbel dev --nodes`: who went, when the others noticed, who serves what now.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::many::Member;
use crate::run::REMOVED;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was last told of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    There,
    /// It runs again, in a process that somebody else started: its end shows in the cluster only.
    Back,
    /// It is none of the cluster's nodes any more.
    Removed,
    /// Its process ended then.
    Gone {
        at: Instant,
        is_noticed: bool,
        is_mended: bool,
    },
}

/// Looks until the future is dropped; `tell` gets one line at a time.
pub(super) async fn watch(members: &mut [Member], mut tell: impl FnMut(&str)) {
    let mut told: BTreeMap<u64, Told> = members.iter().map(|m| (m.id, Told::There)).collect();
    loop {
        sleep(LOOK_EVERY).await;
        for member in members.iter_mut() {
            if told.get(&member.id) == Some(&Told::There)
                && let Ok(Some(ended)) = member.child.try_wait()
            {
                let (line, now) = if ended.code() == Some(REMOVED.into()) {
                    (removed(member.id), Told::Removed)
                } else {
                    let line = format!("node {} is gone ({ended})", member.id);
                    (line, Told::gone(false))
                };
                tell(&line);
                told.insert(member.id, now);
            }
        }
        if told
            .values()
            .all(|told| matches!(told, Told::There | Told::Removed))
        {
            continue;
        }
        let Some((nodes, cluster)) = ask(members, &told).await else {
            continue;
        };
        for member in members.iter() {
            let Some(state) = told.get_mut(&member.id) else {
                continue;
            };
            if let Some(line) = next(state, member.id, &member.config, &nodes, &cluster) {
                tell(&line);
            }
        }
    }
}

impl Told {
    fn gone(is_noticed: bool) -> Self {
        Self::Gone {
            at: Instant::now(),
            is_noticed,
            is_mended: false,
        }
    }
}

fn removed(id: u64) -> String {
    format!("node {id} was removed from the cluster and has ended")
}

/// What to tell of a node next, if anything.
fn next(told: &mut Told, id: u64, config: &Path, nodes: &Value, cluster: &Value) -> Option<String> {
    let (at, is_noticed, is_mended) = match told {
        Told::There | Told::Removed => return None,
        Told::Back => {
            let state = node(nodes, id).map(|node| &node["state"]);
            let state = state.and_then(Value::as_str).unwrap_or("removed");
            if is_up(state) {
                return None;
            }
            let line = format!("node {id} is gone again: it is {state}");
            *told = if state == "removed" {
                Told::Removed
            } else {
                Told::gone(true)
            };
            return Some(line);
        },
        Told::Gone {
            at,
            is_noticed,
            is_mended,
        } => (at, is_noticed, is_mended),
    };
    let took = at.elapsed().as_secs_f64();
    let Some(node) = node(nodes, id) else {
        *told = Told::Removed;
        return Some(removed(id));
    };
    let state = node.get("state")?.as_str()?.to_owned();
    if is_up(&state) && *is_noticed {
        *told = Told::Back;
        return Some(format!("node {id} is back"));
    }
    if !is_up(&state) && !*is_noticed {
        *is_noticed = true;
        return Some(format!(
            "  the others noticed after {took:.1} s: it is {state}"
        ));
    }
    let is_served = cluster.get("shards_served") == cluster.get("shards");
    if *is_noticed && !*is_mended && is_served {
        *is_mended = true;
        return Some(format!(
            "  every shard is served again after {took:.1} s: {}\n  start it again: umbel node --config {}",
            owners(nodes),
            config.display()
        ));
    }
    None
}

fn is_up(state: &str) -> bool {
    !matches!(state, "down" | "unreachable" | "removed")
}

/// Who owns how many shards.
pub(super) fn owners(nodes: &Value) -> String {
    let owner = |node: &Value| {
        let (id, owned) = (node.get("id")?.as_u64()?, node.get("owned")?.as_u64()?);
        (owned > 0).then(|| format!("node {id} owns {owned}"))
    };
    let owners: Vec<_> = items(nodes).filter_map(owner).collect();
    owners.join(", ")
}

fn node(nodes: &Value, id: u64) -> Option<&Value> {
    items(nodes).find(|node| node.get("id").and_then(Value::as_u64) == Some(id))
}

fn items(nodes: &Value) -> impl Iterator<Item = &Value> {
    let items = nodes.get("items").and_then(Value::as_array);
    items.into_iter().flatten()
}

/// Nodes and cluster, in the words of any node that runs.
async fn ask(members: &[Member], told: &BTreeMap<u64, Told>) -> Option<(Value, Value)> {
    let runs = |member: &&Member| {
        let told = told.get(&member.id);
        matches!(told, Some(Told::There | Told::Back))
    };
    for member in members.iter().filter(runs) {
        let client = member.client().ok()?;
        let nodes = client.get(&["api", "v1", "cluster", "nodes"], &[]).await;
        let cluster = client.get(&["api", "v1", "cluster"], &[]).await;
        if let (Ok(nodes), Ok(cluster)) = (nodes, cluster) {
            return Some((nodes, cluster));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is told, one look after the other, while a node is seen in these states.
    fn told(told: &mut Told, states: &[Option<&str>]) -> Vec<String> {
        let looks = states.iter().filter_map(|state| {
            let items: Vec<_> = state
                .iter()
                .map(|s| json!({ "id": 3, "state": s }))
                .collect();
            let (nodes, cluster) = (json!({ "items": items }), json!({}));
            next(told, 3, Path::new("umbel.toml"), &nodes, &cluster)
        });
        let first = |line: String| line.lines().next().unwrap_or_default().trim().to_owned();
        let cut = |line: String| line.split(" after ").next().unwrap_or_default().to_owned();
        looks.map(first).map(cut).collect()
    }

    #[test]
    fn a_node_that_somebody_else_started_again_is_back_and_not_gone_at_once() {
        let mut node = Told::gone(false);
        let (down, up) = (Some("down"), Some("up"));
        assert_eq!(
            told(&mut node, &[up, down, down, up, up, up]),
            [
                "the others noticed",
                "every shard is served again",
                "node 3 is back"
            ]
        );
        assert_eq!(node, Told::Back);
        assert_eq!(
            told(
                &mut node,
                &[Some("draining"), Some("unreachable"), down, up]
            ),
            [
                "node 3 is gone again: it is unreachable",
                "every shard is served again",
                "node 3 is back"
            ]
        );
    }

    #[test]
    fn a_dead_node_that_is_removed_is_told_once() {
        let mut node = Told::gone(true);
        assert_eq!(
            told(&mut node, &[Some("down"), None, None]),
            [
                "every shard is served again",
                "node 3 was removed from the cluster and has ended"
            ]
        );
    }
}
