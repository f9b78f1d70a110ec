//! A program that breaks a node and judges it.
//!
//! `kill` kills and restarts the process under load again and again; `powercut` does the same and throws away everything
//! the disk was not told to keep; `rubbish` sends malformed packets beside a neighbour that must not notice. The first
//! two record what clients were told and what they saw, and [`oracle`] judges it. A run
//! that compared nothing, or whose controls misbehave, is void, which is a failure.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to a person"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a client passes over packets it did not ask for"
)]

mod campaign;
mod cluster;
mod control;
mod disk;
mod history;
mod http;
mod oracle;
mod process;
mod queue;
mod report;
mod rubbish;
mod seeds;
mod site;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "umbel-chaos", version, about = "Breaks a node and judges it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kill the process (SIGKILL) under load, restart it, and check the history.
    Kill(campaign::Options),
    /// Cut the power of its disk under load. Needs root, a loop device and `xfs_io`.
    Powercut(campaign::Options),
    /// Kill, pause, restart and cut off nodes of a cluster under load, and check the history. Partitions need root.
    Cluster(cluster::Options),
    /// Send malformed packets over many connections, beside a neighbour that must not notice.
    Rubbish(rubbish::Options),
    /// A writer whose behaviour is known: proves that the cut cuts and the check checks.
    #[command(hide = true)]
    Control(control::Options),
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Kill(options) => campaign::kill(options).await,
        Command::Powercut(options) => campaign::powercut(options).await,
        Command::Cluster(options) => cluster::run(options).await,
        Command::Rubbish(options) => rubbish::run(options).await,
        Command::Control(options) => control::write(&options).map(|()| ExitCode::SUCCESS),
    }
}
