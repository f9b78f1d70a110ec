//! What waits for one client: messages in order, the window of those sent and not acknowledged, and the count of
//! those that only storage holds.
//!
//! Pure: no clock, no storage, no socket. The owner of the mailbox asks it what to do and does it.
//!
//! Every QoS 1 and 2 message of a session takes the next *sequence number*; its packet identifier follows from it, so
//! that a restart finds the same identifier (MQTT-4.4.0-1). Sequence numbers of a durable session name rows in
//! [`umbel_storage::Table::Queue`]: a message is sent only when its row, and every row before it, is committed.
//!
//! The home of a durable session uses it to decide what is pushed, and what is pushed counts as sent; the window of
//! the session uses another one for what came ([`Outbound::take`]) and what the client acknowledged.

mod acknowledge;
mod window;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use umbel_core::message::Qos;

use super::delivery::{Bounds, Delivery, IDENTIFIERS, cost, packet_id};

/// What became of a message that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It waits in memory.
    Queued,
    /// It waits in memory, and `dropped` older QoS 0 messages had to go for it.
    QueuedInsteadOf {
        /// How many went.
        dropped: usize,
    },
    /// It took this sequence number; its row has to be committed before it is sent.
    ToStore(u64),
    /// There was no room.
    Full,
}

/// How far a QoS 1 or 2 message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// PUBLISH sent, or about to be.
    Sent,
    /// PUBREC came; the row that says so is not committed yet.
    Received,
    /// PUBREL sent.
    Released,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    cost: usize,
    qos: Qos,
    stage: Stage,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// The message is done; a durable session's row can go.
    Finished(u64),
    /// PUBREC came for the first time: the row has to say so before PUBREL is sent.
    Received(u64),
    /// PUBREC came again: PUBREL is due again.
    Again,
    /// Nothing in flight has this identifier, or not in this stage.
    Unknown,
}

/// Which rows to read next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// Rows above this.
    pub(crate) after: u64,
    /// Rows from here on may have gaps that will be filled: they are not taken from this page.
    pub(crate) before: u64,
    /// Most rows.
    pub(crate) limit: usize,
    /// Rows that were being deleted when the reading began: it may have met them, also if they are gone by its end.
    deleting: BTreeSet<u64>,
    /// Of which reading this is a part.
    turn: u64,
}

/// A row of the queue, without its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) sequence: u64,
    pub(crate) cost: usize,
    pub(crate) qos: Qos,
    pub(crate) released: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    waiting_qos0: usize,
    inflight: VecDeque<InFlight>,
    inflight_bytes: usize,
    /// Sequence numbers whose rows are proposed and not committed, ascending.
    uncommitted: VecDeque<u64>,
    /// Acknowledged rows whose deletion is not committed: they must not be read again.
    deleting: BTreeSet<u64>,
    next_sequence: u64,
    /// Rows up to here belong to an earlier session of this client.
    base: u64,
    /// Rows up to here are, or were, in memory.
    loaded: u64,
    /// Rows above `loaded`.
    spilled: u64,
    stored_messages: u64,
    stored_bytes: u64,
    /// The highest sequence number an earlier connection may have sent: up to here DUP is set.
    sent: u64,
    /// The highest sequence number this connection was sent.
    highest: u64,
    /// Counts how often rows are read from the start: what was read for an earlier window is not taken by a later one.
    turn: u64,
}

impl Outbound {
    /// Sequence numbers begin at `first` or above: an earlier session of this client never used them.
    pub(crate) fn starting_at(first: u64) -> Self {
        let first = first.max(1);
        Self {
            next_sequence: first,
            base: first - 1,
            loaded: first - 1,
            ..Self::default()
        }
    }

    /// What a restart knows from the rows it found: any of the first `window` may have been sent before. New messages
    /// take numbers from `first` on, or above the rows.
    pub(crate) fn recovered(rows: &[(u64, usize)], window: usize, first: u64) -> Self {
        let last = rows.last().map_or(0, |(sequence, _)| *sequence);
        let sent = rows
            .iter()
            .take(window)
            .next_back()
            .map_or(0, |(sequence, _)| *sequence);
        let count = rows.len() as u64;
        Self {
            next_sequence: follow(last, first),
            spilled: count,
            stored_messages: count,
            stored_bytes: rows.iter().map(|(_, cost)| *cost as u64).sum(),
            sent,
            ..Self::default()
        }
    }

    /// Takes a message for a session that keeps nothing beyond its connection, or of QoS 0. When full, QoS 0 goes
    /// first, then the newest.
    pub(crate) fn offer(&mut self, mut delivery: Delivery, bounds: &Bounds) -> Offered {
        let size = cost(&delivery.message);
        let mut dropped = 0;
        while self.is_full(size, bounds) {
            if delivery.qos == Qos::AtMostOnce || !self.drop_oldest_qos0() {
                return Offered::Full;
            }
            dropped += 1;
        }
        if delivery.qos > Qos::AtMostOnce {
            delivery.sequence = self.next_sequence;
            self.next_sequence += 1;
        }
        self.push(delivery, size);
        if dropped == 0 {
            Offered::Queued
        } else {
            Offered::QueuedInsteadOf { dropped }
        }
    }

    /// Takes a QoS 1 or 2 message for a durable session. It is kept in memory too if the client is connected and
    /// nothing older is only in storage.
    pub(crate) fn offer_durable(
        &mut self,
        mut delivery: Delivery,
        bounds: &Bounds,
        connected: bool,
    ) -> Offered {
        let size = cost(&delivery.message);
        if self.is_store_full(size, bounds) {
            return Offered::Full;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.stored_messages += 1;
        self.stored_bytes += size as u64;
        self.uncommitted.push_back(sequence);
        if connected && self.spilled == 0 && !self.is_full(size, bounds) {
            delivery.sequence = sequence;
            self.loaded = sequence;
            self.push(delivery, size);
        } else {
            self.spilled += 1;
        }
        Offered::ToStore(sequence)
    }

    /// The row of a message is committed, or will never be.
    pub(crate) fn settle(&mut self, sequence: u64, size: usize, is_stored: bool) {
        if let Ok(index) = self.uncommitted.binary_search(&sequence) {
            self.uncommitted.remove(index);
        }
        if is_stored {
            return;
        }
        self.stored_messages = self.stored_messages.saturating_sub(1);
        self.stored_bytes = self.stored_bytes.saturating_sub(size as u64);
        if let Some(index) = self
            .waiting
            .iter()
            .position(|waiting| waiting.sequence == sequence)
        {
            if let Some(gone) = self.waiting.remove(index) {
                self.forget(&gone);
            }
        } else if sequence > self.loaded {
            self.spilled = self.spilled.saturating_sub(1);
        }
    }

    /// The next message to send, if the window of `window` unacknowledged ones has room. QoS 1 and 2 enter the window.
    pub(crate) fn next(&mut self, window: usize) -> Option<Delivery> {
        let head = self.waiting.front()?;
        if head.qos > Qos::AtMostOnce && !self.may_send(head.sequence, window) {
            return None;
        }
        let delivery = self.waiting.pop_front()?;
        self.forget(&delivery);
        if delivery.qos > Qos::AtMostOnce {
            self.enter(InFlight {
                sequence: delivery.sequence,
                cost: cost(&delivery.message),
                qos: delivery.qos,
                stage: if delivery.released {
                    Stage::Released
                } else {
                    Stage::Sent
                },
            });
        }
        Some(delivery)
    }

    /// Whether an earlier connection may have sent this.
    pub(crate) const fn was_sent(&self, sequence: u64) -> bool {
        sequence <= self.sent
    }

    /// What to read next, if memory has room and storage has more.
    pub(crate) fn wants_page(&self, bounds: &Bounds) -> Option<PageRequest> {
        let room = bounds.window_messages.saturating_sub(self.waiting.len());
        let before = self
            .uncommitted
            .front()
            .copied()
            .unwrap_or(self.next_sequence);
        let is_due = self.spilled > 0
            && before > self.loaded + 1
            && room > bounds.window_messages / 2
            && self.waiting_bytes <= bounds.window_bytes / 2;
        is_due.then_some(PageRequest {
            after: self.loaded,
            before,
            limit: room,
            deleting: self.deleting.clone(),
            turn: self.turn,
        })
    }

    /// Takes the rows that were read for a request, in order. `is_last`: storage had no more.
    pub(crate) fn page_in(
        &mut self,
        request: &PageRequest,
        rows: Vec<Delivery>,
        is_last: bool,
        bounds: &Bounds,
    ) {
        if (request.turn, request.after) != (self.turn, self.loaded) {
            return; // the connection changed meanwhile
        }
        for row in rows {
            let size = cost(&row.message);
            if row.sequence >= request.before || self.is_full(size, bounds) {
                return;
            }
            self.loaded = row.sequence;
            let is_done = |deleting: &BTreeSet<u64>| deleting.contains(&row.sequence);
            if is_done(&self.deleting) || is_done(&request.deleting) {
                continue; // acknowledged, and not counted any more
            }
            self.spilled = self.spilled.saturating_sub(1);
            self.push(row, size);
        }
        // a count that drifted must not make us read an empty table for ever
        if is_last && request.before == self.next_sequence {
            self.spilled = 0;
        }
    }

    /// Messages in memory that were not sent, and those of QoS 0 among them.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_qos0)
    }

    /// Whether nothing is left to remember but the next sequence number.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.inflight.is_empty()
            && self.uncommitted.is_empty()
            && self.deleting.is_empty()
            && self.stored_messages == 0
    }

    /// Up to which row this was read, if only storage held something.
    pub(crate) const fn loaded(&self) -> u64 {
        self.loaded
    }

    /// The number the next QoS 1 or 2 message takes.
    pub(crate) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Messages sent and not acknowledged.
    pub(crate) fn inflight(&self) -> usize {
        self.inflight.len()
    }

    /// Messages waiting in memory and storage, those in flight not counted.
    pub(crate) fn queued(&self) -> u64 {
        self.waiting.len() as u64 + self.spilled
    }

    fn may_send(&self, sequence: u64, window: usize) -> bool {
        let is_committed = self
            .uncommitted
            .front()
            .is_none_or(|first| *first > sequence);
        is_committed && self.inflight.len() < window && self.is_distinct(sequence)
    }

    /// Whether no message in flight has the packet identifier of this one, nor one of which the row is not gone for good:
    /// after a crash, what is left of that one would be said with the same identifier. However wide the window, one
    /// that is never acknowledged blocks the reuse of its identifier; and the numbers of two homes of a session, one
    /// after the other, are far apart, so that their identifiers may meet.
    fn is_distinct(&self, sequence: u64) -> bool {
        let oldest = self.inflight.front().map(|oldest| oldest.sequence);
        let oldest = oldest
            .into_iter()
            .chain(self.deleting.first().copied())
            .min();
        let is_near = oldest.is_none_or(|oldest| sequence.wrapping_sub(oldest) < IDENTIFIERS);
        let id = packet_id(sequence);
        is_near
            || self.position(id).is_none()
                && !self.deleting.iter().any(|gone| packet_id(*gone) == id)
    }

    /// Whether the next message waits for another's row to go.
    pub(crate) fn waits_for_identifier(&self) -> bool {
        self.waiting
            .front()
            .is_some_and(|head| head.sequence > 0 && !self.is_distinct(head.sequence))
    }

    fn enter(&mut self, one: InFlight) {
        self.inflight_bytes += one.cost;
        self.highest = self.highest.max(one.sequence);
        self.inflight.push_back(one);
    }

    /// Whether a message of this size would find room.
    pub(crate) fn has_room(&self, size: usize, bounds: &Bounds, durable: bool) -> bool {
        !(self.is_full(size, bounds) || durable && self.is_store_full(size, bounds))
    }

    const fn is_store_full(&self, size: usize, bounds: &Bounds) -> bool {
        self.stored_messages >= bounds.stored_messages
            || self.stored_bytes + size as u64 > bounds.stored_bytes
    }

    fn is_full(&self, size: usize, bounds: &Bounds) -> bool {
        self.waiting.len() >= bounds.window_messages
            || self.waiting_bytes + size > bounds.window_bytes && !self.waiting.is_empty()
    }

    fn push(&mut self, delivery: Delivery, size: usize) {
        self.waiting_bytes += size;
        self.waiting_qos0 += usize::from(delivery.qos == Qos::AtMostOnce);
        self.waiting.push_back(delivery);
    }

    fn forget(&mut self, delivery: &Delivery) {
        self.waiting_bytes = self.waiting_bytes.saturating_sub(cost(&delivery.message));
        self.waiting_qos0 -= usize::from(delivery.qos == Qos::AtMostOnce);
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new(); // an idle connection keeps no buffer
        }
    }

    fn drop_oldest_qos0(&mut self) -> bool {
        if self.waiting_qos0 == 0 {
            return false;
        }
        let oldest = self
            .waiting
            .iter()
            .position(|waiting| waiting.qos == Qos::AtMostOnce);
        let Some(gone) = oldest.and_then(|index| self.waiting.remove(index)) else {
            return false;
        };
        self.forget(&gone);
        true
    }
}

/// The lowest number from `first` on, and above `last`, of which the packet identifier follows that of `last`: as if there
/// were no gap, so that identifiers of rows and of new messages do not meet before they have gone round.
const fn follow(last: u64, first: u64) -> u64 {
    let next = last + 1;
    if first <= next {
        return next;
    }
    let ahead = (first - next) % IDENTIFIERS;
    if ahead == 0 {
        first
    } else {
        first + (IDENTIFIERS - ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_next_home_go_on_with_the_identifiers_of_the_last() {
        for (last, first) in [
            (0, 1),
            (7, 1),
            (7, 8),
            (7, 9),
            (7, 1 << 32),
            ((1 << 32) + 5, 2 << 32),
        ] {
            let next = follow(last, first);
            assert!(next > last && next >= first && next - first < IDENTIFIERS + last);
            assert_eq!(packet_id(next), packet_id(last + 1));
        }
    }
}
