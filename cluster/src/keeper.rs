//! One task per node: takes snapshots when they are due, rebuilds shards found damaged, and counts.
//!
//! One shard at a time: a snapshot reads a whole shard, and a checkpoint syncs the rows of all of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};
use umbel_core::ids::ShardId;
use umbel_storage::log::{GroupId, LogError};

use crate::{
    hosted::Hosted,
    metrics::{Meters, Totals},
    raft::{
        group::{Group, Parts},
        rpc::{Answer, Ask},
    },
};

/// A shard is rebuilt this often before it is left alone: a disk that damages it again and again has to be
/// looked at by somebody.
const REBUILDS_MAX: u32 = 5;

/// How long a node with a full disk waits before it tries again to hand its shards over: where every disk is full, they
/// must not go round.
const LEAVE_AGAIN_AFTER: Duration = Duration::from_secs(15);

/// What the keeper keeps.
pub(crate) struct Keeper {
    /// All shards of the node.
    pub(crate) hosted: Arc<Hosted>,
    /// What groups are made of.
    pub(crate) parts: Parts,
    /// Where it counts.
    pub(crate) meters: Arc<Meters>,
    /// How often each shard was rebuilt since the node started.
    pub(crate) rebuilds: BTreeMap<ShardId, u32>,
    /// Snapshots that failed, and when to try again.
    pub(crate) retry_at: BTreeMap<ShardId, Instant>,
    /// When to look again whether shards have to leave a full disk.
    pub(crate) leave_at: Instant,
}

impl Keeper {
    /// Looks after the shards until it is aborted.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.parts.config.snapshots.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.count();
            self.rebuild_damaged().await;
            self.replace_damaged().await;
            self.leave_full_disk();
            self.take_snapshots().await;
        }
    }

    fn count(&self) {
        // Somebody has to look, or a sync that does not end is not noticed.
        let _looked = self.parts.log.pace();
        let mut totals = Totals::default();
        for shard in self.hosted.all().values() {
            totals.queued += shard.queue.len();
            if let Some(group) = shard.group() {
                group.notice_end();
                totals.probation += usize::from(group.is_on_probation());
            }
            if shard.is_quarantined() {
                totals.quarantined += 1;
            } else if shard.term().is_some() {
                totals.owned += 1;
            } else {
                totals.other += 1;
            }
        }
        self.meters.totals(totals);
    }

    /// A shard whose rows were found damaged while it ran: its log is believed, so the rows come back.
    async fn rebuild_damaged(&mut self) {
        for id in self.parts.state.damaged() {
            let Some(shard) = self.hosted.get(id) else {
                continue;
            };
            // A shard that did not start stays down: the reason has not gone away.
            if shard.group().is_none() {
                continue;
            }
            let rebuilds = self.rebuilds.entry(id).or_default();
            if *rebuilds < REBUILDS_MAX {
                *rebuilds += 1;
                shard.restart(self.parts.clone()).await;
                self.meters.rebuilt();
            } else {
                let why = format!("its state was damaged again after {REBUILDS_MAX} rebuilds");
                shard.stop(why).await;
            }
        }
    }

    /// A node whose disk is full refuses every write: who has room should own its shards.
    fn leave_full_disk(&mut self) {
        let full = matches!(self.parts.log.admit(), Err(LogError::Full));
        if !full || self.parts.mux.is_none() || Instant::now() < self.leave_at {
            return;
        }
        self.leave_at = Instant::now() + LEAVE_AGAIN_AFTER;
        for shard in self.hosted.all().values() {
            let owned = shard.term().is_some();
            if let Some(group) = shard.group().filter(|_| owned) {
                tokio::spawn(group.leave());
            }
        }
    }

    /// A replica whose log or state cannot be believed, of a shard that others own: it begins again with nothing, and gets
    /// everything from them. Only when the owner says that a majority stands behind it *without* this replica: of what only
    /// damaged replicas have, nothing is thrown away (F15).
    async fn replace_damaged(&mut self) {
        let Some(mux) = self.parts.mux.clone() else {
            return;
        };
        for (id, shard) in self.hosted.all().iter() {
            let Some(leader) = shard.take_wanted() else {
                continue;
            };
            let rebuilds = self.rebuilds.entry(*id).or_default();
            if !shard.is_quarantined() || *rebuilds >= REBUILDS_MAX {
                continue;
            }
            if !shard.is_replaceable() {
                if shard.group().is_some() {
                    *rebuilds += 1;
                    shard.restart(self.parts.clone()).await;
                    self.meters.rebuilt();
                }
                continue;
            }
            let within = self.parts.config.election_max;
            let asked = mux.ask(leader, u64::from(id.0), &Ask::Speaks, None, within);
            if !matches!(asked.await, Ok(Answer::Done(true))) {
                continue;
            }
            *rebuilds += 1;
            tracing::warn!(
                shard = id.0,
                node = leader.0,
                "a damaged replica is replaced by what its owner has"
            );
            if let Err(error) = shard.begin_anew(self.parts.clone()).await {
                tracing::error!(shard = id.0, %error, "a damaged replica cannot be erased");
            }
            self.meters.rebuilt();
        }
    }

    async fn take_snapshots(&mut self) {
        let asked = self.parts.log.wants_purge();
        for shard in self.hosted.all().values() {
            let Some(group) = shard.group() else { continue };
            let wanted = asked.contains(&GroupId(u64::from(shard.id.0)));
            if self.is_due(shard.id, &group, wanted) {
                self.take_snapshot(shard.id, &group, wanted).await;
            }
        }
    }

    fn is_due(&self, shard: ShardId, group: &Group, wanted: bool) -> bool {
        let policy = self.parts.config.snapshots;
        let progress = group.progress();
        let fresh_entries = progress
            .applied
            .saturating_sub(progress.snapshot.unwrap_or(0));
        let due = fresh_entries >= policy.entries
            || progress.fresh_bytes >= policy.bytes
            || (wanted && fresh_entries > policy.tail_entries);
        due && !group.is_quarantined()
            && self
                .retry_at
                .get(&shard)
                .is_none_or(|at| *at <= Instant::now())
    }

    async fn take_snapshot(&mut self, shard: ShardId, group: &Group, wanted: bool) {
        let begun = Instant::now();
        let outcome = group.snapshot(wanted).await;
        self.meters.snapshot(outcome.is_ok(), begun.elapsed());
        match outcome {
            Ok(()) => {
                self.retry_at.remove(&shard);
                tracing::debug!(shard = shard.0, took = ?begun.elapsed(), "snapshot taken");
            },
            Err(damage) => {
                self.retry_at
                    .insert(shard, Instant::now() + self.parts.config.snapshots.retry);
                tracing::warn!(shard = shard.0, %damage, "snapshot failed; the log stays");
            },
        }
    }
}
