//! `umbel-chaos cluster`: a cluster of real processes under load, broken again and again by a schedule from a seed; then
//! healed, read on every node, and judged.
//!
//! The load is shadow updates and reads by MQTT and by HTTP through all nodes, several workers to a device, and queues
//! with readers that come and go; the rules are the oracle's, whichever node said what.

mod caller;
mod clocks;
mod disk;
mod doomed;
mod drive;
mod enter;
mod gaps;
mod hardships;
mod load;
mod network;
mod nodes;
mod plan;
mod points;
mod schedule;
mod starved;
mod steady;
mod weather;

use std::{fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use rand::Rng;
use serde::Serialize;
use tokio::time::sleep;

use self::{
    drive::Drive, gaps::Happened, load::Load, nodes::Nodes, plan::Plan, schedule::Kind,
    steady::Steady,
};
use crate::{
    campaign::folder,
    history::{Action, Events, History},
    oracle,
    report::Report,
    site::Site,
    worker::device,
};

/// Load after the last fault.
const HEALED: Duration = Duration::from_secs(2);

/// What to do, and how often.
#[derive(Args)]
pub(crate) struct Options {
    /// The umbel program.
    #[arg(long, default_value = "target/release/umbel")]
    umbel: PathBuf,
    /// How often to break something.
    #[arg(long, default_value_t = 20)]
    cycles: u32,
    /// What to break.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [
        Kind::KillOwner, Kind::KillFollower, Kind::KillMajority, Kind::PauseOwner, Kind::Restart,
    ])]
    faults: Vec<Kind>,
    /// Seed of every stream of chance; drawn and printed if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Shards.
    #[arg(long, default_value_t = 8)]
    shards: u16,
    /// Workers that speak MQTT, and as many that speak HTTP.
    #[arg(long, default_value_t = 8)]
    workers: u16,
    /// Devices they share.
    #[arg(long, default_value_t = 8)]
    devices: u16,
    /// Message queues with a persistent reader.
    #[arg(long, default_value_t = 2)]
    queues: u16,
    /// Points of `crash-point`, taken in turn; all, if none is named.
    #[arg(long, value_delimiter = ',', value_parser = points::known)]
    points: Vec<&'static str>,
    /// How many milliseconds a fault lasts at most; at least 300.
    #[arg(long, default_value_t = 4000)]
    longest_ms: u64,
    /// How many seconds the cluster may take to be whole again after a fault: 30 is the promise on a machine of its own.
    #[arg(long, default_value_t = 30)]
    heals_within: u64,
    /// Folder for the run's files; a temporary one, kept on failure, if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// `umbel-chaos cluster`
pub(crate) async fn run(options: Options) -> Result<ExitCode> {
    let folder = folder(options.folder.as_ref())?;
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    announce(&options, seed, &folder);
    let longest = Duration::from_millis(options.longest_ms);
    let steps = schedule::draw(
        seed,
        options.cycles,
        &options.faults,
        options.shards,
        longest,
    );
    let nodes = Nodes::start(Plan {
        umbel: &options.umbel,
        folder: &folder,
        nodes: options.nodes,
        shards: options.shards,
        faults: &options.faults,
    })
    .await
    .with_context(|| format!("the files are in {}", folder.display()))?;
    let history = Arc::new(History::new());
    let steady = if options.faults.iter().any(|kind| kind.keeps_devices()) {
        Some(Steady::start(&nodes.sites, &history).await?)
    } else {
        None
    };
    let mut load = Load::start(&options, seed, &nodes, &history).await?;
    let heals_within = Duration::from_secs(options.heals_within);
    let mut drive = Drive::new(
        nodes,
        Arc::clone(&history),
        heals_within,
        options.points.clone(),
    );
    let mut stopped = None;
    for (n, step) in steps.iter().enumerate() {
        println!("#{n} {step}");
        if let Err(error) = drive.step(step).await {
            stopped = Some(format!("after {n} faults: {error:#}"));
            break;
        }
    }
    sleep(HEALED).await;
    // Also after a fault that did not heal: what was told is judged all the same.
    if let Err(error) = load.end().await {
        stopped.get_or_insert_with(|| format!("{error:#}"));
    }
    if stopped.is_none() {
        stopped = read_all(&options, &drive.nodes, &history)
            .await
            .err()
            .map(|error| format!("at the end: {error:#}"));
    }
    drive.nodes.end().await?;
    let died = drive.tell_points();
    let is_void = !died && options.faults.contains(&Kind::CrashPoint);
    let void = is_void.then(|| "no node died at a point: does the program have them?".to_owned());
    let mut breaches = gaps::moved(&drive.happened);
    if let Some(steady) = &steady {
        breaches.extend(steady.judge(&drive.happened)?);
    }
    breaches.extend(stopped);
    let found = Found {
        happened: drive.happened,
        void,
        breaches,
    };
    conclude(&options, seed, found, &history.events(), &folder)
}

/// Says what makes the run happen again.
fn announce(options: &Options, seed: u64, folder: &std::path::Path) {
    let names: Vec<String> = options
        .faults
        .iter()
        .filter_map(clap::ValueEnum::to_possible_value)
        .map(|kind| kind.get_name().to_owned())
        .collect();
    println!(
        "cluster: --seed {seed} --cycles {} --faults {} --nodes {} --shards {} --workers {} --devices {} --queues {} in {}",
        options.cycles,
        names.join(","),
        options.nodes,
        options.shards,
        options.workers,
        options.devices,
        options.queues,
        folder.display()
    );
}

/// Reads every device on every node: G1 is about what is there, wherever it is asked for.
async fn read_all(options: &Options, nodes: &Nodes, history: &Arc<History>) -> Result<()> {
    for n in 0..options.devices {
        for up in nodes.sites.iter().filter_map(Site::here) {
            caller::step(history, &device(n, options.devices), Action::Read, &up).await?;
        }
    }
    Ok(())
}

/// What came out, beside the oracle's verdict.
struct Found {
    happened: Vec<Happened>,
    void: Option<String>,
    breaches: Vec<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    faults: &'a [Happened],
    figures: std::collections::BTreeMap<String, gaps::Figures>,
}

fn conclude(
    options: &Options,
    seed: u64,
    mut found: Found,
    events: &Events,
    folder: &std::path::Path,
) -> Result<ExitCode> {
    let figures = gaps::figures(events, &found.happened, options.shards);
    for (kind, figures) in &figures {
        println!(
            "{kind}: {} shards served again after p50 {} ms, p99 {} ms, max {} ms",
            figures.shards, figures.p50, figures.p99, figures.max
        );
    }
    let during = gaps::during(events, &found.happened);
    let changed: usize = found.happened.iter().map(|fault| fault.changed).sum();
    let healed = found.happened.iter().map(|fault| fault.healed).max();
    println!(
        "{during} operations succeeded during faults, {changed} shards changed owner or term, whole again within {} ms",
        healed.unwrap_or_default().as_millis()
    );
    let is_due = |kind: &Kind| matches!(kind, Kind::KillOwner | Kind::Isolate | Kind::KillMajority);
    if options.faults.iter().any(is_due) && changed == 0 {
        found.void = Some("no shard ever changed its owner".to_owned());
    } else if during == 0 && !options.faults.iter().all(|kind| *kind == Kind::PowerCut) {
        found.void = Some("nothing was acknowledged during a fault".to_owned());
    }
    let written = Written {
        faults: &found.happened,
        figures,
    };
    fs::write(
        folder.join("faults.json"),
        serde_json::to_vec_pretty(&written)?,
    )?;
    let mut verdict = oracle::judge(events);
    verdict.violations.extend(found.breaches);
    Report {
        fault: "cluster",
        seed,
        cycles: options.cycles,
        void: found.void,
        verdict,
    }
    .conclude(events, folder)
}
