//! `umbel ctl`: the API of a node on the command line.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 it was done; 1 it could not be
//! done (no answer, or a fault or overload of the server); 2 it was asked wrongly; 3 there is no such thing, or it is not in
//! the state that was asked for.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    process::ExitCode,
};

mod args;
pub(crate) mod client;
mod cluster;
pub(crate) mod failure;
mod show;
mod show_cluster;
mod table;

pub use args::{Command, CtlArgs, Output, ShadowCommand, TokenCommand};

use args::{DeviceFilter, ShadowText};
use client::{Client, Method, Reply};
use failure::Failure;
use serde_json::{Map, Value, json};
use show::Style;

/// Entries of a page, the most the API gives.
const PAGE: usize = 1000;

/// How often `--watch` looks again.
const WATCH_EVERY: std::time::Duration = std::time::Duration::from_secs(2);

/// What a command comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Printed {
    /// For standard output.
    out: String,
    /// For standard error.
    note: String,
}

/// Runs one command and tells how it went.
pub async fn run(args: CtlArgs) -> ExitCode {
    let style = Style {
        is_json: args.output == Output::Json,
        is_colored: args.no_color.as_deref().unwrap_or_default().is_empty()
            && stdout().is_terminal(),
    };
    let mut done = execute(&args, style).await;
    while args.command.is_watched() && done.is_ok() {
        if !redraw(&mut done, style) {
            break;
        }
        tokio::time::sleep(WATCH_EVERY).await;
        done = execute(&args, style).await;
    }
    let (printed, code) = match done {
        Ok(printed) => (printed, 0),
        Err(failure) => {
            let note = format!("umbel ctl: {failure}\n");
            (
                Printed {
                    out: failure.shown().to_owned(),
                    note,
                },
                failure.exit_code(),
            )
        },
    };
    // Nobody is left to tell when a pipe is closed.
    drop(
        stdout()
            .write_all(printed.out.as_bytes())
            .and_then(|()| stdout().flush()),
    );
    drop(stderr().write_all(printed.note.as_bytes()));
    ExitCode::from(code)
}

/// Shows a result in place of the one before; false when nobody looks any more.
fn redraw(done: &mut Result<Printed, Failure>, style: Style) -> bool {
    let Ok(printed) = done else { return false };
    // Home and clear below: no flicker, and nothing of a longer page is left.
    let clear = if stdout().is_terminal() && !style.is_json {
        "\x1b[H\x1b[2J"
    } else {
        ""
    };
    let text = format!("{clear}{}", std::mem::take(&mut printed.out));
    let shown = stdout().write_all(text.as_bytes());
    shown.and_then(|()| stdout().flush()).is_ok()
}

async fn execute(args: &CtlArgs, style: Style) -> Result<Printed, Failure> {
    let client = Client::new(&args.server)?;
    match args.command.clone() {
        Command::Status => status(&client, style).await,
        Command::Devices(filter) => devices(&client, &filter, style).await,
        Command::Device { id } => {
            let device = client.get(&["api", "v1", "devices", &id], &[]).await?;
            Ok(print(style.value(&device, show::device)))
        },
        Command::Shadow { command } => shadow(&client, command, style).await,
        command @ (Command::Nodes { .. }
        | Command::Shards { .. }
        | Command::Drain { .. }
        | Command::Undrain { .. }
        | Command::Remove { .. }
        | Command::Transfer { .. }
        | Command::Token { .. }) => cluster::run(&client, command, style).await,
        Command::Clients { limit, all } => {
            let page = list(&client, "clients", Vec::new(), limit, all).await?;
            Ok(page.print(style, show::clients))
        },
        Command::Kick {
            id,
            clean_session,
            prevent_will,
        } => {
            let query = [
                ("clean_session", clean_session.to_string()),
                ("prevent_will", prevent_will.to_string()),
            ];
            client
                .send(
                    Method::DELETE,
                    &["api", "v1", "clients", &id],
                    &query,
                    None,
                    None,
                )
                .await?;
            Ok(Printed {
                note: format!("kicked {id}\n"),
                ..Printed::default()
            })
        },
    }
}

async fn status(client: &Client, style: Style) -> Result<Printed, Failure> {
    let query = [("verbose", "true".to_owned())];
    let Reply { status, body } = client
        .ask(Method::GET, &["readyz"], &query, None, None)
        .await?;
    let is_report = body.get("checks").is_some();
    if !is_report {
        return Err(Failure::of_answer(status, &body));
    }
    let shown = style.value(&body, show::status);
    if status == 200 {
        Ok(print(shown))
    } else {
        Err(Failure::NotReady { shown })
    }
}

async fn devices(client: &Client, filter: &DeviceFilter, style: Style) -> Result<Printed, Failure> {
    let mut query = Vec::new();
    query.extend(filter.state.iter().map(|state| ("state", state.clone())));
    query.extend(filter.tag.iter().map(|tag| ("tag", tag.clone())));
    let texts = [
        ("type", &filter.kind),
        ("site", &filter.site),
        ("region", &filter.region),
    ];
    for (name, text) in texts {
        query.extend(text.iter().map(|text| (name, text.clone())));
    }
    let page = list(client, "devices", query, filter.limit, filter.all).await?;
    Ok(page.print(style, show::devices))
}

async fn shadow(client: &Client, command: ShadowCommand, style: Style) -> Result<Printed, Failure> {
    match command {
        ShadowCommand::Get { device, name } => {
            let path = ["api", "v1", "devices", &device, "shadows", &name];
            let shadow = client.get(&path, &[]).await?;
            Ok(print(style.value(&shadow, show::shadow)))
        },
        ShadowCommand::Set {
            device,
            name,
            desired,
            reported,
            if_version,
            replace,
        } => {
            let path = ["api", "v1", "devices", &device, "shadows", &name];
            let mut sections = Map::new();
            for (section, text) in [("desired", desired), ("reported", reported)] {
                if let Some(text) = text {
                    sections.insert(section.to_owned(), text.read(section)?);
                }
            }
            let method = if replace { Method::PUT } else { Method::PATCH };
            let body = Some(Value::Object(sections));
            let written = client.send(method, &path, &[], body, if_version).await?;
            Ok(print(style.value(&written, show::written)))
        },
    }
}

impl ShadowText {
    /// The JSON object that was given, in place or in a file.
    fn read(&self, section: &str) -> Result<Value, Failure> {
        let text = match self {
            Self::Json(text) => text.clone(),
            Self::File(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?,
            Self::Input => std::io::read_to_string(std::io::stdin())
                .map_err(|error| Failure::Usage(format!("standard input: {error}")))?,
        };
        match serde_json::from_str(&text) {
            Ok(value @ (Value::Object(_) | Value::Null)) => Ok(value),
            Ok(_) => Err(Failure::Usage(format!(
                "--{section} must be a JSON object or null"
            ))),
            Err(error) => Err(Failure::Usage(format!("--{section}: {error}"))),
        }
    }
}

/// Entries of a list, and whether there are more.
struct Listed {
    items: Vec<Value>,
    is_more: bool,
}

impl Listed {
    fn print(self, style: Style, show: impl Fn(&Value, Style) -> String) -> Printed {
        let note = if self.is_more {
            "there are more: use --limit or --all\n"
        } else {
            ""
        };
        let out = style.value(&json!({ "items": self.items }), show);
        Printed {
            out,
            note: note.to_owned(),
        }
    }
}

/// Pages until `limit` entries are there, or all.
async fn list(
    client: &Client,
    what: &str,
    filter: Vec<(&'static str, String)>,
    limit: usize,
    all: bool,
) -> Result<Listed, Failure> {
    let limit = if all { usize::MAX } else { limit };
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let mut query = filter.clone();
        query.push(("limit", PAGE.min(limit - items.len()).to_string()));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let mut page = client.get(&["api", "v1", what], &query).await?;
        if let Some(Value::Array(entries)) = page.get_mut("items").map(Value::take) {
            items.extend(entries);
        }
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || items.len() >= limit {
            return Ok(Listed {
                items,
                is_more: cursor.is_some(),
            });
        }
    }
}

fn print(out: String) -> Printed {
    Printed {
        out,
        ..Printed::default()
    }
}

#[cfg(test)]
mod tests;
