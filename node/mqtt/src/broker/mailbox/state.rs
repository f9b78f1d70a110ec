//! The guarded part of a mailbox.

use std::num::NonZeroU16;

use super::{Inbound, State};
use crate::broker::{delivery::Bounds, outbound::Outbound};

impl State {
    /// What waits for the client.
    pub(crate) fn outbound(&mut self) -> &mut Outbound {
        let next = self.next_sequence;
        self.outbound
            .get_or_insert_with(|| Box::new(Outbound::starting_at(next)))
    }

    /// What waits for the client, if anything does.
    pub(crate) fn outbound_if_any(&mut self) -> Option<&mut Outbound> {
        self.outbound.as_deref_mut()
    }

    /// Puts back what a restart found.
    pub(crate) fn restore(&mut self, outbound: Outbound) {
        self.next_sequence = outbound.next_sequence();
        self.outbound = Some(Box::new(outbound));
    }

    /// The number the next QoS 1 or 2 message takes.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.outbound
            .as_ref()
            .map_or(self.next_sequence, |outbound| outbound.next_sequence())
    }

    /// Messages in flight and waiting.
    pub(crate) fn backlog(&self) -> (usize, u64) {
        self.outbound
            .as_ref()
            .map_or((0, 0), |outbound| (outbound.inflight(), outbound.queued()))
    }

    /// Gives memory back when nothing waits.
    pub(crate) fn tidy(&mut self) {
        if let Some(outbound) = &self.outbound
            && outbound.is_idle()
        {
            self.next_sequence = outbound.next_sequence();
            self.outbound = None;
        }
    }

    /// Asks the connection to look.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether storage has to be read for the client to get more.
    pub(crate) fn wants_refill(&self, bounds: &Bounds) -> bool {
        match &self.outbound {
            Some(outbound) => {
                outbound.wants_page(bounds).is_some()
                    || self.backfill.is_some() && outbound.queued() == 0
            },
            None => self.backfill.is_some(),
        }
    }

    /// How far a QoS 2 message of the client has come. One whose work ended is what it ended as.
    pub(crate) fn inbound(&mut self, id: NonZeroU16) -> Option<Inbound> {
        let entry = self.inbound.get_mut(&id)?;
        if let Inbound::Committing(pending) = entry
            && let Some(outcome) = pending.known()
        {
            if !outcome.is_done() {
                self.inbound.remove(&id);
                return None;
            }
            *entry = Inbound::Received;
        }
        Some(entry.clone())
    }
}
