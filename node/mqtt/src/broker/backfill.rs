//! Retained messages still owed to a new subscription.
//!
//! A filter may match more retained messages than a queue holds. They are read in pages as the client takes them, so
//! that subscribing to `#` costs the broker a cursor and not a copy of everything. Each page is read at the node that
//! owns the topics' shards; a message of one of these topics that is published while a page is on its way, or waits, is
//! the newer one, and the one in the page is left out.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time;
use umbel_core::{
    ids::{NodeId, SessionEpoch, ShardId},
    message::Message,
    topic::Filter,
};

use super::{
    Broker,
    delivery::Delivery,
    durable::{Batch, Patience},
    mailbox::{Mailbox, Options, State},
    peers::routes::{PageAsk, RetainedPage},
};

/// Retained messages read for one client at a time.
const PAGE: usize = 32;

/// Topics that are remembered because something newer was published. Beyond, the page is read again.
const OVERTAKEN_MAX: usize = 10_000;

/// Before an owner that did not answer, or a shard without one, is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Subscriptions whose retained messages are still to be read, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    cursors: VecDeque<Cursor>,
    /// Tells a page of the first cursor as it is now from one of a cursor that is gone.
    serial: u64,
    step: Step,
    /// Topics of which something newer came since the page was asked for.
    overtaken: BTreeSet<String>,
}

/// How far the retained messages of one subscription were read.
#[derive(Clone, Debug)]
struct Cursor {
    filter: Filter,
    options: Options,
    /// Shards that are still to be read; `None`: all of them.
    legs: Option<VecDeque<Leg>>,
}

/// Some shards, read so far alike.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leg {
    shards: Vec<ShardId>,
    /// Behind this topic.
    after: Option<String>,
}

#[derive(Debug, Default)]
enum Step {
    /// Nothing is on its way.
    #[default]
    Idle,
    /// Somebody reads, or hands over what was read.
    Busy,
    /// These wait for room.
    Waiting(VecDeque<Message>),
}

/// What is to be done next.
enum Next {
    Nothing,
    HandOver(VecDeque<Message>, Options),
    Read(Leg, Filter),
}

impl Backfill {
    /// A subscription was made, or made again: its retained messages are owed from the beginning.
    pub(crate) fn add(&mut self, filter: Filter, options: Options) {
        self.remove(&filter);
        self.cursors.push_back(Cursor {
            filter,
            options,
            legs: None,
        });
    }

    /// The subscription is gone.
    pub(crate) fn remove(&mut self, filter: &Filter) {
        if self
            .cursors
            .front()
            .is_some_and(|front| front.filter == *filter)
        {
            self.drop_page();
        }
        self.cursors.retain(|cursor| cursor.filter != *filter);
    }

    /// A message of a topic came by itself.
    pub(crate) fn overtake(&mut self, topic: &str) {
        if matches!(self.step, Step::Idle) {
            return;
        }
        if self.overtaken.len() >= OVERTAKEN_MAX {
            // what is left of the page is read again, from where it began
            self.drop_page();
            return;
        }
        if !self.overtaken.contains(topic) {
            self.overtaken.insert(topic.to_owned());
        }
    }

    /// Whether nothing is owed.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursors.is_empty()
    }

    fn drop_page(&mut self) {
        self.serial += 1;
        self.step = Step::Idle;
        self.overtaken = BTreeSet::new();
    }

    /// Where to read next: the first shards left, as far as one node owns them.
    fn next(&mut self, shards: u16, owner: impl Fn(ShardId) -> Option<NodeId>) -> Next {
        let Some(cursor) = self.cursors.front_mut() else {
            return Next::Nothing;
        };
        match std::mem::replace(&mut self.step, Step::Busy) {
            Step::Busy => return Next::Nothing,
            Step::Waiting(messages) => return Next::HandOver(messages, cursor.options),
            Step::Idle => {},
        }
        let filter = cursor.filter.clone();
        let legs = cursor.legs.get_or_insert_with(|| {
            let all = if filter.has_wildcards() {
                (0..shards).map(ShardId).collect()
            } else {
                vec![ShardId::of(filter.pattern(), shards)]
            };
            let leg = Leg {
                shards: all,
                after: None,
            };
            VecDeque::from([leg])
        });
        let Some(mut leg) = legs.pop_front() else {
            self.step = Step::Idle;
            self.cursors.pop_front();
            return Next::Nothing;
        };
        let first = leg.shards.first().and_then(|shard| owner(*shard));
        let (mine, others) = leg
            .shards
            .into_iter()
            .partition(|shard| owner(*shard) == first);
        let others: Vec<_> = others;
        if !others.is_empty() {
            legs.push_front(Leg {
                shards: others,
                after: leg.after.clone(),
            });
        }
        leg.shards = mine;
        legs.push_front(leg.clone());
        self.overtaken = BTreeSet::new();
        Next::Read(leg, filter)
    }

    /// A page of the first leg came; `None`: nobody answered.
    fn arrived(&mut self, serial: u64, page: Option<RetainedPage>) {
        if self.serial != serial {
            return;
        }
        let legs = self
            .cursors
            .front_mut()
            .and_then(|cursor| cursor.legs.as_mut());
        let (Some(legs), Some(page)) = (legs, page) else {
            self.step = Step::Idle;
            return;
        };
        if let Some(mut leg) = legs.pop_front() {
            if !page.refused.is_empty() {
                leg.shards.retain(|shard| !page.refused.contains(shard));
                // later: they have a new owner by then
                legs.push_back(Leg {
                    shards: page.refused,
                    after: leg.after.clone(),
                });
            }
            if page.next.is_some() && !leg.shards.is_empty() {
                leg.after = page.next;
                legs.push_front(leg);
            }
        }
        self.step = Step::Waiting(page.messages.into());
    }

    /// What could be handed over was.
    fn handed_over(&mut self, serial: u64, left: VecDeque<Message>) {
        if self.serial != serial {
            return;
        }
        if !left.is_empty() {
            self.step = Step::Waiting(left);
            return;
        }
        self.step = Step::Idle;
        self.overtaken = BTreeSet::new();
        let is_over = |cursor: &Cursor| cursor.legs.as_ref().is_some_and(VecDeque::is_empty);
        if self.cursors.front().is_some_and(is_over) {
            self.cursors.pop_front();
        }
    }
}

impl State {
    /// Changes what is owed, and forgets it when nothing is.
    fn with_backfill<R>(&mut self, change: impl FnOnce(&mut Backfill) -> R) -> Option<R> {
        let result = change(self.backfill.as_deref_mut()?);
        if self.backfill.as_ref().is_some_and(|owed| owed.is_empty()) {
            self.backfill = None;
        }
        Some(result)
    }
}

impl Broker {
    /// Hands over retained messages of new subscriptions, as many as there is room for. False when there is nothing, or
    /// nothing yet: the session is called when there is.
    pub(crate) fn backfill(self: &Arc<Self>, mailbox: &Arc<Mailbox>, epoch: SessionEpoch) -> bool {
        let (next, serial) = {
            let Some(mut state) = mailbox.lock_as(epoch) else {
                return false;
            };
            if state.backlog().1 > 0 {
                return false;
            }
            let owner = |shard| self.nodes.owner(shard).map(|owner| owner.node);
            let shards = self.ledger.shards();
            let next = state.with_backfill(|owed| (owed.next(shards, owner), owed.serial));
            let Some(next) = next else { return false };
            next
        };
        match next {
            Next::Nothing => false,
            Next::HandOver(messages, options) => {
                self.hand_over_page(mailbox, (messages, options), serial)
            },
            Next::Read(leg, filter) => self.read_page(mailbox, (leg, filter), serial),
        }
    }

    /// True if the page is there already.
    fn read_page(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        (leg, filter): (Leg, Filter),
        serial: u64,
    ) -> bool {
        let asked = PageAsk {
            filter: filter.as_str().to_owned(),
            shards: leg.shards.clone(),
            after: leg.after,
            limit: PAGE,
            committed: false,
        };
        let owner = leg
            .shards
            .first()
            .and_then(|shard| self.nodes.owner(*shard));
        let node = owner.map(|owner| owner.node);
        if node == Some(self.nodes.me()) {
            let page = self.retained_page(&asked);
            if page.refused.is_empty() {
                return mailbox
                    .lock()
                    .with_backfill(|owed| owed.arrived(serial, Some(page)))
                    .is_some();
            }
        }
        let answer = node.map(|node| self.ask_page(node, asked));
        let (broker, mailbox) = (Arc::downgrade(self), Arc::clone(mailbox));
        tokio::spawn(async move {
            let page = match answer {
                Some(answer) => answer.await,
                None => None,
            };
            let is_stuck = page.as_ref().is_none_or(|page| !page.refused.is_empty());
            if is_stuck {
                time::sleep(AGAIN_AFTER).await;
            }
            let Some(broker) = broker.upgrade() else {
                return;
            };
            // whichever connection speaks for the session by now
            let mut state = mailbox.lock();
            state.with_backfill(|owed| owed.arrived(serial, page));
            drop(state);
            broker.look_again(&mailbox);
        });
        false
    }

    /// True if something was handed over.
    fn hand_over_page(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        (mut messages, options): (VecDeque<Message>, Options),
        serial: u64,
    ) -> bool {
        let mut batch = Batch::new(Patience::Never);
        let before = messages.len();
        while let Some(message) = messages.pop_front() {
            let is_own = message.publisher.as_ref() == Some(mailbox.client());
            let is_overtaken = || {
                let state = mailbox.lock();
                let owed = state.backfill.as_ref();
                owed.is_some_and(|owed| owed.overtaken.contains(&message.topic))
            };
            if options.no_local && is_own || is_overtaken() {
                continue;
            }
            let delivery = retained_delivery(message, options);
            if !mailbox.has_room(&delivery, &self.bounds) {
                // the rest comes when the client took these
                messages.push_front(Arc::unwrap_or_clone(delivery.message));
                break;
            }
            self.enqueue(mailbox, delivery, &mut batch);
        }
        drop(batch.commit(self));
        let is_progress = messages.len() < before || before == 0;
        let mut state = mailbox.lock();
        state.with_backfill(|owed| owed.handed_over(serial, messages));
        is_progress
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

#[cfg(test)]
mod tests;
