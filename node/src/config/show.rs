//! The configuration as it will be used, as TOML, with the origin of each value on request.

use std::fmt::Write;

use toml::{Table, Value};

use super::{Loaded, Origin};

/// Every value in force; with `origins`, each line says where it came from. Password hashes are not shown.
pub fn show(loaded: &Loaded, origins: bool) -> String {
    let mut text = String::new();
    let Ok(table) = Table::try_from(&loaded.raw) else {
        return text;
    };
    for (section, value) in &table {
        match value {
            Value::Table(keys) => {
                section_to(&mut text, &format!("[{section}]"), keys, |key| {
                    origins.then(|| origin(loaded, &format!("{section}.{key}")))
                });
                unset(&mut text, section, keys);
            },
            Value::Array(items) => {
                for keys in items.iter().filter_map(Value::as_table) {
                    section_to(&mut text, &format!("[[{section}]]"), keys, |_| {
                        origins.then(|| origin(loaded, section))
                    });
                }
            },
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {},
        }
    }
    text
}

/// Keys that have no default and were not written: TOML cannot show them as values.
const OPTIONAL: [(&str, &str); 12] = [
    ("aws", "bind"),
    ("cluster", "advertise"),
    ("cluster", "bind"),
    ("cluster", "gateway_address"),
    ("cluster", "gossip_bind"),
    ("http", "bind"),
    ("node", "id"),
    ("policy", "app"),
    ("policy", "device"),
    ("tls", "ca"),
    ("tls", "certificate"),
    ("tls", "key"),
];

fn unset(text: &mut String, section: &str, keys: &Table) {
    let unset = OPTIONAL
        .iter()
        .filter(|(of, key)| *of == section && !keys.contains_key(*key));
    // The section ends with an empty line.
    for (_, key) in unset {
        text.insert_str(
            text.len().saturating_sub(1),
            &format!("# {key} is not set\n"),
        );
    }
}

fn section_to(
    text: &mut String,
    head: &str,
    keys: &Table,
    comment: impl Fn(&str) -> Option<String>,
) {
    let mut line =
        |line: String| writeln!(text, "{line}").expect("writing to a String cannot fail");
    line(head.to_owned());
    for (key, value) in keys {
        let shown = if key == "password_hash" {
            "\"…\"".to_owned()
        } else {
            value.to_string()
        };
        match comment(key) {
            Some(comment) => line(format!("{key} = {shown}  # {comment}")),
            None => line(format!("{key} = {shown}")),
        }
    }
    line(String::new());
}

fn origin(loaded: &Loaded, key: &str) -> String {
    match loaded.origins.get(key) {
        Some(Origin::File(path)) => path.display().to_string(),
        Some(Origin::Environment(name)) => format!("environment {name}"),
        None => "default".to_owned(),
    }
}
