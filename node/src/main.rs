//! The `umbel` program.

use std::process::ExitCode;

use clap::Parser;
use umbel_node::{cli::Cli, run};

#[tokio::main]
async fn main() -> ExitCode {
    run::run(Cli::parse()).await
}
