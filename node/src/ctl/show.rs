//! Answers as tables.

use serde_json::Value;

use super::table::{Cell, Color, columns, pairs};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Style {
    pub(super) is_json: bool,
    pub(super) is_colored: bool,
}

impl Style {
    /// The value itself as JSON, or what `show` makes of it.
    pub(super) fn value(self, value: &Value, show: impl Fn(&Value, Self) -> String) -> String {
        if self.is_json {
            pretty(value)
        } else {
            show(value, self)
        }
    }
}

pub(super) fn status(body: &Value, style: Style) -> String {
    let rows = items(body, "checks").map(|check| {
        let is_ok = check.get("ok").and_then(Value::as_bool).unwrap_or_default();
        let verdict = if is_ok {
            Cell::new("ok").colored(Color::Good)
        } else {
            Cell::new("FAILS").colored(Color::Bad)
        };
        vec![cell(check, "name"), verdict, cell(check, "detail")]
    });
    columns(
        &["CHECK", "STATE", "DETAIL"],
        rows.collect(),
        style.is_colored,
    )
}

pub(super) fn devices(body: &Value, style: Style) -> String {
    let head = [
        "ID",
        "STATE",
        "SINCE",
        "REASON",
        "TYPE",
        "SITE",
        "REGION",
        "LAST SEEN",
    ];
    let rows = items(body, "items").map(|device| {
        vec![
            cell(device, "id"),
            presence(device),
            cell(device, "since"),
            cell(device, "reason"),
            cell(device, "type"),
            cell(device, "site"),
            cell(device, "region"),
            cell(device, "last_seen"),
        ]
    });
    columns(&head, rows.collect(), style.is_colored)
}

pub(super) fn device(device: &Value, style: Style) -> String {
    let mut rows = vec![
        ("id", cell(device, "id")),
        ("state", presence(device)),
        ("since", cell(device, "since")),
        ("reason", cell(device, "reason")),
        ("evidence", cell(device, "evidence")),
        ("last seen", cell(device, "last_seen")),
        ("last error", cell(&device["last_error"], "message")),
        ("type", cell(device, "type")),
        ("site", cell(device, "site")),
        ("region", cell(device, "region")),
        ("tags", entries(&device["tags"])),
        ("attributes", entries(&device["attributes"])),
        ("revision", cell(device, "revision")),
        ("configuration", cell(device, "config_version")),
        ("epoch", cell(device, "epoch")),
        ("known since", cell(device, "created_at")),
    ];
    let session = &device["session"];
    if session.is_object() {
        rows.extend([
            ("session since", cell(session, "connected_at")),
            ("protocol", cell(session, "protocol")),
            ("keep alive", cell(session, "keep_alive_seconds")),
            ("session expiry", cell(session, "expiry_seconds")),
            ("address", cell(session, "ip")),
            ("listener", cell(session, "listener")),
            ("principal", cell(session, "principal")),
        ]);
    }
    pairs(rows, style.is_colored)
}

pub(super) fn shadow(shadow: &Value, style: Style) -> String {
    let rows = vec![
        ("device", cell(shadow, "device")),
        ("name", cell(shadow, "name")),
        ("version", cell(shadow, "version")),
    ];
    let mut out = pairs(rows, style.is_colored);
    for section in ["desired", "reported", "delta"] {
        out.extend(["\n", section, "\n", &pretty(&shadow[section])]);
    }
    out
}

pub(super) fn written(shadow: &Value, style: Style) -> String {
    pairs(vec![("version", cell(shadow, "version"))], style.is_colored)
}

pub(super) fn clients(body: &Value, style: Style) -> String {
    let head = [
        "ID",
        "KIND",
        "CONNECTED",
        "SINCE",
        "MQTT",
        "ADDRESS",
        "FILTERS",
        "INFLIGHT",
        "QUEUED",
    ];
    let rows = items(body, "items").map(|client| {
        let session = &client["session"];
        let is_connected = client["connected"].as_bool().unwrap_or_default();
        let connected = if is_connected {
            Cell::new("yes").colored(Color::Good)
        } else {
            Cell::new("no").colored(Color::Faint)
        };
        vec![
            cell(client, "id"),
            cell(client, "kind"),
            connected,
            cell(session, "connected_at"),
            cell(session, "protocol"),
            cell(session, "ip"),
            cell(client, "subscriptions"),
            cell(client, "inflight"),
            cell(client, "queued"),
        ]
    });
    columns(&head, rows.collect(), style.is_colored)
}

fn presence(device: &Value) -> Cell {
    let state = text(&device["state"]);
    let color = match state.as_str() {
        "online" => Color::Good,
        "stale" => Color::Warning,
        "offline" => Color::Bad,
        _ => Color::Faint,
    };
    if device["flapping"].as_bool().unwrap_or_default() {
        return Cell::new(&format!("{state} (flapping)")).colored(Color::Warning);
    }
    Cell::new(&state).colored(color)
}

fn entries(value: &Value) -> Cell {
    let members = value.as_object().into_iter().flatten();
    let entries: Vec<_> = members
        .map(|(name, value)| format!("{name}={}", text(value)))
        .collect();
    Cell::new(&entries.join(", "))
}

pub(super) fn items<'a>(body: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    body.get(name)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

pub(super) fn cell(value: &Value, name: &str) -> Cell {
    Cell::new(&value.get(name).map(text).unwrap_or_default())
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// JSON escapes control characters, so this is fit for a terminal.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
