//! The disk side of a node: log, state and the shards over them.

use std::{process, sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use umbel_cluster::{
    Config as ClusterConfig, Shards, begin_life, link::Transport, meta::ClusterIdentity,
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    Boot, Ledger,
    log::{GroupLog, Log, LogOptions},
    state::State,
    store::{StateOptions, StateStore},
};

use super::StartError;
use crate::{config::Config, datadir::DataDir, membership};

/// Rows the scrub reads at a time, and the rest between: about a thousand rows a second, unnoticed beside work.
const SCRUB_ROWS: usize = 256;
const SCRUB_EVERY: Duration = Duration::from_millis(250);

/// The stores of a node, opened.
pub(super) struct Stores {
    pub(super) log: Arc<Log>,
    pub(super) state: Arc<StateStore>,
    /// This life of the node.
    pub(super) boot: Boot,
    /// Locks the folder; released last.
    folder: DataDir,
}

impl Stores {
    /// Opens what is there, and begins a new life.
    pub(super) async fn open(config: &Config, shards: u16) -> Result<Self, StartError> {
        let folder = DataDir::open(&config.node.data_dir)?;
        let mut log_options = LogOptions::new(folder.join("log"), Arc::new(end));
        log_options.reserve_bytes = config.storage.reserve;
        let mut state_options = StateOptions::new(folder.join("state"), shards);
        state_options.cache_bytes = config.storage.cache;
        let opening = tokio::task::spawn_blocking(move || {
            let log = Log::open(&log_options)?;
            let state = StateStore::open(&state_options)?;
            Ok::<_, StartError>((Arc::new(log), Arc::new(state)))
        });
        let (log, state) = opening
            .await
            .map_err(|panic| StartError::Open(panic.to_string()))??;
        let boot = begin_life(log.as_ref()).await?;
        Ok(Self {
            log,
            state,
            boot,
            folder,
        })
    }
}

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
    /// Starts the shards over the stores: rebuilds what is damaged, and waits until every sound shard that this node can
    /// own alone is owned.
    pub(super) async fn start(
        config: &Config,
        me: Me,
        stores: Stores,
        transport: Option<Arc<dyn Transport>>,
    ) -> Result<Self, StartError> {
        let Stores {
            log,
            state,
            boot,
            folder,
        } = stores;
        let settings = shards_config(config, &me, boot);
        let is_alone = transport.is_none();
        let shards = Shards::start(
            settings,
            Arc::clone(&log) as Arc<dyn GroupLog>,
            Arc::clone(&state) as Arc<dyn State>,
            transport,
            Arc::new(|reason: String| end(&reason)),
        )
        .await?;
        if me.is_founder {
            shards.found().await?;
        }
        if is_alone || me.is_founder {
            shards.settled().await;
        }
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

/// Who this node is, as far as its shards have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Me {
    pub(super) node: NodeId,
    /// Of the cluster.
    pub(super) shards: u16,
    /// Whether it begins a cluster.
    pub(super) is_founder: bool,
}

impl Me {
    /// From the identity, or from the configuration of a node that is alone.
    pub(super) fn of(config: &Config, identity: Option<&ClusterIdentity>) -> Self {
        match identity {
            Some(identity) => Self {
                node: identity.node,
                shards: identity.shards,
                is_founder: identity.founding.is_some(),
            },
            None => Self {
                node: NodeId(config.node.id.unwrap_or(membership::LONE_NODE)),
                shards: config.cluster.shards,
                is_founder: false,
            },
        }
    }
}

fn shards_config(config: &Config, me: &Me, boot: Boot) -> ClusterConfig {
    let cluster = &config.cluster;
    let mut settings = ClusterConfig::new(me.node, me.shards);
    settings.boot = Some(boot);
    settings.heartbeat = cluster.heartbeat;
    settings.election_min = cluster.election_min;
    settings.election_max = cluster.election_max;
    settings.snapshots.entries = cluster.snapshot_entries;
    settings.snapshots.bytes = cluster.snapshot_bytes;
    settings
}

/// The disk side alone, without a fleet over it and with nobody to speak to.
pub(crate) struct Store(Disk);

impl Store {
    /// Makes the data of a new cluster, with this node as its first, in an empty folder.
    pub(crate) async fn found(config: &Config) -> Result<Self, StartError> {
        if config.cluster.link.is_some() {
            let made = membership::init(config).await;
            made.map_err(|error| StartError::Member(format!("{error:#}")))?;
        }
        let me = membership::identity(config).map_err(StartError::Member)?;
        let me = Me::of(config, me.as_ref());
        let stores = Stores::open(config, me.shards).await?;
        Disk::start(config, me, stores, None).await.map(Self)
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
pub(super) fn end(reason: &str) {
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
