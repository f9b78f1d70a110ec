//! One task per shard: takes what waits, makes it one log entry, waits until that is applied, answers, and again.
//!
//! Exactly one entry is in flight. When the shard is idle a command is proposed at once; while an entry is being
//! flushed the next batch gathers, so batches grow with the load by themselves and no timer is needed. openraft
//! 0.9 waits for each flush in its core: more entries in flight would only wait there.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use umbel_storage::{Refusal, log::GroupLog};

use crate::{codec::Batch, metrics::Meters, queue::Proposal, shard::Shard};

/// Serves a shard's queue until it is closed and empty.
pub(crate) async fn run(shard: Arc<Shard>, log: Arc<dyn GroupLog>, meters: Arc<Meters>) {
    while let Some(batch) = shard.queue.take().await {
        let begun = Instant::now();
        let outcome = commit(&shard, log.as_ref(), &batch).await;
        meters.batch(batch.len(), begun.elapsed(), outcome);
        for proposal in batch {
            meters.settled(outcome, proposal.since.elapsed());
            if proposal.answer.send(outcome).is_err() {
                tracing::trace!("nobody waits for the answer; what was written stays");
            }
        }
    }
}

async fn commit(shard: &Shard, log: &dyn GroupLog, batch: &[Proposal]) -> Result<(), Refusal> {
    let Some(first) = batch.first() else {
        return Ok(());
    };
    let group = shard.group().ok_or(Refusal::Quarantined)?;
    if group.is_quarantined() {
        return Err(Refusal::Quarantined);
    }
    // Asked again although `propose` asked: the disk may have filled while this waited, and openraft does not
    // forgive an append that fails.
    if log.admit().is_err() {
        return Err(Refusal::StorageFull);
    }
    if group.term() != Some(first.term) {
        return Err(Refusal::NotOwner);
    }
    let commands = batch.iter().map(|proposal| proposal.writes.as_slice());
    // Every command was weighed against the limit, so an entry that cannot be encoded is a defect: no retry.
    let bytes = Batch::encode(first.term.0, commands).map_err(|error| {
        tracing::error!(shard = shard.id.0, %error, "a batch cannot be encoded");
        Refusal::TooLarge
    })?;
    group.commit(Bytes::from(bytes)).await
}
