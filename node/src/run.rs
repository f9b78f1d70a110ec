//! From the command line to an exit code: 0 well, 1 failed, 2 wrong usage, 3 the node was removed from its cluster, 64 the
//! configuration cannot be used.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this file talks to a person"
)]

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    backup, ca,
    cli::{
        Cli, ClusterCommand, Command, ConfigCommand, DevArgs, NodeArgs, RestoreArgs, UserCommand,
    },
    config::{self, Config, Loaded},
    ctl, dev, identity, membership, telemetry,
    wire::{Endpoints, Node, Offers, reloaded},
};

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;
/// Nobody is to start this node again: it was removed from its cluster.
pub(crate) const REMOVED: u8 = 3;

/// Runs one command.
pub async fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Ctl(args) => return ctl::run(args).await,
        Command::Dev(args) if args.nodes > 1 => dev_cluster(&args).await,
        Command::Dev(args) => return Box::pin(dev_node(args)).await,
        Command::Node(args) => return Box::pin(node(args)).await,
        Command::Cluster(args) => return cluster_command(args.command).await,
        Command::Backup(args) => backup::save(&args).await.map(|text| println!("{text}")),
        Command::Restore(args) => return restore(&args).await,
        Command::Config(args) => return config_command(&args.command),
        Command::Ca(args) => ca::run(args).map(|text| println!("{text}")),
        Command::User(args) => match args.command {
            UserCommand::Hash => hash_password(),
        },
    };
    conclude(done)
}

/// How a node came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Asked,
    Removed,
}

impl From<End> for ExitCode {
    fn from(end: End) -> Self {
        match end {
            End::Asked => Self::SUCCESS,
            End::Removed => Self::from(REMOVED),
        }
    }
}

fn conclude(done: Result<()>) -> ExitCode {
    concluded(done.map(|()| End::Asked))
}

fn concluded(done: Result<End>) -> ExitCode {
    match done {
        Ok(end) => end.into(),
        Err(error) => {
            eprintln!("umbel: {}", told(&error));
            ExitCode::FAILURE
        },
    }
}

/// The error and its causes, each thing once: some errors repeat their cause.
fn told(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |mut text, cause| {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        text
    })
}

fn load(path: Option<&Path>) -> Result<Loaded, ExitCode> {
    config::load(path, std::env::vars()).map_err(|error| {
        eprintln!("umbel: {error}");
        ExitCode::from(USAGE)
    })
}

fn config_command(command: &ConfigCommand) -> ExitCode {
    let (ConfigCommand::Check { config } | ConfigCommand::Show { config, .. }) = command;
    match load(config.as_deref()) {
        Err(code) => code,
        Ok(loaded) => {
            if let ConfigCommand::Show { origin, .. } = command {
                print!("{}", config::show(&loaded, *origin));
            }
            ExitCode::SUCCESS
        },
    }
}

async fn restore(args: &RestoreArgs) -> ExitCode {
    match load(Some(&args.config)) {
        Err(code) => code,
        Ok(loaded) => {
            let done = backup::restore(args, &loaded.config).await;
            conclude(done.map(|text| println!("{text}")))
        },
    }
}

async fn cluster_command(command: ClusterCommand) -> ExitCode {
    let (ClusterCommand::Init { config } | ClusterCommand::Join { config, .. }) = &command;
    match load(Some(config)) {
        Err(code) => code,
        Ok(loaded) if loaded.config.cluster.link.is_none() => {
            eprintln!("umbel: cluster.bind is not set: other nodes could not reach this one");
            ExitCode::from(USAGE)
        },
        Ok(loaded) => {
            let done = match &command {
                ClusterCommand::Init { .. } => membership::init(&loaded.config).await,
                ClusterCommand::Join { seed, token, .. } => {
                    membership::join(&loaded.config, seed, token).await
                },
            };
            conclude(done.map(|text| println!("{text}")))
        },
    }
}

fn hash_password() -> Result<()> {
    let mut password = String::new();
    if io::stdin().is_terminal() {
        eprint!("password (shown as you type): ");
    }
    io::stdin()
        .read_line(&mut password)
        .context("standard input")?;
    let password = password.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!password.is_empty(), "no password on standard input");
    let hash = identity::hash(password.as_bytes()).map_err(|e| anyhow::anyhow!("{e}"))?;
    println!("{hash}");
    Ok(())
}

async fn node(args: NodeArgs) -> ExitCode {
    match load(args.config.as_deref()) {
        Err(code) => code,
        Ok(loaded) if loaded.config.is_deaf() => {
            eprintln!("umbel: no [[listener]]: nobody could connect; see node/deploy/umbel.toml");
            ExitCode::from(USAGE)
        },
        Ok(loaded) => {
            let parent = Parent {
                is_watched: args.until_eof,
            };
            let path = args.config.as_deref();
            concluded(serve(&loaded.config, path, args.ports_file, None, parent, |_| ()).await)
        },
    }
}

/// A cluster of child processes.
async fn dev_cluster(args: &DevArgs) -> Result<()> {
    let files = dev::prepare(args)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = async {
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
        }
    };
    dev::cluster(args, &files, ended, |line| println!("{line}")).await
}

async fn dev_node(args: DevArgs) -> ExitCode {
    let files = match dev::prepare(&args) {
        Ok(files) => files,
        Err(error) => return conclude(Err(error)),
    };
    match load(Some(&files.config)) {
        Err(code) => code,
        Ok(loaded) => {
            // Two ports of one kind on one machine is what newcomers run into first.
            let hint = |error: anyhow::Error| {
                let mut causes = error
                    .chain()
                    .filter_map(|cause| cause.downcast_ref::<io::Error>());
                if causes.any(|cause| cause.kind() == io::ErrorKind::AddrInUse) {
                    error.context("another program has the port; --any-port lets the system choose")
                } else {
                    error
                }
            };
            let greet = |at: &Endpoints| {
                println!("{}", dev::welcome(&files, at, args.devices));
                at.listeners
                    .get("mqtt")
                    .map(|broker| dev::simulate::start(args.devices, &[*broker]))
            };
            let ca = Some(files.ca.clone());
            concluded(
                serve(
                    &loaded.config,
                    Some(&files.config),
                    args.ports_file,
                    ca,
                    Parent::default(),
                    greet,
                )
                .await
                .map_err(hint),
            )
        },
    }
}

/// The process that started this one, if this one is to end with it.
#[derive(Default)]
struct Parent {
    is_watched: bool,
}

impl Parent {
    /// Resolves when it closed our standard input, as its end does.
    async fn gone(&self) {
        if !self.is_watched {
            return std::future::pending().await;
        }
        let (done, ended) = tokio::sync::oneshot::channel();
        // A thread of its own: a read of standard input cannot be given up, and must not hold up the end.
        std::thread::spawn(move || {
            // Ended or broken: either way nobody is there any more.
            drop(io::copy(&mut io::stdin(), &mut io::sink()));
            done.send(()).unwrap_or_default();
        });
        drop(ended.await);
    }
}

/// Starts a node, tells where it listens, and drains it when it is asked to end. What `ready` returns is dropped
/// before the drain.
async fn serve<T>(
    config: &Config,
    path: Option<&Path>,
    ports_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    parent: Parent,
    ready: impl FnOnce(&Endpoints) -> T,
) -> Result<End> {
    telemetry::start_log(&config.log)?;
    let metrics = telemetry::start_metrics()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Until it serves there is nothing to reload, and nothing to die of either.
    let hangup = signal(SignalKind::hangup())?;
    let node = Node::start(config, metrics).await?;
    if let Some(path) = ports_file {
        write_ports(&path, node.endpoints(), ca.as_deref())?;
    }
    notify(sd_notify::NotifyState::Ready);
    let company = ready(node.endpoints());
    let watchdog = watchdog();
    let reloading = tokio::spawn(reload_when_asked(
        hangup,
        path.map(Path::to_owned),
        node.offers(),
    ));
    let asked = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        () = parent.gone() => Ok("end of input"),
        said_by = node.removed() => Err(said_by),
    };
    let end = match asked {
        Ok(signal) => {
            tracing::info!(signal, "draining");
            End::Asked
        },
        Err(said_by) => {
            tracing::error!(
                node = node.id(),
                said_by,
                data_dir = %config.node.data_dir.display(),
                "this node was removed from the cluster and ends: to use the machine again, empty the data folder and join \
                 with a new token"
            );
            End::Removed
        },
    };
    reloading.abort();
    notify(sd_notify::NotifyState::Stopping);
    drop(company);
    node.shutdown(config.node.drain).await;
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    tracing::info!("ended");
    Ok(end)
}

/// Reads the certificates again whenever SIGHUP asks for it, from where the configuration file then says. What cannot be
/// used changes nothing, and everything else in the file waits for the next start.
async fn reload_when_asked(mut hangup: Signal, path: Option<PathBuf>, offers: Offers) {
    while hangup.recv().await.is_some() {
        let (path, offers) = (path.clone(), offers.clone());
        let renewed = tokio::task::spawn_blocking(move || -> Result<()> {
            let loaded = config::load(path.as_deref(), std::env::vars())?;
            offers.renew(&loaded.config)?;
            Ok(())
        });
        let renewed = renewed
            .await
            .map_err(anyhow::Error::from)
            .and_then(|done| done);
        reloaded(renewed.is_ok());
        match renewed {
            Ok(()) => tracing::info!("certificates were read again"),
            Err(error) => {
                let why = told(&error);
                tracing::error!(why, "certificates are not reloaded: those of before stay");
            },
        }
    }
}

/// Tells systemd, if it started us; without systemd there is nobody to tell.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// Tells systemd that the runtime still turns, as often as it asked for.
fn watchdog() -> Option<tokio::task::JoinHandle<()>> {
    let mut micros = 0;
    if !sd_notify::watchdog_enabled(false, &mut micros) {
        return None;
    }
    let every = std::time::Duration::from_micros(micros) / 3;
    Some(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            notify(sd_notify::NotifyState::Watchdog);
        }
    }))
}

fn write_ports(path: &Path, at: &Endpoints, ca: Option<&Path>) -> Result<()> {
    let mut ports = json!({
        "http": at.http,
        "aws": at.aws,
        "ca": ca,
        "cluster": at.link,
        "gossip": at.gossip,
    });
    if let Some(ports) = ports.as_object_mut() {
        ports.extend(
            at.listeners
                .iter()
                .map(|(name, address)| (name.clone(), json!(address))),
        );
    }
    write_json(path, &ports)
}

/// Written beside and renamed: whoever waits for the file finds it whole.
pub(crate) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let draft = path.with_extension("draft");
    let shown = || path.display().to_string();
    fs::write(&draft, serde_json::to_vec_pretty(value)?).with_context(shown)?;
    fs::rename(&draft, path).with_context(shown)
}
