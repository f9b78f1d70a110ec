//! One running group: a shard's log, its state, and openraft between them.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use openraft::{
    EmptyNode, Raft, ServerState, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
    metrics::RaftServerMetrics,
};
use tokio::sync::watch;
use umbel_core::ids::{ShardId, Term};
use umbel_storage::{
    Refusal,
    log::{GroupId, GroupLog, Meta},
    state::State,
};

use crate::{
    config::Config,
    raft::{
        Damage, Fatal,
        log_store::LogStore,
        machine::{Machine, Progress},
        network::NoPeers,
        recent::Common,
        recover::{self, Checkpoint},
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
}

/// A shard's group on this node.
pub(crate) struct Group {
    node: u64,
    id: GroupId,
    raft: Raft<Types>,
    machine: Arc<Machine>,
    server: watch::Receiver<RaftServerMetrics<u64, EmptyNode>>,
    log: Arc<dyn GroupLog>,
    /// Whether this node needs nobody's vote.
    alone: bool,
    common: Arc<Common>,
}

impl Group {
    /// Checks what is on disk, replays what is committed, and starts the group. A new group begins with this
    /// node as its only voter; an old one goes on with the members it has.
    pub(crate) async fn start(shard: ShardId, parts: Parts) -> Result<Self, Damage> {
        let Parts {
            log,
            state,
            fatal,
            config,
        } = parts;
        let node = config.node.0;
        let id = GroupId(u64::from(shard.0));
        let (store, machine, sole_voter) = {
            let (log, state) = (Arc::clone(&log), Arc::clone(&state));
            tokio::task::spawn_blocking(move || open(shard, node, &log, state, fatal))
                .await
                .map_err(|error| Damage::new(format!("recovery ended: {error}")))??
        };
        let machine = Arc::new(machine);
        let common = store.common();
        let raft = Raft::new(
            node,
            Arc::new(settings(shard, &config)),
            NoPeers,
            store,
            StateMachine(Arc::clone(&machine)),
        )
        .await
        .map_err(|error| stopped(&machine, &error))?;
        let server = raft.server_metrics();
        let alone = sole_voter;
        let mut group = Self {
            node,
            id,
            raft,
            machine,
            server,
            log,
            alone,
            common,
        };
        group.rise().await?;
        Ok(group)
    }

    /// Makes a new group, or lets an only voter take office without waiting for a timer.
    async fn rise(&mut self) -> Result<(), Damage> {
        let begun = self
            .raft
            .is_initialized()
            .await
            .map_err(|error| stopped(&self.machine, &error))?;
        let risen = if !begun {
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
    /// all that was committed before.
    pub(crate) fn term(&self) -> Option<Term> {
        let term = {
            let server = self.server.borrow();
            (server.state == ServerState::Leader && server.vote.committed)
                .then(|| types::owner_term(server.vote.leader_id))
        };
        term.filter(|term| *term == self.machine.applied_term() && !self.machine.is_quarantined())
            .map(Term)
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

    /// Commits a batch and applies it. At most one call at a time, so that a batch never waits in openraft.
    pub(crate) async fn commit(&self, batch: Bytes) -> Result<(), Refusal> {
        let truncations = self.common.truncations.load(Ordering::Acquire);
        match self.raft.client_write(Payload(batch)).await {
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

    /// Quarantines the shard when openraft ended the group over something it could not read or write.
    pub(crate) fn notice_end(&self) {
        let running = self.raft.metrics().borrow().running_state.clone();
        match running {
            Ok(()) | Err(openraft::error::Fatal::Stopped) => {},
            Err(error) => self.machine.quarantine(format!("the group ended: {error}")),
        }
    }

    /// Takes a snapshot, remembers durably how far the state is, and lets openraft purge the log.
    pub(crate) async fn snapshot(&self) -> Result<(), Damage> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Damage::new(format!("{what} of shard {}: {error}", self.id))
        };
        let mark = self
            .machine
            .take_snapshot()
            .await
            .map_err(|error| failed("snapshot", &error))?;
        let mark = Checkpoint::of(&mark)
            .encode()
            .map_err(|error| failed("mark", &error))?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.log.set_meta(
            self.id,
            Meta::Checkpoint,
            mark.into(),
            Box::new(move |outcome| drop(sender.send(outcome))),
        );
        match receiver.await {
            Ok(Ok(())) => {},
            Ok(Err(error)) => return Err(failed("checkpoint mark", &error)),
            Err(error) => return Err(failed("checkpoint mark", &error)),
        }
        self.machine.prepare();
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|error| stopped(&self.machine, &error))
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

fn open(
    shard: ShardId,
    node: u64,
    log: &Arc<dyn GroupLog>,
    state: Arc<dyn State>,
    fatal: Fatal,
) -> Result<(LogStore, Machine, bool), Damage> {
    let mut store = LogStore::open(GroupId(u64::from(shard.0)), node, Arc::clone(log), fatal)?;
    let recovered = recover::recover(shard, state.as_ref(), log.as_ref(), &store)?;
    let sole_voter = recover::sole_voter(node, &recovered.applied, &store)?;
    if sole_voter {
        store.trust_whole_log();
    }
    let machine = Machine::new(
        shard,
        state,
        store.common(),
        recovered.applied,
        recovered.snapshot,
    )?;
    Ok((store, machine, sole_voter))
}

fn settings(shard: ShardId, config: &Config) -> openraft::Config {
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: format!("shard-{shard}"),
        heartbeat_interval: millis(config.heartbeat),
        election_timeout_min: millis(config.election_min),
        election_timeout_max: millis(config.election_max),
        // The keeper decides when, and takes the snapshot outside of openraft, where a failure is not the end.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: config.snapshots.tail_entries,
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
