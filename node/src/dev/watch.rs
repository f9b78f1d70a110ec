//! Tells what happens to the nodes of `umbel dev --nodes`: who went, when the others noticed, who serves what now.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::many::Member;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was last told of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    There,
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
                tell(&format!("node {} is gone ({ended})", member.id));
                let gone = Told::Gone {
                    at: Instant::now(),
                    is_noticed: false,
                    is_mended: false,
                };
                told.insert(member.id, gone);
            }
        }
        if told.values().all(|told| *told == Told::There) {
            continue;
        }
        let Some((nodes, cluster)) = ask(members, &told).await else {
            continue;
        };
        for member in members.iter() {
            let Some(state) = told.get_mut(&member.id) else {
                continue;
            };
            if let Some(line) = next(state, member, &nodes, &cluster) {
                tell(&line);
            }
        }
    }
}

/// What to tell of a node next, if anything.
fn next(told: &mut Told, member: &Member, nodes: &Value, cluster: &Value) -> Option<String> {
    let Told::Gone {
        at,
        is_noticed,
        is_mended,
    } = told
    else {
        return None;
    };
    let took = at.elapsed().as_secs_f64();
    let state = node(nodes, member.id)?.get("state")?.as_str()?.to_owned();
    if is_up(&state) && *is_noticed {
        *told = Told::There;
        return Some(format!("node {} is back", member.id));
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
            member.config.display()
        ));
    }
    None
}

fn is_up(state: &str) -> bool {
    !matches!(state, "down" | "unreachable")
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
    let runs = |member: &&Member| told.get(&member.id) == Some(&Told::There);
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
