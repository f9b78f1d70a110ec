//! Between a home and its window: what is pushed, what came, and what is left of it when one of them loses the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use umbel_core::message::Qos;

use super::{InFlight, Outbound, Row, Stage};
use crate::broker::delivery::{Bounds, Delivery, cost};

impl Outbound {
    /// As [`Self::next`], and what is unacknowledged is bounded in bytes, too: a window holds it in memory.
    pub(crate) fn next_within(&mut self, window: usize, bytes: usize) -> Option<Delivery> {
        let head = self.waiting.front()?;
        let is_bound = head.qos > Qos::AtMostOnce && !self.inflight.is_empty();
        if is_bound && self.inflight_bytes + cost(&head.message) > bytes {
            return None;
        }
        self.next(window)
    }

    /// A window takes what its home pushed. The home bounds messages with a number; of those without, the oldest go when
    /// it is too much, and it says how many. One that came before is not taken again.
    pub(crate) fn take(&mut self, delivery: Delivery, bounds: &Bounds) -> usize {
        let size = cost(&delivery.message);
        let mut dropped = 0;
        if delivery.qos > Qos::AtMostOnce {
            if delivery.sequence < self.next_sequence {
                return 0;
            }
            self.next_sequence = delivery.sequence + 1;
        } else {
            while self.is_full(size, bounds) {
                if !self.drop_oldest_qos0() {
                    return 1;
                }
                dropped += 1;
            }
        }
        self.push(delivery, size);
        dropped
    }

    /// Every numbered message that came and is not done, and how far it is.
    pub(crate) fn unacknowledged(&self) -> Vec<(u64, Stage)> {
        let waiting = self.waiting.iter().filter(|one| one.sequence > 0);
        let waiting = waiting.map(|one| {
            let stage = if one.released {
                Stage::Released
            } else {
                Stage::Sent
            };
            (one.sequence, stage)
        });
        let inflight = self.inflight.iter().map(|one| (one.sequence, one.stage));
        inflight.chain(waiting).collect()
    }

    /// A window that lost its home, or its way there, says what it has: `unacknowledged` up to the sequence number
    /// `highest`. `rows` are all rows up to there, and `deleting` those that were being deleted when they were read. Those
    /// the window has stay in flight; the others are done. Says which rows have to go.
    pub(crate) fn resume(
        &mut self,
        rows: &[Row],
        deleting: &BTreeSet<u64>,
        unacknowledged: &[(u64, Stage)],
        highest: u64,
    ) -> Vec<u64> {
        let unacknowledged: BTreeMap<_, _> = unacknowledged.iter().copied().collect();
        let mut done = Vec::new();
        for row in rows {
            if self.deleting.contains(&row.sequence) || deleting.contains(&row.sequence) {
                continue;
            }
            self.spilled = self.spilled.saturating_sub(1);
            if unacknowledged.contains_key(&row.sequence) {
                self.enter(InFlight {
                    sequence: row.sequence,
                    cost: row.cost,
                    qos: row.qos,
                    stage: if row.released {
                        Stage::Released
                    } else {
                        Stage::Sent
                    },
                });
            } else {
                self.uncount(row.cost);
                self.deleting.insert(row.sequence);
                done.push(row.sequence);
            }
        }
        self.loaded = self.loaded.max(highest);
        // numbers that a client may know are not given out again, whatever was recovered
        self.next_sequence = self.next_sequence.max(highest + 1);
        done
    }

    /// Acknowledged rows that may still be there to be read.
    pub(crate) fn deleting(&self) -> BTreeSet<u64> {
        self.deleting.clone()
    }

    /// Up to which sequence number an earlier connection may have been sent.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// See [`Self::sent`].
    pub(crate) fn set_sent(&mut self, sent: u64) {
        self.sent = sent;
    }

    /// The highest sequence number this connection was sent.
    pub(crate) fn highest_sent(&self) -> u64 {
        self.highest
    }

    /// The window of a home is gone. The rows stay and are read again for the next one. `sent`: how far the client was
    /// sent messages, if that is known; else all that was pushed may have been.
    pub(crate) fn detach(&mut self, sent: Option<u64>) -> usize {
        let lost = self.waiting_qos0;
        self.sent = self.sent.max(sent.unwrap_or(self.highest));
        self.highest = 0;
        self.waiting = VecDeque::new();
        self.inflight = VecDeque::new();
        self.inflight_bytes = 0;
        self.waiting_bytes = 0;
        self.waiting_qos0 = 0;
        self.loaded = self.base;
        self.turn += 1;
        self.spilled = self.stored_messages;
        lost
    }
}
