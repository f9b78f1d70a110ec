//! A campaign: load, faults at moments drawn by chance, then no faults, then the judgement.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rand::Rng;
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::sleep};

use crate::{
    control::{self, Kind},
    disk::{Disk, FileSystem, SETTLE},
    history::History,
    oracle,
    process::{Endpoints, Launcher, Node},
    queue::{Queue, Readers},
    report::Report,
    seeds::{Concern, stream},
    site::{Site, Sites},
    worker::Worker,
};

/// Load between two faults, in milliseconds.
const BETWEEN_FAULTS: std::ops::Range<u64> = 50..600;
/// Load after the last fault.
const HEALED: Duration = Duration::from_secs(2);

/// What to do, and how often.
#[derive(Args)]
pub(crate) struct Options {
    /// The umbel program.
    #[arg(long, default_value = "target/release/umbel")]
    umbel: PathBuf,
    /// How often to break the node.
    #[arg(long, default_value_t = 20)]
    cycles: u32,
    /// Seed of every stream of chance; drawn and printed if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Clients that update and read shadows.
    #[arg(long, default_value_t = 16)]
    workers: u16,
    /// Devices they share.
    #[arg(long, default_value_t = 8)]
    devices: u16,
    /// Message queues with a persistent reader.
    #[arg(long, default_value_t = 4)]
    queues: u16,
    /// Cuts of each control before a power-cut campaign.
    #[arg(long, default_value_t = 5)]
    control_cycles: u32,
    /// File system of the disk whose power is cut.
    #[arg(long, default_value = "ext4")]
    file_system: FileSystem,
    /// Folder for the run's files; a temporary one, kept on failure, if not given.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// `umbel-chaos kill`
pub(crate) async fn kill(options: Options) -> Result<ExitCode> {
    let folder = folder(options.folder.as_ref())?;
    let seed = announce("kill", &options, &folder);
    let launcher = Launcher::new(&options.umbel, &folder, &folder.join("data"))?;
    let run = Run::start(&options, seed, launcher).await?;
    let history = run.faults(&options, seed, None).await?;
    conclude("kill", &options, seed, &history, None, &folder)
}

/// `umbel-chaos powercut`
pub(crate) async fn powercut(options: Options) -> Result<ExitCode> {
    let folder = folder(options.folder.as_ref())?;
    let seed = announce("powercut", &options, &folder);
    let void = judge_controls(&options, &folder).await?;
    let disk = Disk::create(&folder, options.file_system)?;
    let launcher = Launcher::new(&options.umbel, &folder, &disk.path().join("data"))?;
    let run = Run::start(&options, seed, launcher).await?;
    let history = run.faults(&options, seed, Some(&disk)).await?;
    conclude("powercut", &options, seed, &history, void, &folder)
}

/// The folder of a run: the one that was asked for, or a new one.
pub(crate) fn folder(wanted: Option<&PathBuf>) -> Result<PathBuf> {
    match wanted {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            Ok(std::fs::canonicalize(folder)?)
        },
        None => Ok(tempfile::Builder::new()
            .prefix("umbel-chaos-")
            .tempdir()?
            .keep()),
    }
}

fn announce(fault: &str, options: &Options, folder: &Path) -> u64 {
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    println!(
        "{fault}: --seed {seed} --cycles {} --workers {} --devices {} --queues {} in {}",
        options.cycles,
        options.workers,
        options.devices,
        options.queues,
        folder.display()
    );
    seed
}

/// Why the campaign is void, if a control misbehaved.
async fn judge_controls(options: &Options, folder: &Path) -> Result<Option<String>> {
    let cycles = options.control_cycles;
    let good = control::losses(Kind::Good, cycles, folder, options.file_system).await?;
    let bad = control::losses(Kind::Bad, cycles, folder, options.file_system).await?;
    println!("controls: the good writer lost in {good} of {cycles} cuts, the bad one in {bad}");
    Ok(if cycles == 0 {
        Some("no control was run".to_owned())
    } else if good > 0 {
        Some(format!(
            "the known-good writer lost data in {good} of {cycles} cuts"
        ))
    } else if bad == 0 {
        Some(format!(
            "the known-bad writer lost nothing in {cycles} cuts"
        ))
    } else {
        None
    })
}

fn conclude(
    fault: &str,
    options: &Options,
    seed: u64,
    history: &History,
    void: Option<String>,
    folder: &Path,
) -> Result<ExitCode> {
    let events = history.events();
    let verdict = oracle::judge(&events);
    Report {
        fault,
        seed,
        cycles: options.cycles,
        void,
        verdict,
    }
    .conclude(&events, folder)
}

/// The load and the node it runs against.
struct Run {
    launcher: Launcher,
    node: Node,
    place: watch::Sender<Option<Endpoints>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<Result<()>>,
    readers: Readers,
    history: Arc<History>,
}

impl Run {
    async fn start(options: &Options, seed: u64, launcher: Launcher) -> Result<Self> {
        let history = Arc::new(History::new());
        let node = launcher.start().await?;
        let (place, at) = watch::channel(Some(node.endpoints));
        let sites = Sites::new([Site::new(0, at, Handle::current())]);
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        let mut readers = Readers::new();
        for n in 0..options.queues {
            let queue = Queue::new(n, seed, Arc::clone(&history));
            queue.prepare(&sites).await?;
            clients.spawn(queue.clone().publish(sites.clone(), stopped.clone()));
            readers.spawn(queue, sites.clone());
        }
        for n in 0..options.workers {
            let worker = Worker::new(n, options.devices, seed, Arc::clone(&history));
            clients.spawn(worker.work(sites.clone(), stopped.clone()));
        }
        Ok(Self {
            launcher,
            node,
            place,
            stop,
            clients,
            readers,
            history,
        })
    }

    /// Breaks the node again and again, then heals, stops the clients and returns what they saw.
    async fn faults(
        mut self,
        options: &Options,
        seed: u64,
        disk: Option<&Disk>,
    ) -> Result<Arc<History>> {
        let mut rng = stream(seed, Concern::Faults);
        for _ in 0..options.cycles {
            sleep(Duration::from_millis(rng.random_range(BETWEEN_FAULTS))).await;
            if let Some(ended) = self.node.ended()? {
                bail!("the node ended by itself: {ended}");
            }
            self.break_once(disk).await?;
        }
        sleep(HEALED).await;
        self.stop.send_replace(true);
        while let Some(client) = self.clients.join_next().await {
            client?.context("a client could not finish after the last fault")?;
        }
        self.readers.end().await?;
        self.node.kill().await?;
        Ok(self.history)
    }

    async fn break_once(&mut self, disk: Option<&Disk>) -> Result<()> {
        if let Some(disk) = disk {
            self.node.freeze()?;
            sleep(SETTLE).await;
            disk.cut()?;
        }
        self.place.send_replace(None);
        self.node.kill().await?;
        if let Some(disk) = disk {
            disk.restore()?;
        }
        self.node = self.launcher.start().await?;
        self.place.send_replace(Some(self.node.endpoints));
        Ok(())
    }
}
