//! A program that plays a fleet: connects devices, keeps them beating, changes their shadows, and measures.
//!
//! It sees a server only from outside. `run` loads one that is there; `compare` starts Umbel and mosquitto and gives
//! both the same work in one run, because on a shared machine only ratios mean anything; `cluster` starts three nodes,
//! and beside them a cluster of one where the ratio is what counts.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to a person"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "counts and sizes far below 2^52"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a client passes over packets it did not ask for"
)]

mod backoff;
mod client;
mod cluster;
mod compare;
mod fleet;
mod process;
mod profile;
mod report;
mod sample;
mod tls;

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use tokio::time::{interval, sleep};

use crate::{client::Target, fleet::Fleet, profile::Profile, report::Report, sample::Samples};

#[derive(Parser)]
#[command(
    name = "umbel-loadtest",
    version,
    about = "Plays a fleet of devices and measures"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a server that is running.
    Run(RunArgs),
    /// Give Umbel and mosquitto the same work, and print the ratios.
    Compare(compare::CompareArgs),
    /// Start a cluster of three nodes and measure it.
    #[command(subcommand)]
    Cluster(cluster::Verb),
}

#[derive(clap::Args)]
struct RunArgs {
    /// Address of the server.
    #[arg(long, default_value = "127.0.0.1:1883")]
    server: SocketAddr,
    /// Certificate of the authority that signed the server's (PEM): turns TLS on.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Client certificate for all devices (PEM); the listener must take shared certificates.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long)]
    key: Option<PathBuf>,
    /// Name in the server's certificate.
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// Process id of the server, to report its memory and CPU time.
    #[arg(long)]
    pid: Option<u32>,
    /// Write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    profile: Profile,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(args).await,
        Command::Compare(args) => compare::run(args).await,
        Command::Cluster(verb) => cluster::run(verb).await,
    }
}

async fn run(args: RunArgs) -> Result<()> {
    let tls = match &args.ca {
        Some(ca) => {
            let identity = args.certificate.as_deref().zip(args.key.as_deref());
            Some((
                tls::client_config(ca, identity)?,
                args.server_name.clone().try_into()?,
            ))
        },
        None => None,
    };
    let target = Target {
        address: args.server,
        tls,
    };
    let profile = Arc::new(args.profile);
    let samples = Arc::new(Samples::new());
    let before = args.pid.map(process::usage).transpose()?;

    let progress = tokio::spawn(progress(Arc::clone(&samples), profile.devices));
    let fleet = Fleet::start(target, Arc::clone(&profile), Arc::clone(&samples)).await;
    all_connected(&samples, profile.devices).await;
    let updates_before = samples.updates.summary().count;
    let steady = Instant::now();
    sleep(profile.duration).await;
    let report = Report::new(profile.devices, &samples, updates_before, steady.elapsed());
    let after = args.pid.map(process::usage).transpose()?;
    progress.abort();
    fleet.stop().await;

    println!("{}", report.text());
    if let (Some(before), Some(after)) = (before, after) {
        let bytes = after.resident.saturating_sub(before.resident) as f64;
        println!(
            "server: {:.0} bytes resident a device, {:.2} s CPU",
            bytes / profile.devices.max(1) as f64,
            (after.cpu.saturating_sub(before.cpu)).as_secs_f64()
        );
    }
    if let Some(path) = args.json {
        std::fs::write(&path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Waits until every device is connected, or no more come.
async fn all_connected(samples: &Samples, devices: usize) {
    let (mut last, mut quiet) = (0, 0);
    while samples.open_now() < devices as u64 && quiet < 20 {
        sleep(Duration::from_millis(250)).await;
        let open = samples.open_now();
        quiet = if open == last { quiet + 1 } else { 0 };
        last = open;
    }
}

async fn progress(samples: Arc<Samples>, devices: usize) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let updates = samples.updates.summary();
        eprint!(
            "\r{:>8}/{devices} connected  {:>9} updates  p99 {:>8.2} ms   ",
            samples.open_now(),
            updates.count,
            updates.p99_ms
        );
    }
}
