//! One running group: a shard's log, its state, and openraft between them.

mod answer;
mod elect;
mod members;
mod opening;
pub(crate) mod probation;
mod snapshots;
mod transfer;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    EmptyNode, LeaderId, Raft, ServerState, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
    metrics::RaftServerMetrics,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, oneshot, watch},
    time::{Instant, timeout},
};
use umbel_core::ids::{ShardId, Term};
use umbel_storage::{
    Refusal,
    log::{GroupId, GroupLog},
    state::State,
};

pub(crate) use self::elect::Act;
pub use self::members::{ChangeError, Changed, Members};
use self::opening::{Opened, Opening};
use crate::{
    clock::Moment,
    config::Config,
    raft::{
        Damage, Fatal,
        lease::Lease,
        machine::{Machine, Progress},
        mux::Mux,
        network::Network,
        recent::Common,
        state_machine::StateMachine,
        types::{self, Payload, Types, Verdict},
    },
    status::Role,
};

/// What a group is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    /// The log of all groups of this node.
    pub(crate) log: Arc<dyn GroupLog>,
    /// The rows of all shards of this node.
    pub(crate) state: Arc<dyn State>,
    /// Ends the process.
    pub(crate) fatal: Fatal,
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// The way to other members, unless this node is alone.
    pub(crate) mux: Option<Arc<Mux>>,
}

impl Parts {
    /// Erases everything of a shard: rows first, so that what a crash leaves is a log without its rows, which is not
    /// served and erased again.
    pub(crate) async fn erase(&self, shard: ShardId) -> Result<(), String> {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || state.erase(shard))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |outcome| drop(sender.send(outcome)));
        self.log.remove(GroupId(u64::from(shard.0)), done);
        match receiver.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// How a group begins of which nothing is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With this node as its only voter.
    Alone,
    /// With nothing: a leader elsewhere will send what there is.
    Waiting,
}

impl Begin {
    /// How a group begins again that was here before: where there are peers, what is missing is with them.
    pub(crate) fn again(parts: &Parts) -> Self {
        if parts.mux.is_some() {
            Self::Waiting
        } else {
            Self::Alone
        }
    }
}

/// A shard's group on this node.
pub(crate) struct Group {
    node: u64,
    id: GroupId,
    pub(super) raft: Raft<Types>,
    pub(super) machine: Arc<Machine>,
    server: watch::Receiver<RaftServerMetrics<u64, EmptyNode>>,
    log: Arc<dyn GroupLog>,
    /// Whether this node needs nobody's vote.
    alone: bool,
    common: Arc<Common>,
    config: Arc<Config>,
    lease: Arc<Lease>,
    mux: Option<Arc<Mux>>,
    timers: Mutex<elect::Timers>,
    campaigning: AtomicBool,
    stepping_down: AtomicBool,
    /// What openraft is asked by others, at a time; see [`answer`].
    appending: Semaphore,
    voting: Semaphore,
    /// Takes no proposals: ownership is being handed over.
    fenced: AtomicBool,
    /// Neither votes nor campaigns; see [`probation`].
    probation: AtomicBool,
    /// Held while a batch is in openraft's hands.
    writing: AsyncMutex<()>,
    /// One change of members or transfer at a time.
    changing: AsyncMutex<()>,
    /// Held while something is done with a snapshot that comes in.
    pub(super) receiving: AsyncMutex<()>,
}

impl Group {
    /// Checks what is on disk, replays what is committed, and starts the group. A new group begins as `begin` says; an
    /// old one goes on with the members it has.
    pub(crate) async fn start(
        shard: ShardId,
        parts: Parts,
        begin: Begin,
        told: watch::Sender<u64>,
    ) -> Result<Self, Damage> {
        let node = parts.config.node.0;
        let id = GroupId(u64::from(shard.0));
        let opening = Opening {
            shard,
            node,
            log: Arc::clone(&parts.log),
            state: parts.state,
            fatal: parts.fatal,
            with_peers: parts.mux.is_some(),
            told,
        };
        let (log, config, mux) = (parts.log, parts.config, parts.mux);
        let Opened {
            store,
            machine,
            had_leader,
            probation,
            sole_voter,
        } = tokio::task::spawn_blocking(move || opening.open())
            .await
            .map_err(|error| Damage::new(format!("recovery ended: {error}")))??;
        let machine = Arc::new(machine);
        let common = store.common();
        let lease = Arc::new(Lease::new(node, config.lease()));
        let network = Network {
            group: id.0,
            mux: mux.clone(),
            lease: Arc::clone(&lease),
        };
        let settings = Arc::new(settings(shard, &config, mux.is_some()));
        let raft = Raft::new(
            node,
            settings,
            network,
            store,
            StateMachine(Arc::clone(&machine)),
        )
        .await
        .map_err(|error| stopped(&machine, &error))?;
        let server = raft.server_metrics();
        let restrained = had_leader && !sole_voter;
        let promised = restrained.then(|| Moment::now().plus(config.election_max));
        let mut group = Self {
            node,
            id,
            raft,
            machine,
            server,
            log,
            alone: sole_voter,
            common,
            config,
            lease,
            mux,
            timers: Mutex::new(elect::Timers::new(promised.unwrap_or_default())),
            campaigning: AtomicBool::new(false),
            stepping_down: AtomicBool::new(false),
            appending: Semaphore::new(answer::APPENDS_MAX),
            voting: Semaphore::new(answer::VOTES_MAX),
            fenced: AtomicBool::new(false),
            probation: AtomicBool::new(probation),
            writing: AsyncMutex::new(()),
            changing: AsyncMutex::new(()),
            receiving: AsyncMutex::new(()),
        };
        group.rise(begin).await?;
        Ok(group)
    }

    /// Makes a new group, or lets an only voter take office without waiting for a timer.
    async fn rise(&mut self, begin: Begin) -> Result<(), Damage> {
        let initialized = self
            .raft
            .is_initialized()
            .await
            .map_err(|error| stopped(&self.machine, &error))?;
        let risen = if !initialized && begin == Begin::Waiting {
            self.begin_probation().await.map_err(Damage::new)
        } else if !initialized {
            // A crash on the way is harmless: entry 0 says who votes, and the next start goes on from there.
            self.alone = true;
            let members = BTreeSet::from([self.node]);
            self.raft
                .initialize(members)
                .await
                .map_err(|error| stopped(&self.machine, &error))
        } else if self.alone {
            self.raft
                .trigger()
                .elect()
                .await
                .map_err(|error| stopped(&self.machine, &error))
        } else {
            Ok(())
        };
        if risen.is_err() {
            self.shutdown().await;
        }
        risen
    }

    /// The term in which this node owns the shard, once the first entry of that term is applied, and with it
    /// all that was committed before, and while nobody else can own it.
    pub(crate) fn term(&self) -> Option<Term> {
        if self.fenced.load(Ordering::Acquire) || self.machine.is_quarantined() {
            return None;
        }
        let leader = self.speaks_as()?;
        let term = types::owner_term(leader);
        (term == self.machine.applied_term()).then_some(Term(term))
    }

    /// The leadership in which this node may speak for the group now.
    fn speaks_as(&self) -> Option<LeaderId<u64>> {
        let server = self.server.borrow();
        if server.state != ServerState::Leader || !server.vote.committed {
            return None;
        }
        let leader = server.vote.leader_id;
        let members = server.membership_config.membership();
        self.lease
            .holds(leader, members, Moment::now())
            .then_some(leader)
    }

    /// Resolves when this node owns the shard, if that is for this node alone to decide, or when the group stopped.
    pub(crate) async fn settled(&self) {
        if !self.alone {
            return;
        }
        let mut metrics = self.raft.metrics();
        // The sender lives as long as the group: an error means that the group has ended.
        drop(
            metrics
                .wait_for(|metrics| metrics.running_state.is_err() || self.term().is_some())
                .await,
        );
    }

    /// Commits a batch and applies it. At most one call at a time, so that a batch never waits in openraft. Without a
    /// majority the answer is [`Refusal::Unknown`] when the lease is over for a moment: it must not hang.
    pub(crate) async fn commit(&self, batch: Bytes) -> Result<(), Refusal> {
        let _writing = self.writing.lock().await;
        if self.fenced.load(Ordering::Acquire) {
            return Err(Refusal::NotOwner);
        }
        let truncations = self.common.truncations.load(Ordering::Acquire);
        let mut write = std::pin::pin!(self.raft.client_write(Payload(batch)));
        let mut silent: Option<Instant> = None;
        let outcome = loop {
            if let Ok(outcome) = timeout(self.config.heartbeat, &mut write).await {
                break outcome;
            }
            if cfg!(feature = "plant-ack-alone") {
                // The bug that `umbel-chaos cluster` has to find: acknowledged before a majority has it.
                return Ok(());
            }
            if self.speaks_as().is_some() {
                silent = None;
            } else if silent.get_or_insert_with(Instant::now).elapsed() >= self.config.heartbeat {
                return Err(Refusal::Unknown);
            }
        };
        match outcome {
            Ok(response) => match response.data {
                Verdict::Applied => Ok(()),
                Verdict::Fenced => Err(Refusal::NotOwner),
            },
            // The same answer for "never appended" and "appended, and removed by the next leader". A removed
            // entry may still be on another node and commit there, if that leader falls in turn.
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))
                if self.common.truncations.load(Ordering::Acquire) == truncations =>
            {
                Err(Refusal::NotOwner)
            },
            Err(RaftError::APIError(_)) => Err(Refusal::Unknown),
            Err(RaftError::Fatal(_)) => {
                self.notice_end();
                Err(Refusal::Unknown)
            },
        }
    }

    /// Quarantines the shard when openraft ended the group over something it could not read or write, or panicked.
    pub(crate) fn notice_end(&self) {
        let metrics = self.raft.metrics();
        let running = metrics.borrow().running_state.clone();
        match running {
            // The core holds the other end; one that panicked says nothing more.
            Ok(()) | Err(openraft::error::Fatal::Stopped)
                if metrics.has_changed().is_err()
                    && !self.common.stopping.load(Ordering::Acquire) =>
            {
                self.machine
                    .quarantine("the group ended without a word".to_owned());
            },
            Ok(()) | Err(openraft::error::Fatal::Stopped) => {},
            Err(error) => self.machine.quarantine(format!("the group ended: {error}")),
        }
    }

    /// What this node is in the group.
    pub(crate) fn role(&self) -> Role {
        let state = self.server.borrow().state;
        match state {
            ServerState::Leader => Role::Owner,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        }
    }

    /// How far the state is.
    pub(crate) fn progress(&self) -> Progress {
        self.machine.progress()
    }

    /// Index of the last log entry.
    pub(crate) fn last_log(&self) -> Option<u64> {
        self.log.range(self.id).end.checked_sub(1)
    }

    /// Why the shard serves nothing, if so.
    pub(crate) fn quarantined(&self) -> Option<String> {
        self.machine.quarantined()
    }

    /// Whether the shard serves nothing. Cheaper than asking why.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.machine.is_quarantined()
    }

    /// Stops the group. What is in flight is answered [`Refusal::Unknown`].
    pub(crate) async fn shutdown(&self) {
        self.common.stopping.store(true, Ordering::Release);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = self.id.0, %error, "group ended badly");
        }
        self.machine.close().await;
    }
}

/// Where there are peers, elections and heartbeats are ours ([`elect`]): openraft 0.9 draws its election timeout once for
/// a process, so that two members can get into each other's way again and again, knows no pre-vote, and beats each group
/// at a time of its own, which nothing could gather into common frames.
fn settings(shard: ShardId, config: &Config, with_peers: bool) -> openraft::Config {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: format!("shard-{shard}"),
        // With peers: how long an append is waited for before it is sent again. Its answer may come through two disks and
        // two busy processors; what is sent again meanwhile only makes both busier. The lease takes late answers, too, so
        // on a way that takes longer than this nothing is ever replicated by an owner who keeps its lease.
        heartbeat_interval: millis(if with_peers {
            (config.heartbeat * 3).min(config.election_min.saturating_sub(Duration::from_millis(1)))
        } else {
            config.heartbeat
        }),
        election_timeout_min: millis(config.election_min),
        election_timeout_max: millis(config.election_max),
        // The keeper decides when, and takes the snapshot outside of openraft, where a failure is not the end.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: if with_peers {
            config.snapshots.peer_tail_entries
        } else {
            config.snapshots.tail_entries
        },
        enable_elect: !with_peers,
        enable_heartbeat: !with_peers,
        ..openraft::Config::default()
    }
}

fn stopped(machine: &Machine, error: &dyn std::fmt::Display) -> Damage {
    Damage::new(
        machine
            .quarantined()
            .unwrap_or_else(|| format!("the group stopped: {error}")),
    )
}

#[cfg(test)]
mod tests;
