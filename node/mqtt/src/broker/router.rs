//! Which sessions get a message.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use umbel_core::{
    ids::ClientId,
    message::Qos,
    topic::{Filter, Match, Trie},
};

use super::mailbox::{Mailbox, Options};

/// A session that gets a message, and how: what its matching subscriptions say together.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) qos: Qos,
    pub(crate) retain_as_published: bool,
    pub(crate) ids: Vec<NonZeroU32>,
}

#[derive(Debug)]
struct Target {
    mailbox: Arc<Mailbox>,
    options: Options,
}

/// All subscriptions of this node.
#[derive(Debug, Default)]
pub(crate) struct Router {
    trie: RwLock<Trie<ClientId, Target>>,
    /// Rotates the members of shared groups.
    turn: AtomicU64,
}

impl Router {
    /// Adds a subscription or replaces its options.
    pub(crate) fn insert(&self, filter: &Filter, mailbox: &Arc<Mailbox>, options: Options) {
        let target = Target {
            mailbox: Arc::clone(mailbox),
            options,
        };
        let client = mailbox.client().clone();
        let replaced = self.trie.write().insert(filter, client, target);
        drop(replaced);
    }

    /// Removes a subscription.
    pub(crate) fn remove(&self, filter: &Filter, client: &ClientId) {
        let removed = self.trie.write().remove(filter, client);
        drop(removed);
    }

    /// Removes all subscriptions of a session that ended.
    pub(crate) fn remove_all(&self, subscriptions: &[(Filter, Options)], client: &ClientId) {
        for (filter, _) in subscriptions {
            self.remove(filter, client);
        }
    }

    /// Subscriptions on this node.
    pub(crate) fn len(&self) -> usize {
        self.trie.read().subscribers()
    }

    /// Whether anybody would get a message of this topic.
    pub(crate) fn is_wanted(&self, topic: &str) -> bool {
        let mut wanted = false;
        self.trie.read().for_each_match(topic, |_| wanted = true);
        wanted
    }

    /// Who gets a message. One read lock; no allocation when nobody does. A client appears once for all of its own
    /// subscriptions that match (MQTT-3.3.5-1 leaves the choice, this one spares the client duplicates), and once
    /// more for each shared group that picks it.
    pub(crate) fn receivers(&self, topic: &str, publisher: Option<&ClientId>) -> Vec<Receiver> {
        let mut receivers = Vec::new();
        let mut groups = Vec::new();
        self.trie.read().for_each_match(topic, |found| match found {
            Match::Direct(client, target) => {
                // MQTT-3.8.3-3
                if !(target.options.no_local && publisher == Some(client)) {
                    receivers.push(Receiver::new(target));
                }
            },
            Match::Shared(group) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let picked = group.pick(turn, |_, target| target.mailbox.is_connected());
                groups.extend(picked.map(|(_, target)| Receiver::new(target)));
            },
        });
        if receivers.len() > 1 {
            receivers.sort_unstable_by_key(|receiver| Arc::as_ptr(&receiver.mailbox).addr());
            receivers.dedup_by(Receiver::absorb);
        }
        receivers.append(&mut groups);
        receivers
    }
}

impl Receiver {
    fn new(target: &Target) -> Self {
        Self {
            mailbox: Arc::clone(&target.mailbox),
            qos: target.options.qos,
            retain_as_published: target.options.retain_as_published,
            ids: target.options.id.into_iter().collect(),
        }
    }

    /// Adds another subscription of the same client to `kept`; false if it is another client.
    fn absorb(other: &mut Self, kept: &mut Self) -> bool {
        if !Arc::ptr_eq(&other.mailbox, &kept.mailbox) {
            return false;
        }
        kept.qos = kept.qos.max(other.qos);
        kept.retain_as_published |= other.retain_as_published;
        kept.ids.append(&mut other.ids);
        true
    }
}
