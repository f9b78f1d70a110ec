//! Whose turn it is to be given a session.
//!
//! A fleet that comes back at once is more than owners commit in the time in which a client is told. If all were let in
//! together, all would be slow together, and some given up after the work was done. So only so many connects are under
//! way from one gateway to one shard; the others wait in the order in which they came, and cost nothing but their place. A
//! shard that stands still keeps nobody else waiting.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use umbel_core::ids::ShardId;

use crate::refused::Refused;

/// Connects under way from this gateway, over all shards: with commits of fifty milliseconds, twenty thousand a second.
const UNDER_WAY_MAX: usize = 1_024;
/// At least so many for each shard, however many there are: the next log entry takes them together.
const SHARD_MIN: usize = 8;
/// Who has waited for so long is told to try again, before anything was done: its client may soon give up by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// The turns of a gateway, by shard.
pub(super) struct Turns {
    shards: Vec<Semaphore>,
    patience: Duration,
}

/// A turn; the next one has it when this is dropped.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] Option<SemaphorePermit<'a>>);

impl Turns {
    pub(super) fn new(shards: usize) -> Self {
        let each = (UNDER_WAY_MAX / shards.max(1)).max(SHARD_MIN);
        Self {
            shards: (0..shards).map(|_| Semaphore::new(each)).collect(),
            patience: PATIENCE,
        }
    }

    /// Waits for a turn.
    pub(super) async fn take(&self, shard: ShardId) -> Result<Turn<'_>, Refused> {
        let Some(turns) = self.shards.get(usize::from(shard.0)) else {
            return Ok(Turn(None));
        };
        match timeout(self.patience, turns.acquire()).await {
            Ok(Ok(permit)) => Ok(Turn(Some(permit))),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Refused::Overloaded),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn f22_who_waits_for_a_turn_for_too_long_is_told_to_try_again_and_other_shards_go_on() {
        let mut turns = Turns::new(256);
        let mut taken = Vec::new();
        for _ in 0..SHARD_MIN {
            taken.push(turns.take(ShardId(0)).await.expect("free"));
        }
        assert!(turns.take(ShardId(1)).await.is_ok(), "another shard");
        let (mut first, mut second) = (
            Box::pin(turns.take(ShardId(0))),
            Box::pin(turns.take(ShardId(0))),
        );
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        taken.pop();
        assert!(poll!(&mut second).is_pending(), "not out of turn");
        assert!(poll!(&mut first).is_ready());
        drop((first, second));
        taken.push(turns.take(ShardId(0)).await.expect("given back"));
        drop(taken);

        turns.patience = Duration::ZERO;
        let _all = turns
            .shards
            .first()
            .map(|turns| turns.forget_permits(SHARD_MIN));
        let refused = turns.take(ShardId(0)).await.err();
        assert_eq!(refused, Some(Refused::Overloaded));
    }
}
