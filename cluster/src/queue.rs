//! The bounded queue in front of a shard's log.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use umbel_core::ids::Term;
use umbel_storage::{Refusal, Write};

use crate::config::Limits;

/// A command that waits to be proposed.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// The term in which its proposer owned the shard.
    pub(crate) term: Term,
    /// What it writes.
    pub(crate) writes: Vec<Write>,
    /// What it counts as, in bytes.
    pub(crate) weight: usize,
    /// Where the outcome goes.
    pub(crate) answer: oneshot::Sender<Result<(), Refusal>>,
    /// When it was proposed.
    pub(crate) since: Instant,
}

/// Waiting proposals of one shard, in the order they came.
///
/// Law of order: what one task pushes first is taken first.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    waiting: Mutex<Waiting>,
    /// One permit at most: wakes the batcher.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    proposals: VecDeque<Proposal>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// An empty queue.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Adds a proposal, or says at once why not.
    pub(crate) fn push(&self, proposal: Proposal) -> Result<(), Refusal> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(Refusal::Unknown);
        }
        let bytes = waiting.bytes.saturating_add(proposal.weight);
        if waiting.proposals.len() >= self.limits.queue_commands_max
            || bytes > self.limits.queue_bytes_max
        {
            return Err(Refusal::Busy);
        }
        waiting.bytes = bytes;
        waiting.proposals.push_back(proposal);
        let first = waiting.proposals.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The next batch: all that waits, as far as it is of one term and fits an entry. `None` once the queue is
    /// closed and empty.
    pub(crate) async fn take(&self) -> Option<Vec<Proposal>> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut waiting = self.waiting.lock();
                let batch = waiting.take(&self.limits);
                if !batch.is_empty() {
                    return Some(batch);
                }
                if waiting.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// How many commands wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().proposals.len()
    }

    /// Takes no more; what waits is still served.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_one();
    }
}

impl Waiting {
    fn take(&mut self, limits: &Limits) -> Vec<Proposal> {
        let mut batch: Vec<Proposal> = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.proposals.front() {
            let fits = batch.len() < limits.batch_commands_max
                && bytes + next.weight <= limits.batch_bytes_max
                && batch.last().is_none_or(|last| last.term == next.term);
            if !fits && !batch.is_empty() {
                break;
            }
            bytes += next.weight;
            batch.extend(self.proposals.pop_front());
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        batch
    }
}

#[cfg(test)]
mod tests;
