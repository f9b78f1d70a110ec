//! What homes push, and what is told them in return.

use std::sync::{Arc, atomic::Ordering};

use umbel_actors::ports::EvictReason;
use umbel_core::ids::{NodeId, SessionEpoch};

use super::Way;
use crate::broker::{
    Broker,
    delivery::Delivery,
    mailbox::{Eviction, Left, Mailbox},
    metrics::{self, Drop},
    peers::home::{Acked, Push, Speaker, Tell},
};

/// Acknowledgements of one notice: beyond, the next one goes.
const ACKED_MAX: usize = 500;

impl Broker {
    /// A home on another node pushes messages.
    pub(crate) fn pushed(self: &Arc<Self>, from: NodeId, push: Push) {
        let Push {
            speaker,
            generation,
            before,
            sent,
            items,
        } = push;
        let window = self.sessions.get(&speaker.client);
        let Some(window) = window.filter(|window| window.is_window()) else {
            return self.is_not_here(from, speaker);
        };
        let Some(mut state) = window.lock_as(speaker.epoch) else {
            return self.is_not_here(from, speaker);
        };
        let Some(link) = state
            .link
            .as_mut()
            .filter(|link| link.generation == generation)
        else {
            return; // of an attempt that is over
        };
        if link.received != before {
            // something was lost on the way: what is missing is pushed again
            link.way = Way::Lost;
            drop(state);
            return self.attach_again(&window, speaker.epoch);
        }
        link.received += items.len() as u64;
        link.sent = Some(sent);
        let outbound = state.outbound();
        outbound.set_sent(sent);
        let mut dropped = 0;
        for item in items {
            dropped += outbound.take(Delivery::from(item), &self.bounds);
        }
        state.wake();
        drop(state);
        metrics::dropped(Drop::QueueFull, dropped);
    }

    /// A push for a connection that is gone: its home has not heard.
    fn is_not_here(&self, from: NodeId, speaker: Speaker) {
        let is_newer = self
            .sessions
            .get(&speaker.client)
            .is_some_and(|known| known.epoch() > speaker.epoch);
        if !is_newer {
            drop(self.tell_home(from, Tell::Detach(speaker, None)));
        }
    }

    /// The client is done with messages.
    pub(crate) fn acknowledged(
        self: &Arc<Self>,
        window: &Arc<Mailbox>,
        epoch: SessionEpoch,
        sequence: u64,
    ) {
        let Some(mut state) = window.lock_as(epoch) else {
            return;
        };
        let Some(link) = state.link.as_mut() else {
            return;
        };
        if link.way != Way::Open {
            link.late.push(sequence);
            return;
        }
        link.acked += 1;
        let acked = Acked {
            speaker: Speaker {
                client: window.client().clone(),
                epoch,
            },
            generation: link.generation,
            sequences: vec![sequence],
        };
        let (node, home) = (link.node, link.home.clone());
        drop(state);
        match home {
            Some(home) => self.acked_here(&home, &acked),
            None => self.tell_acked(node, acked),
        }
    }

    /// Acknowledgements go together: what many clients say in a moment is one notice.
    pub(super) fn tell_acked(self: &Arc<Self>, node: NodeId, acked: Acked) {
        {
            let mut waiting = self.windows.acked.lock();
            let waiting = waiting.entry(node).or_default();
            match waiting.last_mut() {
                Some(last)
                    if last.speaker == acked.speaker && last.generation == acked.generation =>
                {
                    last.sequences.extend(acked.sequences);
                },
                _ => waiting.push(acked),
            }
        }
        if self.windows.is_telling.swap(true, Ordering::AcqRel) {
            return;
        }
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            broker.windows.is_telling.store(false, Ordering::Release);
            broker.tell_all_acked();
        });
    }

    fn tell_all_acked(&self) {
        let waiting = std::mem::take(&mut *self.windows.acked.lock());
        for (node, mut acked) in waiting {
            while !acked.is_empty() {
                let rest = acked.split_off(acked.len().min(ACKED_MAX));
                // what is lost is found when windows and homes are compared
                if let Err(error) = self.tell_home(node, Tell::Acked(acked)) {
                    tracing::debug!(%error, "acknowledgements are told later");
                    break;
                }
                acked = rest;
            }
        }
    }

    /// The connection of a window is gone: its home is told.
    pub(crate) fn close_link(&self, window: &Mailbox, epoch: SessionEpoch, left: &mut Left) {
        let Some(link) = left.link.take() else {
            return;
        };
        if let Some(home) = link.home {
            self.detach_here(&home, epoch, Some(left.sent));
            return;
        }
        let speaker = Speaker {
            client: window.client().clone(),
            epoch,
        };
        // before the goodbye: a home that is not attached to any more takes no acknowledgements
        self.tell_all_acked();
        // lost with the link, the home learns it when it pushes
        drop(self.tell_home(link.node, Tell::Detach(speaker, Some(left.sent))));
    }

    /// A home says that a connection no longer speaks for its client.
    pub(crate) fn window_ended(&self, speaker: &Speaker) {
        let window = self.sessions.get(&speaker.client);
        if let Some(window) = window.filter(|window| window.is_window()) {
            let eviction = Eviction::Asked {
                reason: EvictReason::TakenOver,
                prevent_will: false,
                end_session: false,
            };
            window.evict(speaker.epoch, eviction);
        }
    }
}
