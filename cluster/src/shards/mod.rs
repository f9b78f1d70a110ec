//! All shards of a node, as one [`Ledger`].

mod hosting;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use umbel_core::ids::{ShardId, Term};
use umbel_storage::{
    Boot, Ledger, Pairs, ReadError, Receipt, Refusal, Table, Write, log::GroupLog, state::State,
};

pub use crate::raft::group::{ChangeError, Changed, Members};
use crate::{
    codec, conductor,
    config::{Config, ConfigError},
    hosted::{Door, Hosted},
    identity::{self, Identity},
    keeper::Keeper,
    link::{Service, Transport},
    lives::{self, Lives},
    metrics::Meters,
    queue::Proposal,
    raft::{
        Fatal, bulk,
        group::{Begin, Parts},
        mux::Mux,
    },
    shard::Shard,
    status::ShardStatus,
    vital::vital,
};

/// Shards that start at the same time. Each may replay its log in portions of up to 64 entries: this bounds the
/// memory of a start.
const STARTING_MAX: usize = 8;
/// How long a stop waits for what is in flight.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Why the shards do not start. Damage of single shards is not among the reasons: they are quarantined.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting cannot work.
    #[error("cluster settings")]
    Config(#[from] ConfigError),
    /// The data directory belongs to another node, or to a cluster with another number of shards.
    #[error("the data belongs to {stored}, and the settings say {configured}")]
    Identity {
        /// Who wrote it.
        stored: Identity,
        /// Who reads it.
        configured: Identity,
    },
    /// Who wrote the data cannot be read, or not be written.
    #[error("identity of the data: {0}")]
    IdentityUnknown(String),
    /// A task that starts a shard ended without an answer.
    #[error("start shards: {0}")]
    Task(String),
}

/// The shards of this node: durable, ordered writes through Raft, and local reads.
///
/// A node without a transport has all shards and is their only voter. One with a transport has the replicas that are on
/// its disk, and those it is told to [`Shards::host`].
///
/// Dropping it without [`Shards::shutdown`] is a crash: nothing acknowledged is lost.
pub struct Shards {
    config: Arc<Config>,
    boot: Boot,
    hosted: Arc<Hosted>,
    parts: Parts,
    log: Arc<dyn GroupLog>,
    state: Arc<dyn State>,
    meters: Arc<Meters>,
    stopping: AtomicBool,
    batchers: Mutex<JoinSet<()>>,
    /// Keeper and conductor.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// One replica is begun or ended at a time.
    hosting: tokio::sync::Mutex<()>,
}

impl Shards {
    /// Starts the groups of this node. Returns when all run or are quarantined, not when this node owns them:
    /// see [`Shards::settled`]. `fatal` is called when what was to be durable may not be; it has to end the process.
    pub async fn start(
        config: Config,
        log: Arc<dyn GroupLog>,
        state: Arc<dyn State>,
        transport: Option<Arc<dyn Transport>>,
        fatal: Fatal,
    ) -> Result<Arc<Self>, StartError> {
        config.check()?;
        identity::check(Identity::of(&config), log.as_ref()).await?;
        let boot = match config.boot {
            Some(boot) => boot,
            None => identity::begin_life(log.as_ref()).await?,
        };
        let config = Arc::new(config);
        let parts = Parts {
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            fatal,
            config: Arc::clone(&config),
            mux: transport.map(Mux::new),
        };
        let shards = Arc::new(Self {
            config,
            boot,
            hosted: Arc::default(),
            parts,
            log,
            state,
            meters: Arc::new(Meters::new()),
            stopping: AtomicBool::new(false),
            batchers: Mutex::default(),
            tasks: Mutex::default(),
            hosting: tokio::sync::Mutex::default(),
        });
        for shard in start_all(&shards.parts, shards.found_on_disk()).await? {
            shards.begin(shard);
        }
        shards.look_after()?;
        Ok(shards)
    }

    /// Starts the tasks that look after all groups, and opens the door to other members.
    fn look_after(&self) -> Result<(), StartError> {
        let keeper = Keeper {
            hosted: Arc::clone(&self.hosted),
            parts: self.parts.clone(),
            meters: Arc::clone(&self.meters),
            rebuilds: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            leave_at: Instant::now(),
        };
        let mut tasks = self.tasks.lock();
        let fatal = || Arc::clone(&self.parts.fatal);
        tasks.push(tokio::spawn(vital("the keeper", fatal(), keeper.run())));
        if let Some(mux) = &self.parts.mux {
            let lives = Lives::new(
                self.boot,
                Arc::clone(&self.log),
                Arc::clone(&self.hosted),
                mux,
            );
            let lives = Arc::new(lives.map_err(StartError::IdentityUnknown)?);
            mux.heed(&lives);
            let door = Door::new(&self.hosted, mux, &lives);
            let telling = lives::run(lives, mux.transport().peers());
            tasks.push(tokio::spawn(vital("the count of lives", fatal(), telling)));
            mux.transport().serve(Service::Raft, Arc::new(door));
            let receiver = bulk::Receiver(Arc::downgrade(&self.hosted));
            mux.transport().serve(Service::Bulk, Arc::new(receiver));
            let (hosted, heartbeat) = (Arc::clone(&self.hosted), self.config.heartbeat);
            let log = Arc::clone(&self.log);
            let conductor = conductor::run(hosted, Arc::clone(mux), log, heartbeat);
            tasks.push(tokio::spawn(vital("the conductor", fatal(), conductor)));
        }
        Ok(())
    }

    /// This life of this node.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Resolves when every shard that can be owned by this node alone is.
    pub async fn settled(&self) {
        for shard in self.hosted.all().values() {
            if let Some(group) = shard.group() {
                group.settled().await;
            }
        }
    }

    /// Every shard this node has a replica of, for an operator.
    pub fn status(&self) -> Vec<ShardStatus> {
        let hosted = self.hosted.all();
        hosted.values().map(|shard| shard.status()).collect()
    }

    /// Takes no more proposals, answers those that wait, and stops the groups.
    pub async fn shutdown(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        let hosted = self.hosted.all();
        for shard in hosted.values() {
            shard.queue.close();
        }
        let mut batchers = std::mem::take(&mut *self.batchers.lock());
        let drained = tokio::time::timeout(DRAIN_MAX, async {
            while batchers.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("some commands are still in flight: their outcome stays unknown");
            batchers.abort_all();
        }
        self.end_tasks();
        let mut stopping = JoinSet::new();
        for group in hosted.values().filter_map(|shard| shard.group()) {
            stopping.spawn(async move { group.shutdown().await });
        }
        let stopped = tokio::time::timeout(DRAIN_MAX, async {
            while stopping.join_next().await.is_some() {}
        });
        if stopped.await.is_err() {
            tracing::warn!("some groups do not stop: the disk does not answer");
        }
        self.keep_state().await;
    }

    fn end_tasks(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }

    /// Makes the state durable, so that the next start has nothing to replay. Only a convenience: the log has it.
    async fn keep_state(&self) {
        // One call makes the rows of all shards durable; a damaged shard is not a shard to call it with.
        let hosted = self.hosted.all();
        let Some(shard) = hosted.values().find(|shard| !shard.is_quarantined()) else {
            return;
        };
        let (state, id) = (Arc::clone(&self.state), shard.id);
        let outcome = tokio::task::spawn_blocking(move || state.checkpoint(id).map(drop)).await;
        match outcome {
            Ok(Ok(())) => {},
            Ok(Err(error)) => tracing::warn!(%error, "last checkpoint failed"),
            Err(error) => tracing::warn!(%error, "last checkpoint ended"),
        }
    }

    fn admit(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Result<Receipt, Refusal> {
        let weight = codec::weight(&writes);
        let shard = self.hosted.get(shard).ok_or(Refusal::NotOwner)?;
        if self.stopping.load(Ordering::Acquire) {
            return Err(Refusal::Unknown);
        }
        if weight > self.config.limits.command_bytes_max {
            return Err(Refusal::TooLarge);
        }
        if shard.is_quarantined() {
            return Err(Refusal::Quarantined);
        }
        if shard.term() != Some(term) {
            return Err(Refusal::NotOwner);
        }
        if self.log.admit().is_err() {
            return Err(Refusal::StorageFull);
        }
        let (answer, receipt) = Receipt::pending();
        shard.queue.push(Proposal {
            term,
            writes,
            weight,
            answer,
            since: Instant::now(),
        })?;
        Ok(receipt)
    }

    /// Rows of a shard that serves nothing are not shown.
    fn readable(&self, shard: ShardId, table: Table) -> Result<(), ReadError> {
        let found = self.hosted.with(shard, |found| {
            found
                .is_quarantined()
                .then(|| found.quarantined().unwrap_or_default())
        });
        let why = match found {
            Some(None) => return Ok(()),
            Some(Some(why)) => why,
            None => "there is no such shard".to_owned(),
        };
        Err(ReadError::Damaged {
            table,
            detail: format!("shard {shard}: {why}"),
        })
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

/// Starts the groups of several shards, a few at a time.
async fn start_all(
    parts: &Parts,
    which: Vec<(ShardId, Begin)>,
) -> Result<Vec<Arc<Shard>>, StartError> {
    let starting = Arc::new(Semaphore::new(STARTING_MAX));
    let mut tasks = JoinSet::new();
    for (id, begin) in which {
        let (parts, starting) = (parts.clone(), Arc::clone(&starting));
        tasks.spawn(async move {
            // Never closed; without a permit the shard would only start at once.
            let permit = starting.acquire_owned().await.ok();
            let shard = Shard::start(id, parts.config.limits, parts, begin).await;
            drop(permit);
            Arc::new(shard)
        });
    }
    let mut shards = Vec::new();
    while let Some(started) = tasks.join_next().await {
        shards.push(started.map_err(|error| StartError::Task(error.to_string()))?);
    }
    Ok(shards)
}

impl Ledger for Shards {
    fn shards(&self) -> u16 {
        self.config.shards
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        self.hosted.with(shard, |shard| shard.term()).flatten()
    }

    fn hosts(&self, shard: ShardId) -> bool {
        let sound = |shard: &Arc<Shard>| !shard.is_quarantined();
        self.hosted.with(shard, sound).unwrap_or(false)
    }

    fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        self.admit(shard, term, writes).unwrap_or_else(|refusal| {
            self.meters.refused(refusal);
            Receipt::ready(Err(refusal))
        })
    }

    fn get(&self, shard: ShardId, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.readable(shard, table)?;
        self.state.get(shard, table, key)
    }

    fn scan(
        &self,
        shard: ShardId,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Pairs, ReadError> {
        self.readable(shard, table)?;
        self.state.scan(shard, table, prefix, after, limit)
    }
}
