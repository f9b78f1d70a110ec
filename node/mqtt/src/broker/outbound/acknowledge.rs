//! What the client, or its window, says of messages in flight.

use std::{collections::VecDeque, num::NonZeroU16};

use umbel_core::message::Qos;

use super::{Acknowledged, Outbound, Stage};
use crate::broker::delivery::{OVERHEAD_BYTES, packet_id};

impl Outbound {
    /// PUBACK, or PUBREC with an error: the client has it or does not want it.
    pub(crate) fn finish(&mut self, id: NonZeroU16, qos: Qos) -> Acknowledged {
        let Some(index) = self.position(id) else {
            return Acknowledged::Unknown;
        };
        match self.inflight.get(index) {
            Some(found) if found.qos == qos && found.stage == Stage::Sent => self.remove(index),
            _ => Acknowledged::Unknown,
        }
    }

    /// The window says that the client is done with a message.
    pub(crate) fn finish_sequence(&mut self, sequence: u64) -> bool {
        let index = self
            .inflight
            .iter()
            .position(|found| found.sequence == sequence);
        index.is_some_and(|index| self.remove(index) == Acknowledged::Finished(sequence))
    }

    /// Whether PUBREC came for a message in flight and its row does not say so yet.
    pub(crate) fn awaits_release(&self, sequence: u64) -> bool {
        self.inflight
            .iter()
            .any(|found| found.sequence == sequence && found.stage != Stage::Released)
    }

    /// PUBREC.
    pub(crate) fn receive(&mut self, id: NonZeroU16) -> Acknowledged {
        let index = self.position(id);
        let Some(found) = index.and_then(|index| self.inflight.get_mut(index)) else {
            return Acknowledged::Unknown;
        };
        match (found.qos, found.stage) {
            (Qos::ExactlyOnce, Stage::Sent) => {
                found.stage = Stage::Received;
                Acknowledged::Received(found.sequence)
            },
            (Qos::ExactlyOnce, Stage::Received | Stage::Released) => Acknowledged::Again,
            (Qos::AtMostOnce | Qos::AtLeastOnce, _) => Acknowledged::Unknown,
        }
    }

    /// The row says that the client has it: PUBREL may go.
    pub(crate) fn release(&mut self, sequence: u64) {
        if let Some(found) = self
            .inflight
            .iter_mut()
            .find(|found| found.sequence == sequence)
        {
            found.stage = Stage::Released;
            // the row lost its message
            let saved = found.cost.saturating_sub(OVERHEAD_BYTES);
            found.cost -= saved;
            self.inflight_bytes = self.inflight_bytes.saturating_sub(saved);
            self.stored_bytes = self.stored_bytes.saturating_sub(saved as u64);
        }
    }

    /// PUBCOMP.
    pub(crate) fn complete(&mut self, id: NonZeroU16) -> Acknowledged {
        let Some(index) = self.position(id) else {
            return Acknowledged::Unknown;
        };
        match self.inflight.get(index) {
            Some(found) if found.stage == Stage::Released => self.remove(index),
            _ => Acknowledged::Unknown,
        }
    }

    /// An acknowledged row will be deleted; until then it must not be read again.
    pub(crate) fn begin_delete(&mut self, sequence: u64) {
        self.deleting.insert(sequence);
    }

    /// The row is gone.
    pub(crate) fn end_delete(&mut self, sequence: u64) {
        self.deleting.remove(&sequence);
    }

    pub(super) fn position(&self, id: NonZeroU16) -> Option<usize> {
        self.inflight
            .iter()
            .position(|found| packet_id(found.sequence) == id)
    }

    fn remove(&mut self, index: usize) -> Acknowledged {
        let Some(done) = self.inflight.remove(index) else {
            return Acknowledged::Unknown;
        };
        self.inflight_bytes = self.inflight_bytes.saturating_sub(done.cost);
        if self.inflight.is_empty() {
            self.inflight = VecDeque::new();
        }
        if self.stored_messages > 0 {
            self.uncount(done.cost);
        }
        Acknowledged::Finished(done.sequence)
    }

    /// A row is done.
    pub(super) fn uncount(&mut self, cost: usize) {
        self.stored_messages = self.stored_messages.saturating_sub(1);
        self.stored_bytes = self.stored_bytes.saturating_sub(cost as u64);
        if self.stored_messages == 0 {
            self.stored_bytes = 0; // rows that lost their message while nobody was connected count less
        }
    }
}
