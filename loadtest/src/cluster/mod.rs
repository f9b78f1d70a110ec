//! `umbel-loadtest cluster`: starts nodes as processes and measures what being three costs and gives.
//!
//! Everything is seen from outside: ports, `/proc`, `/metrics`. Nodes are started with their defaults.

mod cross;
mod devices;
mod http;
mod idle;
mod nodes;
mod reconnect;
mod write;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde::Serialize;
use tempfile::TempDir;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// CPU and memory of nodes that have nothing to do.
    Idle(idle::IdleArgs),
    /// Shadow updates, durable on every replica, beside a cluster of one.
    Write(write::WriteArgs),
    /// What it adds to a message when its subscriber is on another node.
    Cross(cross::CrossArgs),
    /// A node is killed, and its devices come back to the others.
    Reconnect(reconnect::ReconnectArgs),
    /// The devices of one node, played by a process of their own (used by `reconnect`).
    #[command(hide = true)]
    Devices(devices::DevicesArgs),
}

/// What all measurements need.
#[derive(Args)]
pub(crate) struct Common {
    /// The umbel program.
    #[arg(long, default_value = "target/release/umbel")]
    umbel: PathBuf,
    /// Folder for data and logs of the nodes; a temporary one if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures.
pub(crate) async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Idle(args) => idle::run(args).await,
        Verb::Write(args) => write::run(args).await,
        Verb::Cross(args) => cross::run(args).await,
        Verb::Reconnect(args) => reconnect::run(args).await,
        Verb::Devices(args) => devices::run(args).await,
    }
}

/// Where nodes keep their files: removed at the end if nobody named it.
enum Folder {
    Named(PathBuf),
    Temporary(TempDir),
}

impl Folder {
    fn new(common: &Common) -> Result<Self> {
        match &common.folder {
            None => Ok(Self::Temporary(tempfile::tempdir()?)),
            Some(folder) => {
                fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                Ok(Self::Named(folder.clone()))
            },
        }
    }

    /// A new folder in it.
    fn part(&self, name: &str) -> Result<PathBuf> {
        let folder = match self {
            Self::Named(folder) => folder.join(name),
            Self::Temporary(folder) => folder.path().join(name),
        };
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }
}

/// A result, and how busy the machine was.
#[derive(Serialize)]
struct Measured<T> {
    load_before: String,
    load_after: String,
    result: T,
}

/// Load averages of one, five and fifteen minutes.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    let averages: Vec<&str> = text.split(' ').take(3).collect();
    Ok(averages.join(" "))
}

/// Says how busy the machine was, and writes the JSON.
fn conclude<T: Serialize>(common: &Common, load_before: String, result: T) -> Result<()> {
    let load_after = load()?;
    println!("load average {load_before} before, {load_after} after");
    let measured = Measured {
        load_before,
        load_after,
        result,
    };
    if let Some(path) = &common.json {
        fs::write(path, serde_json::to_vec_pretty(&measured)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
