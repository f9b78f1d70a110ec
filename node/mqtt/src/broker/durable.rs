//! Rows on their way to storage.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use umbel_core::ids::{ShardId, Term};
use umbel_storage::{Receipt, Refusal, Table, Write};

use super::{
    Broker,
    mailbox::Mailbox,
    metrics::{self, Drop},
    rows,
    ticket::{Outcome, Pending, start},
};

/// Bytes of rows proposed together. A log entry may have 4 MiB; a fan-out to many sessions is cut well below it.
const PROPOSAL_BYTES_MAX: usize = 1024 * 1024;

/// Most rows deleted by one proposal: a log entry of that many keys stays far below its limit.
const DELETIONS_MAX: usize = 5_000;

/// How long deletions wait that were refused.
const DELETE_RETRY: Duration = Duration::from_secs(1);

/// A queued message of one session, by the number of its row.
#[derive(Debug)]
struct Row {
    mailbox: Arc<Mailbox>,
    sequence: u64,
    cost: usize,
}

#[derive(Debug)]
struct Group {
    shard: ShardId,
    term: Term,
    bytes: usize,
    writes: Vec<Write>,
    rows: Vec<Row>,
}

/// The rows of one message for all durable sessions that get it, by shard. At most one group of a shard waits for its
/// proposal: however many sessions there are, only what storage lets wait is in memory.
#[derive(Debug)]
pub(crate) struct Batch {
    patience: Patience,
    groups: Vec<Group>,
    proposed: Vec<(ShardId, Pending)>,
}

impl Batch {
    /// Nothing yet.
    pub(crate) const fn new(patience: Patience) -> Self {
        Self {
            patience,
            groups: Vec::new(),
            proposed: Vec::new(),
        }
    }

    /// Whether no row was added.
    pub(crate) const fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.proposed.is_empty()
    }

    /// Adds the row of one session.
    pub(crate) fn add(
        &mut self,
        broker: &Arc<Broker>,
        mailbox: Arc<Mailbox>,
        (sequence, cost): (u64, usize),
        row: Vec<u8>,
    ) {
        let (shard, term) = (mailbox.shard(), mailbox.term());
        let bytes = row.len();
        let write = Write::put(
            Table::Queue,
            rows::queue_key(mailbox.client(), sequence),
            row,
        );
        let row = Row {
            mailbox,
            sequence,
            cost,
        };
        let known = self
            .groups
            .iter()
            .position(|group| (group.shard, group.term) == (shard, term));
        let is_full = |index: &usize| {
            self.groups
                .get(*index)
                .is_some_and(|group| group.bytes + bytes > PROPOSAL_BYTES_MAX)
        };
        if let Some(index) = known.filter(is_full) {
            let group = self.groups.swap_remove(index);
            self.propose(broker, group);
        } else if let Some(group) = known.and_then(|index| self.groups.get_mut(index)) {
            group.bytes += bytes;
            group.writes.push(write);
            group.rows.push(row);
            return;
        }
        self.groups.push(Group {
            shard,
            term,
            bytes,
            writes: vec![write],
            rows: vec![row],
        });
    }

    /// Proposes what is left; done when all rows are committed and their sessions know.
    pub(crate) fn commit(self, broker: &Arc<Broker>) -> Pending {
        let each = self.commit_each(broker).into_iter();
        each.fold(Pending::Ready(Outcome::Done), |done, (_, next)| {
            done.and(next)
        })
    }

    /// As [`Self::commit`], shard by shard; one with many rows may come more than once.
    pub(crate) fn commit_each(mut self, broker: &Arc<Broker>) -> Vec<(ShardId, Pending)> {
        for group in mem::take(&mut self.groups) {
            self.propose(broker, group);
        }
        self.proposed
    }

    fn propose(&mut self, broker: &Arc<Broker>, group: Group) {
        let Group {
            shard,
            term,
            writes,
            rows,
            ..
        } = group;
        let again = (self.patience == Patience::WhileBusy).then(|| writes.clone());
        let receipt = broker.propose(shard, term, writes);
        let broker = Arc::clone(broker);
        let committed = start(Box::pin(async move {
            let mut outcome = receipt.await;
            if let Some(writes) = again {
                let mut tries = Patience::tries();
                while outcome == Err(Refusal::Busy) && tries.next().is_some() {
                    Patience::pause().await;
                    outcome = broker.propose(shard, term, writes.clone()).await;
                }
            }
            broker.settle(rows, outcome);
            Outcome::from(outcome)
        }));
        self.proposed.push((shard, committed));
    }
}

/// What to do when a shard is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Say so: a client sends its message again.
    Never,
    /// Try again for a while: nobody repeats what the cluster says, a will or what a shadow is to become, and it holds
    /// up nobody but the device it is about.
    WhileBusy,
}

impl Patience {
    /// How often it is tried again. With [`Self::pause`] this is two seconds: a full queue takes a tenth of that, and who
    /// waits holds a place in the fleet.
    pub(crate) const fn tries() -> std::ops::Range<u32> {
        0..40
    }

    /// How long a message waits for a shard without an owner. A client is told in time to say it again; what nobody says
    /// again waits for as long as an election may take on a bad day.
    pub(crate) const fn waits_for_owner(self) -> Duration {
        match self {
            Self::Never => Duration::from_secs(2),
            Self::WhileBusy => Duration::from_secs(6),
        }
    }

    /// Between two tries: some batches of a busy shard.
    pub(crate) async fn pause() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Broker {
    /// Proposes writes to a shard of this node, in the term in which it took the homes of the shard up. A home of a term
    /// that is over writes no more, also if the shard came back meanwhile: the next homes do not know its rows.
    pub(crate) fn propose(&self, shard: ShardId, term: Term, writes: Vec<Write>) -> Receipt {
        let term = if self.homes.is_following() {
            Some(term)
        } else {
            self.ledger.term(shard)
        };
        match term {
            Some(term) => self.ledger.propose(shard, term, writes),
            None => Receipt::ready(Err(Refusal::NotOwner)),
        }
    }

    /// Proposes writes of a home.
    fn propose_for(&self, home: &Mailbox, writes: Vec<Write>) -> Receipt {
        self.propose(home.shard(), home.term(), writes)
    }

    /// Proposes writes of a home; done when they are committed.
    pub(crate) fn write(&self, home: &Mailbox, writes: Vec<Write>) -> Pending {
        let receipt = self.propose_for(home, writes);
        start(Box::pin(async move { Outcome::from(receipt.await) }))
    }

    fn settle(self: &Arc<Self>, rows: Vec<Row>, outcome: Result<(), Refusal>) {
        if outcome.is_err() {
            metrics::dropped(Drop::NotStored, rows.len());
        }
        for row in rows {
            let is_known = row.mailbox.settle(row.sequence, row.cost, outcome);
            if is_known {
                self.feed(&row.mailbox);
                if outcome == Err(Refusal::Unknown) {
                    // whoever sent it sends it again, as another row: should this one come to be, it goes
                    self.delete_soon(&row.mailbox, row.sequence);
                }
            } else if outcome.is_ok() {
                // the session ended between the offer and the commit: its rows were deleted before this one came
                let key = rows::queue_key(row.mailbox.client(), row.sequence);
                drop(self.propose_for(&row.mailbox, vec![Write::delete(Table::Queue, key)]));
            }
        }
    }

    /// Removes what a session that ended left in storage. The fleet did so too; rows that were on their way then come
    /// before this in the log.
    pub(crate) fn purge(&self, mailbox: &Mailbox) {
        let prefix = rows::prefix(mailbox.client());
        let writes = [Table::Subscription, Table::Queue, Table::Inbound]
            .map(|table| Write::delete_prefix(table, prefix.clone()));
        drop(self.propose_for(mailbox, writes.into()));
    }
}

/// Acknowledged rows that wait to be deleted together. Losing them in a crash costs a duplicate, which QoS 1 allows and
/// which a released QoS 2 row does not cause.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    waiting: Mutex<Vec<(Arc<Mailbox>, u64)>>,
    scheduled: AtomicBool,
}

impl Broker {
    /// A row is acknowledged: it will be deleted soon.
    pub(crate) fn delete_soon(self: &Arc<Self>, mailbox: &Arc<Mailbox>, sequence: u64) {
        self.deletions
            .waiting
            .lock()
            .push((Arc::clone(mailbox), sequence));
        self.schedule_deletions(self.config.delete_delay);
    }

    fn schedule_deletions(self: &Arc<Self>, delay: Duration) {
        if self.deletions.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            broker.deletions.scheduled.store(false, Ordering::Release);
            broker.delete_now().await;
        });
    }

    /// The last work before storage stops.
    pub async fn finish(self: &Arc<Self>) {
        self.delete_now().await;
    }

    /// Deletes the acknowledged rows that wait.
    pub(crate) async fn delete_now(self: &Arc<Self>) {
        let mut waiting = mem::take(&mut *self.deletions.waiting.lock());
        let home = |mailbox: &Mailbox| (mailbox.shard(), mailbox.term());
        waiting.sort_by_key(|(mailbox, _)| home(mailbox));
        let mut proposals = Vec::new();
        let by_shard = waiting.chunk_by(|one, other| home(&one.0) == home(&other.0));
        for rows in by_shard.flat_map(|rows| rows.chunks(DELETIONS_MAX)) {
            let Some((mailbox, _)) = rows.first() else {
                continue;
            };
            let writes = rows.iter().map(|(mailbox, sequence)| {
                Write::delete(Table::Queue, rows::queue_key(mailbox.client(), *sequence))
            });
            proposals.push((rows, self.propose_for(mailbox, writes.collect())));
        }
        let mut refused = Vec::new();
        for (rows, receipt) in proposals {
            if receipt.await.is_ok() {
                for (mailbox, sequence) in rows {
                    let mut state = mailbox.lock();
                    let mut is_waited_for = false;
                    if let Some(outbound) = state.outbound_if_any() {
                        outbound.end_delete(*sequence);
                        is_waited_for = outbound.waits_for_identifier();
                    }
                    state.tidy();
                    drop(state);
                    if is_waited_for {
                        self.feed(mailbox);
                    }
                }
            } else {
                refused.extend(
                    rows.iter()
                        .filter(|(mailbox, _)| !mailbox.lock().ended)
                        .cloned(),
                );
            }
        }
        if !refused.is_empty() {
            self.deletions.waiting.lock().append(&mut refused);
            self.schedule_deletions(DELETE_RETRY);
        }
    }
}
