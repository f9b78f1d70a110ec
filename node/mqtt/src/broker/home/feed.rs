//! From a home into its window: what the window of unacknowledged messages has room for, in order.

use std::sync::Arc;

use umbel_core::ids::{NodeId, SessionEpoch};

use super::{Gateway, Sink};
use crate::broker::{
    Broker,
    delivery::{Delivery, cost},
    durable::Batch,
    mailbox::{Delivered, Mailbox, State},
    metrics::{self, Drop},
    peers::home::{Item, Push, Speaker, Tell},
    rows,
};

/// Bytes of messages told another node at once.
const PUSH_BYTES: usize = 256 * 1024;

impl Broker {
    /// A message to one receiver: into its queue, or into the batch of rows to be committed.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        delivery: Delivery,
        batch: &mut Batch,
    ) {
        let copy = delivery.clone();
        match mailbox.deliver(delivery, &self.bounds) {
            Delivered::Queued { dropped } => {
                metrics::dropped(Drop::QueueFull, dropped);
                if mailbox.is_home() {
                    self.feed(mailbox);
                }
            },
            Delivered::ToStore { sequence, cost } => {
                batch.add(
                    self,
                    Arc::clone(mailbox),
                    (sequence, cost),
                    rows::encode_queued(&copy),
                );
            },
            Delivered::Full => metrics::dropped(Drop::QueueFull, 1),
            Delivered::Absent => {},
        }
    }

    /// There may be more for the client, or more room: retained messages were read, or a row was committed.
    pub(crate) fn look_again(self: &Arc<Self>, mailbox: &Arc<Mailbox>) {
        if mailbox.is_home() {
            self.feed(mailbox);
        } else {
            mailbox.lock().wake();
        }
    }

    /// Pushes what there is room for.
    pub(crate) fn feed(self: &Arc<Self>, home: &Arc<Mailbox>) {
        let mut state = home.lock();
        let is_far = self.push(home, &mut state);
        // a window of this node reads for itself, on the task of its connection
        let must_read = is_far && !state.reading && state.wants_refill(&self.bounds);
        state.reading |= must_read;
        drop(state);
        if must_read {
            let (broker, home) = (Arc::clone(self), Arc::clone(home));
            tokio::spawn(async move { broker.read_for(&home).await });
        }
    }

    /// Reads on for a window on another node, until there is nothing or no room.
    async fn read_for(self: Arc<Self>, home: &Arc<Mailbox>) {
        loop {
            let is_there = {
                let mut state = home.lock();
                let goes_on = state.gateway.is_some() && !state.ended;
                state.reading = goes_on;
                goes_on
            };
            if !is_there || !self.refill(home, home.epoch()) {
                break;
            }
            self.push(home, &mut home.lock());
            tokio::task::yield_now().await;
        }
        home.lock().reading = false;
    }

    /// See [`Self::feed`]. True if the window is on another node.
    fn push(&self, home: &Arc<Mailbox>, state: &mut State) -> bool {
        let Some(mut gateway) = state.gateway.take() else {
            return false;
        };
        let goes_on = match gateway.sink.clone() {
            Sink::Here(window) => {
                if let Some(window) = window.upgrade() {
                    self.push_here(&window, home.epoch(), state, &mut gateway);
                }
                Ok(false)
            },
            Sink::There(node) => self
                .push_there(node, home, state, &mut gateway)
                .map(|()| true),
        };
        if let Ok(is_far) = goes_on {
            state.gateway = Some(gateway);
            return is_far;
        }
        // what was taken for sent may be lost: the gateway finds out when it says how far it is
        let lost = home.close_window(state, None);
        metrics::dropped(Drop::ConnectionEnded, lost);
        false
    }

    fn push_here(
        &self,
        window: &Mailbox,
        epoch: SessionEpoch,
        state: &mut State,
        gateway: &mut Gateway,
    ) {
        let Some(mut there) = window.lock_as(epoch) else {
            return;
        };
        let Some(link) = there
            .link
            .as_mut()
            .filter(|link| link.generation == gateway.generation)
        else {
            return;
        };
        let mut dropped = 0;
        if let Some(outbound) = state.outbound_if_any() {
            let sent = outbound.sent();
            link.sent = Some(sent);
            while let Some(next) = outbound.next_within(gateway.window, self.bounds.window_bytes) {
                let taker = there.outbound();
                taker.set_sent(sent);
                dropped += taker.take(next, &self.bounds);
                gateway.pushed += 1;
            }
        }
        state.tidy();
        there.hungry |= state.wants_refill(&self.bounds);
        if there.hungry || there.outbound_if_any().is_some() {
            there.wake();
        }
        drop(there);
        metrics::dropped(Drop::QueueFull, dropped);
    }

    fn push_there(
        &self,
        node: NodeId,
        home: &Mailbox,
        state: &mut State,
        gateway: &mut Gateway,
    ) -> Result<(), ()> {
        loop {
            let Some(outbound) = state.outbound_if_any() else {
                return Ok(());
            };
            let (mut items, mut bytes) = (Vec::new(), 0);
            while bytes < PUSH_BYTES
                && let Some(next) = outbound.next_within(gateway.window, self.bounds.window_bytes)
            {
                bytes += cost(&next.message);
                items.push(Item::from(next));
            }
            if items.is_empty() {
                state.tidy();
                return Ok(());
            }
            let count = items.len() as u64;
            let push = Push {
                speaker: Speaker {
                    client: home.client().clone(),
                    epoch: home.epoch(),
                },
                generation: gateway.generation,
                before: gateway.pushed,
                sent: outbound.sent(),
                items,
            };
            self.tell_home(node, Tell::Push(Box::new(push)))
                .map_err(|error| tracing::debug!(%error, "a window is out of reach"))?;
            gateway.pushed += count;
        }
    }

    /// Reads more for a client whose queue has room: rows of its durable queue, then retained messages of its new
    /// subscriptions. False when there is nothing, or nothing yet.
    pub(crate) fn refill(self: &Arc<Self>, mailbox: &Arc<Mailbox>, epoch: SessionEpoch) -> bool {
        self.page_in(mailbox, epoch) || self.backfill(mailbox, epoch)
    }

    fn page_in(&self, mailbox: &Mailbox, epoch: SessionEpoch) -> bool {
        let request = mailbox.lock_as(epoch).and_then(|mut state| {
            state.gateway.as_ref()?; // clean sessions have no rows, and homes nobody is connected to read none
            state
                .outbound_if_any()
                .and_then(|outbound| outbound.wants_page(&self.bounds))
        });
        let Some(request) = request else { return false };
        let (rows, is_last) = self.read_queue(mailbox, request.after, request.limit);
        let Some(mut state) = mailbox
            .lock_as(epoch)
            .filter(|state| state.gateway.is_some())
        else {
            return false;
        };
        let outbound = state.outbound();
        let before = outbound.loaded();
        outbound.page_in(&request, rows, is_last, &self.bounds);
        outbound.loaded() > before
    }
}

impl From<Delivery> for Item {
    fn from(delivery: Delivery) -> Self {
        Self {
            sequence: delivery.sequence,
            message: delivery.message,
            qos: delivery.qos,
            retain: delivery.retain,
            subscription_ids: delivery.subscription_ids,
            released: delivery.released,
        }
    }
}

impl From<Item> for Delivery {
    fn from(item: Item) -> Self {
        Self {
            sequence: item.sequence,
            message: item.message,
            qos: item.qos,
            retain: item.retain,
            subscription_ids: item.subscription_ids,
            released: item.released,
        }
    }
}
