//! Nodes and shards: what is there, and changing it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Command, Printed, TokenCommand,
    client::{Client, Method},
    failure::Failure,
    print,
    show::Style,
    show_cluster,
};

/// How often a drain is looked at.
const DRAIN_EVERY: Duration = Duration::from_millis(500);
/// A drain that takes longer is looked at by hand: nothing is lost when the command ends.
const DRAIN_MAX: Duration = Duration::from_hours(1);

pub(super) async fn run(
    client: &Client,
    command: Command,
    style: Style,
) -> Result<Printed, Failure> {
    match command {
        Command::Nodes { .. } => {
            let nodes = client.get(&["api", "v1", "cluster", "nodes"], &[]).await?;
            Ok(print(style.value(&nodes, show_cluster::nodes)))
        },
        Command::Shards { trouble, .. } => {
            let mut shards = client.get(&["api", "v1", "cluster", "shards"], &[]).await?;
            if trouble && let Some(items) = shards.get_mut("items").and_then(Value::as_array_mut) {
                items.retain(|shard| shard["state"] != "ok");
            }
            Ok(print(style.value(&shards, show_cluster::shards)))
        },
        Command::Drain { node, wait } => {
            change_node(client, node, "drain", json!({})).await?;
            if wait {
                emptied(client, node).await?;
                return Ok(noted(format!(
                    "node {node} is empty: stop it, `umbel ctl remove {node}`, or `umbel ctl undrain {node}`\n"
                )));
            }
            Ok(noted(format!(
                "node {node} is being emptied; `umbel ctl nodes --watch` shows how far it is\n"
            )))
        },
        Command::Undrain { node } => {
            change_node(client, node, "undrain", json!({})).await?;
            Ok(noted(format!(
                "node {node} gets shards and clients again\n"
            )))
        },
        Command::Remove { node, force } => {
            change_node(client, node, "remove", json!({ "force": force })).await?;
            Ok(noted(format!(
                "node {node} is no part of the cluster any more, and its number is never used again. If it runs, it ends by \
                 itself (exit code 3).\nTo use its machine again, empty its data folder and let it join with a new token.\n"
            )))
        },
        Command::Transfer { shard, node } => {
            let path = [
                "api",
                "v1",
                "cluster",
                "shards",
                &shard.to_string(),
                "transfer",
            ];
            post(client, &path, json!({ "to": node })).await?;
            Ok(noted(format!("node {node} owns shard {shard}\n")))
        },
        Command::Token {
            command: TokenCommand::Create { ttl },
        } => {
            let path = ["api", "v1", "cluster", "tokens"];
            let made = post(client, &path, json!({ "ttl_seconds": ttl.as_secs() })).await?;
            Ok(print(style.value(&made, show_cluster::token)))
        },
        Command::Status
        | Command::Devices(_)
        | Command::Device { .. }
        | Command::Shadow { .. }
        | Command::Clients { .. }
        | Command::Kick { .. } => Err(Failure::Usage("not a command of the cluster".to_owned())),
    }
}

async fn change_node(
    client: &Client,
    node: u64,
    verb: &'static str,
    body: Value,
) -> Result<Value, Failure> {
    let path = ["api", "v1", "cluster", "nodes", &node.to_string(), verb];
    post(client, &path, body).await
}

async fn post(client: &Client, path: &[&str], body: Value) -> Result<Value, Failure> {
    client.send(Method::POST, path, &[], Some(body), None).await
}

/// Waits until a node keeps no shard and no client.
async fn emptied(client: &Client, node: u64) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let nodes = client.get(&["api", "v1", "cluster", "nodes"], &[]).await?;
        let mut items = nodes
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let found = items.find(|one| one["id"] == node);
        // Removed meanwhile: there is nothing left to empty.
        let Some(found) = found else { return Ok(()) };
        let left = ["owned", "copies", "connections"].map(|key| found[key].as_u64());
        // That it is empty is written down a moment later, and only then it may be removed.
        if left.iter().all(|count| *count == Some(0)) && found["state"] != "draining" {
            return Ok(());
        }
        if found["draining"] == false {
            let detail = format!("somebody ended the drain of node {node}");
            return Err(Failure::Refused {
                status: 409,
                detail,
            });
        }
        if began.elapsed() > DRAIN_MAX {
            let detail = format!("node {node} is not empty yet; the drain goes on");
            return Err(Failure::Refused {
                status: 503,
                detail,
            });
        }
        sleep(DRAIN_EVERY).await;
    }
}

fn noted(note: String) -> Printed {
    Printed {
        note,
        ..Printed::default()
    }
}
