//! Subscriptions: in memory at once, in storage before the client is told.

use std::sync::Arc;

use umbel_core::{
    device::events,
    ids::SessionEpoch,
    message::Message,
    topic::{Filter, aws::LifecycleEvent},
};
use umbel_storage::{Table, Write};

use super::{
    Broker,
    delivery::Delivery,
    durable::{Batch, Patience},
    mailbox::{Mailbox, Options, State},
    rows,
    ticket::{Outcome, Pending},
};

/// Retained messages read for one client at a time.
const BACKFILL_PAGE: usize = 32;

/// A subscription that was asked for and may be given.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) filter: Filter,
    pub(crate) options: Options,
    /// Retained messages are due even if the subscription was there already (retain handling 0).
    pub(crate) retained_if_known: bool,
    /// Retained messages are due if the subscription is new (retain handling 0 and 1).
    pub(crate) retained_if_new: bool,
}

impl Broker {
    /// Adds subscriptions; done when they are kept as long as the session is. `None`: another connection speaks for the
    /// client. What cannot be kept is taken back.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        asked: &[Asked],
    ) -> Option<Pending> {
        if asked.is_empty() {
            return Some(Pending::Ready(Outcome::Done));
        }
        let mut replaced = Vec::with_capacity(asked.len());
        let mut known = Pending::Ready(Outcome::Done);
        let kept = {
            let mut state = mailbox.lock_as(epoch)?;
            let durable = state.durable;
            let mut writes = Vec::new();
            for one in asked {
                let before = state.subscribe(&one.filter, one.options);
                // under the mailbox's lock: a session that ends now takes this entry with it
                known = known.and(self.join(&one.filter, mailbox, one.options));
                if one.retained_if_known || before.is_none() && one.retained_if_new {
                    let backfill = state.backfill.get_or_insert_default();
                    backfill.add(one.filter.clone(), one.options);
                }
                if durable {
                    let key = rows::subscription_key(mailbox.client(), one.filter.as_str());
                    let row = rows::encode_subscription(one.options);
                    writes.push(Write::put(Table::Subscription, key, row));
                }
                replaced.push((one.filter.clone(), before));
            }
            // proposed under the lock: the deletions of a session that ends now come behind these rows
            if writes.is_empty() {
                Pending::Ready(Outcome::Done)
            } else {
                self.write(mailbox.shard(), writes)
            }
        };
        let broker = Arc::clone(self);
        let mailbox = Arc::clone(mailbox);
        Some(kept.and(known).then(move |outcome| {
            if outcome.is_done() {
                broker.announce(&mailbox, &replaced, LifecycleEvent::Subscribed);
            } else {
                broker.take_back(&mailbox, replaced);
            }
            outcome
        }))
    }

    /// Removes subscriptions, and says which existed; done when a restart will not bring them back.
    pub(crate) fn unsubscribe(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        filters: &[Option<Filter>],
    ) -> Option<(Vec<bool>, Pending)> {
        let mut existed = Vec::with_capacity(filters.len());
        let mut removed = Vec::new();
        let forgotten = {
            let mut state = mailbox.lock_as(epoch)?;
            for filter in filters {
                let before = filter.as_ref().and_then(|filter| state.unsubscribe(filter));
                existed.push(before.is_some());
                if let (Some(filter), Some(options)) = (filter, before) {
                    self.leave(filter, mailbox);
                    removed.push((filter.clone(), Some(options)));
                }
            }
            // under the lock: these deletions do not come behind a row of the client's next session
            if !state.durable || removed.is_empty() {
                Pending::Ready(Outcome::Done)
            } else {
                let writes = removed.iter().map(|(filter, _)| {
                    let key = rows::subscription_key(mailbox.client(), filter.as_str());
                    Write::delete(Table::Subscription, key)
                });
                self.write(mailbox.shard(), writes.collect())
            }
        };
        let broker = Arc::clone(self);
        let mailbox = Arc::clone(mailbox);
        let forgotten = forgotten.then(move |outcome| {
            if outcome.is_done() {
                broker.announce(&mailbox, &removed, LifecycleEvent::Unsubscribed);
            } else {
                broker.take_back(&mailbox, removed);
            }
            outcome
        });
        Some((existed, forgotten))
    }

    /// Storage refused a change: each filter is again what it was.
    fn take_back(&self, mailbox: &Arc<Mailbox>, before: Vec<(Filter, Option<Options>)>) {
        let mut state = mailbox.lock();
        if state.ended {
            return;
        }
        for (filter, options) in before {
            if let Some(options) = options {
                state.subscribe(&filter, options);
                drop(self.join(&filter, mailbox, options));
            } else {
                state.unsubscribe(&filter);
                self.leave(&filter, mailbox);
            }
        }
    }

    /// Reads more for a client whose queue has room: rows of its durable queue, then retained messages of its new
    /// subscriptions. False when there is nothing, or nothing yet.
    pub(crate) fn refill(self: &Arc<Self>, mailbox: &Arc<Mailbox>, epoch: SessionEpoch) -> bool {
        self.page_in(mailbox, epoch) || self.backfill(mailbox, epoch)
    }

    fn page_in(&self, mailbox: &Mailbox, epoch: SessionEpoch) -> bool {
        let request = mailbox.lock_as(epoch).and_then(|mut state| {
            state
                .outbound_if_any()
                .and_then(|outbound| outbound.wants_page(&self.bounds))
        });
        let Some(request) = request else { return false };
        let (rows, is_last) = self.read_queue(mailbox, request.after, request.limit);
        let Some(mut state) = mailbox.lock_as(epoch) else {
            return false;
        };
        let outbound = state.outbound();
        let before = outbound.loaded();
        outbound.page_in(request, rows, is_last, &self.bounds);
        outbound.loaded() > before
    }

    fn backfill(self: &Arc<Self>, mailbox: &Arc<Mailbox>, epoch: SessionEpoch) -> bool {
        let now = self.now();
        let cursor = {
            let Some(state) = mailbox.lock_as(epoch) else {
                return false;
            };
            if state.backlog().1 > 0 {
                return false;
            }
            state
                .backfill
                .as_ref()
                .and_then(|backfill| backfill.current())
        };
        let Some(cursor) = cursor else { return false };
        let (topics, mut resume) =
            self.retained
                .topics(&cursor.filter, cursor.after.as_deref(), BACKFILL_PAGE, now);
        let mut batch = Batch::new(Patience::Never);
        let mut reached = cursor.after.clone();
        let mut is_blocked = false;
        for topic in topics {
            let message = self.retained.latest(&topic, now);
            let is_own = |message: &Message| message.publisher.as_ref() == Some(mailbox.client());
            let wanted = message.filter(|message| !(cursor.options.no_local && is_own(message)));
            if let Some(message) = wanted {
                let delivery = retained_delivery(message, cursor.options);
                if !mailbox.has_room(&delivery, &self.bounds) {
                    is_blocked = true; // the rest comes when the client took these
                    break;
                }
                self.enqueue(mailbox, delivery, &mut batch);
            }
            reached = Some(topic);
        }
        drop(batch.commit(self));
        if is_blocked && reached == cursor.after {
            return false;
        }
        if is_blocked {
            resume = reached;
        }
        if let Some(mut state) = mailbox.lock_as(epoch) {
            state.advance_backfill(&cursor, resume);
        }
        true
    }

    /// Tells watchers what a client subscribed to or no longer does, if any watch.
    fn announce(
        self: &Arc<Self>,
        mailbox: &Mailbox,
        filters: &[(Filter, Option<Options>)],
        event: LifecycleEvent,
    ) {
        if !self.config.subscription_events || filters.is_empty() {
            return;
        }
        let is_watched = event
            .topic(mailbox.client())
            .is_some_and(|topic| self.router.is_wanted(&topic));
        let connection = mailbox.lock().connection.clone().filter(|_| is_watched);
        let Some(connection) = connection else { return };
        let topics: Vec<_> = filters.iter().map(|(filter, _)| filter.as_str()).collect();
        let subject = events::Subject {
            client: mailbox.client(),
            kind: connection.kind,
            epoch: mailbox.epoch(),
            principal: &connection.principal,
        };
        let message = if event == LifecycleEvent::Subscribed {
            events::subscribed(subject, &topics, self.now())
        } else {
            events::unsubscribed(subject, &topics, self.now())
        };
        if let Some(message) = message {
            drop(self.route(message, Patience::Never));
        }
    }
}

fn retained_delivery(message: Message, options: Options) -> Delivery {
    Delivery {
        sequence: 0,
        qos: message.qos.min(options.qos),
        retain: true, // MQTT-3.3.1-8
        subscription_ids: options.id.into_iter().collect(),
        message: Arc::new(message),
        released: false,
    }
}

impl State {
    /// Keeps a subscription; gives back what it replaced.
    pub(crate) fn subscribe(&mut self, filter: &Filter, options: Options) -> Option<Options> {
        match self
            .subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
        {
            Ok(index) => {
                let (_, known) = self.subscriptions.get_mut(index)?;
                Some(std::mem::replace(known, options))
            },
            Err(index) => {
                self.subscriptions.reserve_exact(1);
                self.subscriptions.insert(index, (filter.clone(), options));
                None
            },
        }
    }

    /// Forgets a subscription and the retained messages still owed to it.
    pub(crate) fn unsubscribe(&mut self, filter: &Filter) -> Option<Options> {
        if let Some(backfill) = &mut self.backfill {
            backfill.remove(filter);
        }
        let index = self
            .subscriptions
            .binary_search_by(|(known, _)| known.cmp(filter))
            .ok()?;
        let (_, options) = self.subscriptions.remove(index);
        Some(options)
    }
}
