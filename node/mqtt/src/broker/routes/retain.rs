//! Retained messages over all nodes: each is written, and read, at the owner of its topic's shard.
//!
//! A message is kept before it is routed, on whatever node: who subscribes meanwhile gets it by the one or the other. So a
//! message whose topic another node owns waits here until it is kept there, and later messages of the same topic wait
//! behind it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{self, Instant};
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{NodeId, ShardId},
    message::Message,
    topic::{Filter, Limits},
};

use super::{Routes, forward::WITHIN};
use crate::broker::{
    Broker,
    delivery::cost,
    durable::Patience,
    peers::{
        Ask, Reply,
        routes::{self as words, PageAsk, RetainedPage},
    },
    ticket::{Outcome, Pending, Settler, Ticket, start},
};

/// Before an owner is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Most messages, and bytes of messages, that wait for their topics' owners.
const WAITING_MAX: usize = 10_000;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most messages, and bytes of messages, in a page that is sent to another node.
const PAGE_MESSAGES: usize = 1_000;
const PAGE_BYTES: usize = 512 * 1024;

#[derive(Debug)]
struct Waiting {
    message: Message,
    patience: Patience,
    settler: Settler,
}

/// Messages that wait until one before them is kept, by topic.
#[derive(Debug, Default)]
pub(super) struct Topics {
    waiting: Mutex<Queues>,
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Queues {
    topics: BTreeMap<String, VecDeque<Waiting>>,
    bytes: usize,
}

/// What [`Topics::add`] did with a message.
enum Added {
    /// It waits behind others.
    Behind(Pending),
    /// It waits, and somebody has to see to it.
    First(Pending),
    /// There are too many.
    Full,
}

impl Topics {
    fn holds(&self, topic: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.waiting.lock().topics.contains_key(topic)
    }

    fn add(&self, message: Message, patience: Patience) -> Added {
        let mut waiting = self.waiting.lock();
        let bytes = cost(&message);
        let is_full = self.count.load(Ordering::Acquire) >= WAITING_MAX
            || waiting.bytes + bytes > WAITING_BYTES_MAX;
        if is_full {
            return Added::Full;
        }
        waiting.bytes += bytes;
        let waiting = &mut waiting.topics;
        self.count.fetch_add(1, Ordering::AcqRel);
        let (settler, ticket) = Ticket::pair();
        let is_first = !waiting.contains_key(&message.topic);
        let topic = waiting.entry(message.topic.clone()).or_default();
        topic.push_back(Waiting {
            message,
            patience,
            settler,
        });
        if is_first {
            Added::First(Pending::Waiting(ticket))
        } else {
            Added::Behind(Pending::Waiting(ticket))
        }
    }

    /// The next of a topic stays in its place, so that what comes meanwhile goes behind it.
    fn first(&self, topic: &str) -> Option<(Message, Patience)> {
        let waiting = self.waiting.lock();
        let first = waiting.topics.get(topic)?.front()?;
        Some((first.message.clone(), first.patience))
    }

    /// The first of a topic was routed. `None` when there is no other.
    fn done(&self, topic: &str) -> (Option<Settler>, bool) {
        let mut waiting = self.waiting.lock();
        let Queues { topics, bytes } = &mut *waiting;
        let Some(queue) = topics.get_mut(topic) else {
            return (None, false);
        };
        let done = queue.pop_front();
        *bytes -= done.as_ref().map_or(0, |done| cost(&done.message));
        self.count
            .fetch_sub(usize::from(done.is_some()), Ordering::AcqRel);
        let goes_on = !queue.is_empty();
        if !goes_on {
            topics.remove(topic);
        }
        (done.map(|waiting| waiting.settler), goes_on)
    }
}

impl Broker {
    /// Takes a message that cannot be routed before it, or one before it, is kept elsewhere; gives it back otherwise.
    pub(in crate::broker) fn hold_back(
        &self,
        routes: &Routes,
        message: Message,
        patience: Patience,
    ) -> Result<Pending, Message> {
        let is_kept_elsewhere = message.retain
            && !message.topic.starts_with('$')
            && !self.is_kept_here(routes, &message.topic);
        if !is_kept_elsewhere && !routes.topics.holds(&message.topic) {
            return Err(message);
        }
        let topic = message.topic.clone();
        Ok(match routes.topics.add(message, patience) {
            Added::Behind(pending) => pending,
            Added::First(pending) => {
                tokio::spawn(serve(Weak::clone(&self.this), topic));
                pending
            },
            Added::Full => Pending::Ready(Outcome::QuotaExceeded),
        })
    }

    fn is_kept_here(&self, routes: &Routes, topic: &str) -> bool {
        let shard = ShardId::of(topic, self.ledger.shards());
        self.keeper(topic) == Some(routes.me) && self.is_served(&routes.homes(), shard)
    }

    /// The owner of a topic's shard.
    fn keeper(&self, topic: &str) -> Option<NodeId> {
        let shard = ShardId::of(topic, self.ledger.shards());
        self.nodes.owner(shard).map(|owner| owner.node)
    }

    /// Keeps a message at its topic's owner, whoever that is while it is tried.
    pub(in crate::broker) async fn keep_there(
        self: Arc<Self>,
        message: Message,
        patience: Patience,
    ) -> Outcome {
        let until = Instant::now() + patience.waits_for_owner();
        let mut changes = self.nodes.changes();
        let message = Arc::new(message);
        loop {
            changes.mark_unchanged();
            let me = self.nodes.me();
            let outcome = match self.keeper(&message.topic) {
                Some(node) if node == me => self.retain_here(&message, patience).outcome().await,
                Some(node) => {
                    let ask = words::Ask::Retain {
                        message: Arc::clone(&message),
                        is_patient: patience == Patience::WhileBusy,
                    };
                    match self.peers.ask(node, Ask::Routes(ask), WITHIN).await {
                        Ok(Reply::Routes(words::Reply::Kept(kept))) => kept.into(),
                        Ok(_) | Err(_) => Outcome::Unavailable,
                    }
                },
                None => Outcome::Unavailable,
            };
            if outcome != Outcome::Unavailable || Instant::now() >= until {
                return outcome;
            }
            drop(time::timeout(AGAIN_AFTER, changes.changed()).await);
        }
    }

    /// Keeps a message whose topic this node owns.
    fn retain_here(self: &Arc<Self>, message: &Message, patience: Patience) -> Pending {
        let shard = ShardId::of(&message.topic, self.ledger.shards());
        let is_elsewhere = |routes: &Routes| !self.is_served(&routes.homes(), shard);
        if self.routes.as_ref().is_some_and(is_elsewhere) {
            return Pending::Ready(Outcome::Unavailable); // what is kept is not all known here yet
        }
        self.retain(message, patience)
            .unwrap_or(Pending::Ready(Outcome::QuotaExceeded))
    }

    /// Keeps a message for another node.
    pub(in crate::broker) fn keep_for(
        self: &Arc<Self>,
        message: &Message,
        is_patient: bool,
    ) -> BoxFuture<'static, Result<words::Reply, String>> {
        let kept = self.retain_here(message, Patience::of(is_patient));
        Box::pin(async move { Ok(words::Reply::Kept(kept.outcome().await.into())) })
    }

    /// Retained messages of some shards, in the order of their topics.
    pub(in crate::broker) fn retained_page(&self, asked: &PageAsk) -> RetainedPage {
        let is_here = |shard: &ShardId| match &self.routes {
            Some(routes) => self.is_served(&routes.homes(), *shard),
            None => self.ledger.term(*shard).is_some(),
        };
        let mut page = RetainedPage::default();
        let Ok(filter) = Filter::parse(&asked.filter, &Limits::default()) else {
            return page;
        };
        let now = self.now();
        let limit = asked.limit.min(PAGE_MESSAGES);
        let shards = self.ledger.shards();
        let (topics, next) = self
            .retained
            .topics(&filter, asked.after.as_deref(), limit, now);
        page.next = next;
        let mut bytes = 0;
        let mut reached = None;
        for topic in topics {
            if bytes > PAGE_BYTES {
                page.next = reached;
                break;
            }
            if asked.shards.contains(&ShardId::of(&topic, shards)) {
                let message = if asked.committed {
                    self.retained.get(&topic, now)
                } else {
                    self.retained.latest(&topic, now)
                };
                if let Some(message) = message {
                    bytes += cost(&message);
                    page.messages.push(message);
                }
            }
            reached = Some(topic);
        }
        // after the page is made: a node that lost a shard meanwhile does not answer for it
        let refused = asked.shards.iter().filter(|shard| !is_here(shard));
        page.refused = refused.copied().collect();
        if !page.refused.is_empty() {
            page.messages
                .retain(|message| !page.refused.contains(&ShardId::of(&message.topic, shards)));
        }
        page
    }

    /// Asks a node, maybe this one, for a page.
    pub(in crate::broker) fn ask_page(
        &self,
        node: NodeId,
        asked: PageAsk,
    ) -> BoxFuture<'static, Option<RetainedPage>> {
        if node == self.nodes.me() {
            let page = self.retained_page(&asked);
            return Box::pin(std::future::ready(Some(page)));
        }
        let ask = Ask::Routes(words::Ask::RetainedPage(asked));
        let answer = self.peers.ask(node, ask, WITHIN);
        Box::pin(async move {
            match answer.await {
                Ok(Reply::Routes(words::Reply::RetainedPage(page))) => Some(page),
                Ok(_) | Err(_) => None,
            }
        })
    }
}

/// Sees to the messages of one topic until none waits.
async fn serve(broker: Weak<Broker>, topic: String) {
    loop {
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let Some(routes) = &broker.routes else { return };
        let Some((message, patience)) = routes.topics.first(&topic) else {
            return;
        };
        let mut kept = Outcome::NoMatch;
        if message.retain {
            kept = Arc::clone(&broker)
                .keep_there(message.clone(), patience)
                .await;
        }
        // as with an owner that is here: what cannot be kept for want of room goes to nobody
        let pending = if kept == Outcome::QuotaExceeded {
            Pending::Ready(kept)
        } else {
            broker.route_on(message, patience, Pending::Ready(kept))
        };
        let (settler, goes_on) = routes.topics.done(&topic);
        if let Some(settler) = settler {
            drop(start(Box::pin(async move {
                let outcome = pending.outcome().await;
                settler.settle(outcome);
                outcome
            })));
        }
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use umbel_core::{message::Qos, time::Timestamp};

    use super::*;

    #[test]
    fn what_waits_to_be_kept_is_bounded_in_bytes() {
        let topics = Topics::default();
        let add = |number: usize| {
            let message = Message::from_cluster(
                format!("topic/{}", number % 7),
                vec![0; 1024 * 1024].into(),
                Qos::AtLeastOnce,
                Timestamp::default(),
            );
            !matches!(topics.add(message, Patience::Never), Added::Full)
        };
        let taken = (0..100).filter(|number| add(*number)).count();
        assert!((60..64).contains(&taken), "{taken}");
        let (settler, _) = topics.done("topic/0");
        assert!(settler.is_some());
        assert!(add(100) && !add(101), "room for one when one is done");
    }
}
