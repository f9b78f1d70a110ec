//! Nodes and shards as tables: one look tells what is down and why.

use serde_json::Value;

use super::{
    show::{Style, cell, items, text},
    table::{Cell, Color, columns},
};

pub(super) fn nodes(body: &Value, style: Style) -> String {
    let head = [
        "NODE", "STATE", "META", "OWNS", "COPIES", "LAG", "CLIENTS", "ZONE", "ROLES", "ADDRESS",
        "VERSION", "WHY",
    ];
    let rows = items(body, "items").map(|node| {
        let is_me = node["is_me"].as_bool().unwrap_or_default();
        let id = format!("{}{}", text(&node["id"]), if is_me { "*" } else { "" });
        vec![
            Cell::new(&id),
            state(&node["state"]),
            cell(node, "meta"),
            cell(node, "owned"),
            cell(node, "copies"),
            lag(&node["lag"]),
            cell(node, "connections"),
            cell(node, "zone"),
            Cell::new(&list(&node["roles"])),
            cell(node, "address"),
            cell(node, "version"),
            Cell::new(&reasons(&node["why"])),
        ]
    });
    columns(&head, rows.collect(), style.is_colored)
}

pub(super) fn shards(body: &Value, style: Style) -> String {
    let head = ["SHARD", "STATE", "OWNER", "TERM", "COPIES", "LAG", "WHY"];
    let rows = items(body, "items").map(|shard| {
        let owner = text(&shard["owner"]);
        let is_settled = shard["owner"] == shard["preferred"] || shard["preferred"].is_null();
        let owner = match (owner.is_empty(), is_settled) {
            (true, _) => Cell::new("nobody").colored(Color::Bad),
            (false, true) => Cell::new(&owner),
            (false, false) => {
                let text = format!("{owner} (should be {})", text(&shard["preferred"]));
                Cell::new(&text).colored(Color::Warning)
            },
        };
        let most = items(shard, "copies").filter_map(|copy| copy["lag"].as_u64());
        let most = most.max().map_or(Value::Null, Value::from);
        let copies: Vec<_> = items(shard, "copies").map(copy).collect();
        vec![
            cell(shard, "id"),
            state(&shard["state"]),
            owner,
            Cell::new(&term(&shard["term"])),
            Cell::new(&copies.join(", ")),
            lag(&most),
            Cell::new(&reasons(&shard["why"])),
        ]
    });
    columns(&head, rows.collect(), style.is_colored)
}

/// Alone on its line, so that a script can take it as it is.
pub(super) fn token(body: &Value, _style: Style) -> String {
    format!("{}\n", text(&body["token"]))
}

/// How often the owner changed. The lower bits are the owner's number, which has a column.
fn term(value: &Value) -> String {
    const NODE_BITS: u32 = 24;
    let changes = value.as_u64().map(|term| term >> NODE_BITS);
    changes.map_or_else(String::new, |changes| changes.to_string())
}

fn copy(copy: &Value) -> String {
    format!("{} {}", text(&copy["node"]), text(&copy["role"]))
}

fn state(value: &Value) -> Cell {
    let word = text(value);
    let color = match word.as_str() {
        "up" | "ok" => Color::Good,
        "down" | "unreachable" | "no-quorum" | "no-owner" => Color::Bad,
        _ => Color::Warning,
    };
    Cell::new(&word).colored(color)
}

/// A copy that is a batch behind is usual; one that is far behind is worth a look.
fn lag(value: &Value) -> Cell {
    const FAR: u64 = 1000;
    let cell = Cell::new(&text(value));
    if value.as_u64().is_some_and(|entries| entries >= FAR) {
        cell.colored(Color::Warning)
    } else {
        cell
    }
}

fn list(value: &Value) -> String {
    joined(value, ",")
}

fn reasons(value: &Value) -> String {
    joined(value, "; ")
}

fn joined(value: &Value, between: &str) -> String {
    let words: Vec<_> = value.as_array().into_iter().flatten().map(text).collect();
    words.join(between)
}
