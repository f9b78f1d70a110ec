//! The disk side of a node: log, state and the shards over them.

use std::{process, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use umbel_cluster::{Config as ClusterConfig, Shards};
use umbel_core::ids::NodeId;
use umbel_storage::{
    Ledger,
    log::{GroupLog, Log, LogOptions},
    state::State,
    store::{StateOptions, StateStore},
};

use super::StartError;
use crate::{config::Config, datadir::DataDir};

/// Rows the scrub reads at a time, and the rest between: about a thousand rows a second, unnoticed beside work.
const SCRUB_ROWS: usize = 256;
const SCRUB_EVERY: Duration = Duration::from_millis(250);

/// What keeps the node's promises.
pub(super) struct Disk {
    pub(super) shards: Arc<Shards>,
    pub(super) log: Arc<Log>,
    pub(super) state: Arc<StateStore>,
    scrub: JoinHandle<()>,
    /// Locks the folder; released last.
    _folder: DataDir,
}

impl Disk {
    /// Opens what is there, rebuilds what is damaged, and returns when every sound shard is owned.
    pub(super) async fn open(config: &Config) -> Result<Self, StartError> {
        let folder = DataDir::open(&config.node.data_dir)?;
        let mut log_options = LogOptions::new(folder.join("log"), Arc::new(end));
        log_options.reserve_bytes = config.storage.reserve;
        let mut state_options = StateOptions::new(folder.join("state"), config.cluster.shards);
        state_options.cache_bytes = config.storage.cache;
        let opening = tokio::task::spawn_blocking(move || {
            let log = Log::open(&log_options)?;
            let state = StateStore::open(&state_options)?;
            Ok::<_, StartError>((Arc::new(log), Arc::new(state)))
        });
        let (log, state) = opening
            .await
            .map_err(|panic| StartError::Open(panic.to_string()))??;
        let cluster =
            ClusterConfig::new(NodeId(config.node.id.unwrap_or(1)), config.cluster.shards);
        let shards = Shards::start(
            cluster,
            Arc::clone(&log) as Arc<dyn GroupLog>,
            Arc::clone(&state) as Arc<dyn State>,
            None,
            Arc::new(|reason: String| end(&reason)),
        )
        .await?;
        shards.settled().await;
        let scrub = tokio::spawn(scrub(Arc::clone(&state)));
        Ok(Self {
            shards,
            log,
            state,
            scrub,
            _folder: folder,
        })
    }

    /// Writes out what was promised and stops.
    pub(super) async fn close(self) {
        self.scrub.abort();
        self.shards.shutdown().await;
    }
}

/// The disk side alone, without a fleet over it and with nobody to speak to.
pub(crate) struct Store(Disk);

impl Store {
    /// Makes the data of a new cluster, with this node as its first, in an empty folder.
    pub(crate) async fn found(config: &Config) -> Result<Self, StartError> {
        Disk::open(config).await.map(Self)
    }

    /// Where rows go.
    pub(crate) fn ledger(&self) -> Arc<dyn Ledger> {
        Arc::clone(&self.0.shards) as Arc<dyn Ledger>
    }

    /// Writes out what was promised and stops.
    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

/// What happens when the disk cannot be believed any more: a sync that failed is never tried again, because the
/// kernel may have dropped what was to be written.
fn end(reason: &str) {
    tracing::error!(
        reason,
        "the node ends, because nothing it says could be trusted"
    );
    process::exit(1);
}

/// Reads every row again and again, so that damage is found before it is asked for.
async fn scrub(state: Arc<StateStore>) {
    let mut ticks = tokio::time::interval(SCRUB_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let state = Arc::clone(&state);
        let step = tokio::task::spawn_blocking(move || state.scrub(SCRUB_ROWS)).await;
        if let Err(panic) = step {
            tracing::error!(%panic, "scrub stopped");
            return;
        }
    }
}
