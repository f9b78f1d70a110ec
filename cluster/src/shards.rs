//! All shards of a node, as one [`Ledger`].

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
    Ledger, Pairs, ReadError, Receipt, Refusal, Table, Write, log::GroupLog, state::State,
};

use crate::{
    batcher, codec,
    config::{Config, ConfigError},
    identity::{self, Identity},
    keeper::Keeper,
    metrics::Meters,
    queue::Proposal,
    raft::{Fatal, group::Parts},
    shard::Shard,
    status::ShardStatus,
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
/// Dropping it without [`Shards::shutdown`] is a crash: nothing acknowledged is lost.
pub struct Shards {
    config: Arc<Config>,
    /// By number.
    each: Arc<[Arc<Shard>]>,
    log: Arc<dyn GroupLog>,
    state: Arc<dyn State>,
    meters: Arc<Meters>,
    stopping: AtomicBool,
    batchers: Mutex<JoinSet<()>>,
    keeper: JoinHandle<()>,
}

impl Shards {
    /// Starts the group of every shard. Returns when all run or are quarantined, not when this node owns them:
    /// see [`Shards::settled`]. `fatal` is called when what was to be durable may not be; it has to end the process.
    pub async fn start(
        config: Config,
        log: Arc<dyn GroupLog>,
        state: Arc<dyn State>,
        fatal: Fatal,
    ) -> Result<Arc<Self>, StartError> {
        config.check()?;
        identity::check(Identity::of(&config), log.as_ref()).await?;
        let config = Arc::new(config);
        let parts = Parts {
            log: Arc::clone(&log),
            state: Arc::clone(&state),
            fatal,
            config: Arc::clone(&config),
        };
        let shards: Arc<[Arc<Shard>]> = start_all(&parts).await?.into();
        let meters = Arc::new(Meters::new());
        let mut batchers = JoinSet::new();
        for shard in shards.iter() {
            batchers.spawn(batcher::run(
                Arc::clone(shard),
                Arc::clone(&log),
                Arc::clone(&meters),
            ));
        }
        let keeper = Keeper {
            shards: Arc::clone(&shards),
            parts,
            meters: Arc::clone(&meters),
            rebuilds: BTreeMap::new(),
            retry_at: BTreeMap::new(),
        };
        Ok(Arc::new(Self {
            config,
            each: shards,
            log,
            state,
            meters,
            stopping: AtomicBool::new(false),
            batchers: Mutex::new(batchers),
            keeper: tokio::spawn(keeper.run()),
        }))
    }

    /// Resolves when every shard that can be owned by this node alone is.
    pub async fn settled(&self) {
        for shard in self.each.iter() {
            if let Some(group) = shard.group() {
                group.settled().await;
            }
        }
    }

    /// Every shard, for an operator.
    pub fn status(&self) -> Vec<ShardStatus> {
        self.each.iter().map(|shard| shard.status()).collect()
    }

    /// Takes no more proposals, answers those that wait, and stops the groups.
    pub async fn shutdown(&self) {
        if self.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        for shard in self.each.iter() {
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
        self.keeper.abort();
        let mut stopping = JoinSet::new();
        for group in self.each.iter().filter_map(|shard| shard.group()) {
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

    /// Makes the state durable, so that the next start has nothing to replay. Only a convenience: the log has it.
    async fn keep_state(&self) {
        // One call makes the rows of all shards durable; a damaged shard is not a shard to call it with.
        let Some(shard) = self.each.iter().find(|shard| !shard.is_quarantined()) else {
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

    fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.each.get(usize::from(shard.0)).map(AsRef::as_ref)
    }

    fn admit(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Result<Receipt, Refusal> {
        let weight = codec::weight(&writes);
        let shard = self.shard(shard).ok_or(Refusal::NotOwner)?;
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
        let found = self.shard(shard);
        let why = match found {
            Some(found) if !found.is_quarantined() => return Ok(()),
            Some(found) => found.quarantined().unwrap_or_default(),
            None => "there is no such shard".to_owned(),
        };
        Err(ReadError::Damaged {
            table,
            detail: format!("shard {shard}: {why}"),
        })
    }
}

async fn start_all(parts: &Parts) -> Result<Vec<Arc<Shard>>, StartError> {
    let starting = Arc::new(Semaphore::new(STARTING_MAX));
    let mut tasks = JoinSet::new();
    for id in (0..parts.config.shards).map(ShardId) {
        let (parts, starting) = (parts.clone(), Arc::clone(&starting));
        tasks.spawn(async move {
            // Never closed; without a permit the shard would only start at once.
            let permit = starting.acquire_owned().await.ok();
            let shard = Shard::start(id, parts.config.limits, parts).await;
            drop(permit);
            (id, Arc::new(shard))
        });
    }
    let mut shards = BTreeMap::new();
    while let Some(started) = tasks.join_next().await {
        let (id, shard) = started.map_err(|error| StartError::Task(error.to_string()))?;
        shards.insert(id, shard);
    }
    Ok(shards.into_values().collect())
}

impl Ledger for Shards {
    fn shards(&self) -> u16 {
        self.config.shards
    }

    fn term(&self, shard: ShardId) -> Option<Term> {
        self.shard(shard).and_then(Shard::term)
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
