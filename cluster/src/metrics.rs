//! Names of this room's metrics, and handles registered once: a lookup per proposal would cost more than the
//! proposal's own bookkeeping.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use umbel_storage::Refusal;

/// Groups of this node by `state`: owned, other, quarantined.
pub const GROUPS: &str = "umbel_shard_groups";
/// Commands answered, by `outcome`.
pub const PROPOSALS: &str = "umbel_shard_proposals_total";
/// Commands in one log entry.
pub const BATCH_COMMANDS: &str = "umbel_shard_batch_commands";
/// Commands that wait, over all shards.
pub const QUEUED: &str = "umbel_shard_queued_commands";
/// From proposing a batch to its being applied.
pub const COMMIT: &str = "umbel_shard_commit_seconds";
/// From the call of a proposer to its answer.
pub const PROPOSAL: &str = "umbel_shard_proposal_seconds";
/// Snapshots, by `result`: done, failed.
pub const SNAPSHOTS: &str = "umbel_shard_snapshots_total";
/// Duration of a snapshot, checkpoint included.
pub const SNAPSHOT: &str = "umbel_shard_snapshot_seconds";
/// Shards whose state was rebuilt while the node ran.
pub const REBUILDS: &str = "umbel_shard_rebuilds_total";
/// Times this node stood for election, by `outcome`: won, lost (not enough votes), denied (others would not vote).
pub const ELECTIONS: &str = "umbel_shard_elections_total";
/// Times this node gave up a shard because no majority answered.
pub const STEP_DOWNS: &str = "umbel_shard_step_downs_total";
/// Times this node had to stop speaking for a shard it owned, because no majority answered in time.
pub const LEASES_LOST: &str = "umbel_shard_leases_lost_total";
/// How late the look at all groups came that beats their hearts: a node that is too busy for its groups.
pub const LOOK_DELAY: &str = "umbel_shard_look_delay_seconds";
/// Times this node handed a shard to another, by `result`: done, failed.
pub const TRANSFERS: &str = "umbel_shard_transfers_total";
/// Snapshots sent to other members, by `result`: done, failed.
pub const SNAPSHOTS_SENT: &str = "umbel_shard_snapshots_sent_total";
/// Replicas that may not vote because they may have forgotten something.
pub const PROBATION: &str = "umbel_shard_probation";
/// Newcomers that asked this node to be let in, by `outcome`: admitted, refused, limited.
pub const JOINS: &str = "umbel_cluster_joins_total";
/// Orders of the meta leader to groups, by `order` and `result`.
pub const ORDERS: &str = "umbel_cluster_orders_total";
/// Shards that are not yet where they are to be, as the meta leader sees it.
pub const MOVING: &str = "umbel_cluster_moving_shards";
/// Nodes of the cluster map by `state`.
pub const NODES: &str = "umbel_cluster_nodes";

/// Says what each metric means.
pub fn describe() {
    describe_counter!(
        JOINS,
        "Newcomers that asked to be let in, by outcome (admitted, refused, limited)"
    );
    // Somebody who watches it wants to see the first refusal rise from 0.
    for outcome in ["admitted", "refused", "limited"] {
        counter!(JOINS, "outcome" => outcome).increment(0);
    }
    describe_counter!(ORDERS, "Orders of the meta leader to groups, by result");
    describe_gauge!(
        MOVING,
        "Shards that are not yet where they are to be, as the meta leader sees it"
    );
    describe_gauge!(NODES, "Nodes of the cluster map, by state");
    crate::gossip::metrics::describe();
    crate::link::metrics::describe();
    describe_gauge!(
        GROUPS,
        "Shard groups of this node by state (owned, other, quarantined)"
    );
    describe_counter!(PROPOSALS, "Commands answered, by outcome");
    describe_histogram!(BATCH_COMMANDS, "Commands in one log entry");
    describe_gauge!(QUEUED, "Commands waiting to be proposed, over all shards");
    describe_histogram!(
        COMMIT,
        Unit::Seconds,
        "Time to commit and apply one log entry"
    );
    describe_histogram!(
        PROPOSAL,
        Unit::Seconds,
        "Time from proposing a command to its answer"
    );
    describe_counter!(SNAPSHOTS, "Shard snapshots, by result");
    describe_histogram!(SNAPSHOT, Unit::Seconds, "Time to take one shard snapshot");
    describe_counter!(
        ELECTIONS,
        "Times this node stood for election of a shard, by outcome (won, lost, denied)"
    );
    describe_counter!(
        STEP_DOWNS,
        "Times this node gave up a shard because no majority answered"
    );
    describe_counter!(
        LEASES_LOST,
        "Times this node had to stop speaking for a shard it owned, because no majority answered in time"
    );
    describe_histogram!(
        LOOK_DELAY,
        Unit::Seconds,
        "How late the look at all groups came that beats their hearts"
    );
    describe_counter!(
        TRANSFERS,
        "Times this node handed a shard to another, by result"
    );
    describe_counter!(SNAPSHOTS_SENT, "Snapshots sent to other members, by result");
    describe_gauge!(
        PROBATION,
        "Replicas that may not vote because they may have forgotten something"
    );
    describe_counter!(
        REBUILDS,
        "Shards whose damaged state was rebuilt while the node ran"
    );
}

/// The handles.
pub(crate) struct Meters {
    applied: Counter,
    not_owner: Counter,
    busy: Counter,
    storage_full: Counter,
    too_large: Counter,
    quarantined: Counter,
    unknown: Counter,
    batch_commands: Histogram,
    commit: Histogram,
    proposal: Histogram,
    snapshots_done: Counter,
    snapshots_failed: Counter,
    snapshot: Histogram,
    rebuilds: Counter,
    queued: Gauge,
    groups_owned: Gauge,
    groups_other: Gauge,
    groups_quarantined: Gauge,
    probation: Gauge,
}

impl Meters {
    /// Registers every handle.
    pub(crate) fn new() -> Self {
        let outcome = |name: &'static str| counter!(PROPOSALS, "outcome" => name);
        Self {
            applied: outcome("applied"),
            not_owner: outcome("not_owner"),
            busy: outcome("busy"),
            storage_full: outcome("storage_full"),
            too_large: outcome("too_large"),
            quarantined: outcome("quarantined"),
            unknown: outcome("unknown"),
            batch_commands: histogram!(BATCH_COMMANDS),
            commit: histogram!(COMMIT),
            proposal: histogram!(PROPOSAL),
            snapshots_done: counter!(SNAPSHOTS, "result" => "done"),
            snapshots_failed: counter!(SNAPSHOTS, "result" => "failed"),
            snapshot: histogram!(SNAPSHOT),
            rebuilds: counter!(REBUILDS),
            queued: gauge!(QUEUED),
            groups_owned: gauge!(GROUPS, "state" => "owned"),
            groups_other: gauge!(GROUPS, "state" => "other"),
            groups_quarantined: gauge!(GROUPS, "state" => "quarantined"),
            probation: gauge!(PROBATION),
        }
    }

    /// Counts a command refused before it waited.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.outcome(Err(refusal)).increment(1);
    }

    /// Counts a command that waited and is answered.
    pub(crate) fn settled(&self, outcome: Result<(), Refusal>, took: Duration) {
        self.outcome(outcome).increment(1);
        self.proposal.record(took);
    }

    /// Counts an entry.
    pub(crate) fn batch(&self, commands: usize, took: Duration, outcome: Result<(), Refusal>) {
        if outcome.is_ok() {
            self.commit.record(took);
            self.batch_commands
                .record(u32::try_from(commands).unwrap_or(u32::MAX));
        }
    }

    /// Counts a snapshot.
    pub(crate) fn snapshot(&self, done: bool, took: Duration) {
        if done {
            self.snapshots_done.increment(1);
            self.snapshot.record(took);
        } else {
            self.snapshots_failed.increment(1);
        }
    }

    /// Counts a shard rebuilt while the node ran.
    pub(crate) fn rebuilt(&self) {
        self.rebuilds.increment(1);
    }

    /// Sets what is counted over all shards.
    pub(crate) fn totals(&self, totals: Totals) {
        self.queued.set(count(totals.queued));
        self.groups_owned.set(count(totals.owned));
        self.groups_other.set(count(totals.other));
        self.groups_quarantined.set(count(totals.quarantined));
        self.probation.set(count(totals.probation));
    }

    fn outcome(&self, outcome: Result<(), Refusal>) -> &Counter {
        match outcome {
            Ok(()) => &self.applied,
            Err(Refusal::NotOwner) => &self.not_owner,
            Err(Refusal::Busy) => &self.busy,
            Err(Refusal::StorageFull) => &self.storage_full,
            Err(Refusal::TooLarge) => &self.too_large,
            Err(Refusal::Quarantined) => &self.quarantined,
            Err(Refusal::Unknown) => &self.unknown,
        }
    }
}

/// What is counted over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Commands waiting.
    pub(crate) queued: usize,
    /// Groups this node owns.
    pub(crate) owned: usize,
    /// Groups it does not own.
    pub(crate) other: usize,
    /// Groups that serve nothing.
    pub(crate) quarantined: usize,
    /// Groups that may not vote.
    pub(crate) probation: usize,
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}
