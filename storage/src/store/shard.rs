//! What the store keeps in memory of a shard.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::state::{Digest, Health, Mark};

/// One shard.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// Held while the shard changes.
    pub(super) applied: Mutex<Applied>,
    damaged: AtomicBool,
    damage: Mutex<Option<String>>,
}

/// How far the shard is applied, and how far the scrub got.
#[derive(Debug, Default)]
pub(super) struct Applied {
    pub(super) mark: Mark,
    pub(super) pass: Option<Pass>,
}

/// A scrub's way through the shard. Rows behind it are kept in its sum while they change, so that at the end the sum
/// is the digest of the rows as they then are, though they changed all the time.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Whole key of the last row read.
    pub(super) after: Vec<u8>,
    pub(super) sum: Digest,
}

impl Applied {
    /// Notes that a row changed.
    pub(super) fn replaced(&mut self, row_key: &[u8], before: Option<u128>, after: Option<u128>) {
        let change = |sum: Digest| {
            let sum = before.map_or(sum, |row| sum.minus(row));
            after.map_or(sum, |row| sum.plus(row))
        };
        self.mark.digest = change(self.mark.digest);
        if let Some(pass) = self
            .pass
            .as_mut()
            .filter(|pass| row_key <= pass.after.as_slice())
        {
            pass.sum = change(pass.sum);
        }
    }

    /// Starts again from a mark.
    pub(super) fn reset(&mut self, mark: Mark) {
        *self = Self { mark, pass: None };
    }
}

impl Shard {
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    pub(super) fn damage(&self) -> Option<String> {
        self.is_damaged()
            .then(|| self.damage.lock().clone().unwrap_or_default())
    }

    pub(super) fn health(&self) -> Health {
        self.damage().map_or(Health::Sound, Health::Damaged)
    }

    pub(super) fn set_damaged(&self, detail: String) {
        let mut damage = self.damage.lock();
        // the first finding is the one that matters
        damage.get_or_insert(detail);
        self.damaged.store(true, Ordering::Release);
    }

    pub(super) fn set_sound(&self) {
        let mut damage = self.damage.lock();
        *damage = None;
        self.damaged.store(false, Ordering::Release);
    }
}
