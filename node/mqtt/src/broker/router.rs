//! Which sessions get a message.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use umbel_core::{
    ids::{ClientId, ShardId, Term},
    message::Qos,
    topic::{Filter, Group, Match, Trie},
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
pub(crate) struct Target {
    mailbox: Arc<Mailbox>,
    options: Options,
    /// The client looks at the topics of its own device.
    is_own: bool,
    /// Of a shared subscription; boxed because few are.
    shared: Option<Box<Filter>>,
}

/// Which of the sessions of this node a message is for. All of them, where nobody else delivers to some.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Clean sessions.
    pub(crate) clean: bool,
    /// Durable sessions.
    pub(crate) durable: Shards<'a>,
    /// Clean sessions, by filters for the topics of their own device.
    pub(crate) own_clean: bool,
    /// The same of durable sessions.
    pub(crate) own_durable: bool,
}

/// Some shards.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shards<'a> {
    All,
    /// Of these, homes of the term beside them: others are still being read, or are over.
    Of(&'a BTreeMap<ShardId, Term>, Choice<'a>),
}

/// Some of the shards beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice<'a> {
    Only(&'a [ShardId]),
    AllBut(&'a [ShardId]),
}

impl Scope<'_> {
    /// All sessions of this node.
    pub(crate) const ALL: Self = Self {
        clean: true,
        durable: Shards::All,
        own_clean: true,
        own_durable: true,
    };

    fn holds(&self, target: &Target) -> bool {
        match (target.is_own, target.mailbox.is_home()) {
            (true, true) => self.own_durable,
            (true, false) => self.own_clean,
            (false, true) => self.durable.hold(&target.mailbox),
            (false, false) => self.clean,
        }
    }
}

impl Shards<'_> {
    fn hold(&self, home: &Mailbox) -> bool {
        let shard = home.shard();
        let (homes, choice) = match self {
            Self::All => return true,
            Self::Of(homes, choice) => (homes, choice),
        };
        let is_chosen = match choice {
            Choice::Only(shards) => shards.contains(&shard),
            Choice::AllBut(shards) => !shards.contains(&shard),
        };
        is_chosen && homes.get(&shard) == Some(&home.term())
    }
}

/// All subscriptions of this node.
#[derive(Debug, Default)]
pub(crate) struct Router {
    trie: RwLock<Trie<ClientId, Target>>,
    /// Rotates the members of shared groups.
    turn: AtomicU64,
}

impl Router {
    /// Adds a subscription, or replaces its options: then false.
    pub(crate) fn insert(&self, filter: &Filter, mailbox: &Arc<Mailbox>, options: Options) -> bool {
        let target = Target {
            mailbox: Arc::clone(mailbox),
            options,
            is_own: filter.is_own(mailbox.client()),
            shared: filter.group().map(|_| Box::new(filter.clone())),
        };
        let client = mailbox.client().clone();
        let replaced = self.trie.write().insert(filter, client, target);
        replaced.is_none()
    }

    /// Removes a subscription; false if there was none.
    pub(crate) fn remove(&self, filter: &Filter, client: &ClientId) -> bool {
        let removed = self.trie.write().remove(filter, client);
        removed.is_some()
    }

    /// Whether a shared group has a member here.
    pub(crate) fn has_member(&self, filter: &Filter) -> bool {
        self.trie.read().group(filter).is_some()
    }

    /// Whether a member of a shared group is connected that `holds`.
    pub(crate) fn has_connected(&self, filter: &Filter, holds: impl Fn(&Mailbox) -> bool) -> bool {
        let trie = self.trie.read();
        let mut members = trie.group(filter).into_iter().flat_map(Group::iter);
        members.any(|(_, target)| target.mailbox.is_connected() && holds(&target.mailbox))
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
    /// more for each shared group that picks it: `shared` says who of a group is picked.
    pub(crate) fn receivers(
        &self,
        topic: &str,
        publisher: Option<&ClientId>,
        scope: &Scope<'_>,
        mut shared: impl FnMut(&Group<ClientId, Target>) -> Option<Receiver>,
    ) -> Vec<Receiver> {
        let mut receivers = Vec::new();
        let mut groups = Vec::new();
        self.trie.read().for_each_match(topic, |found| match found {
            Match::Direct(client, target) => {
                // MQTT-3.8.3-3
                let is_echo = target.options.no_local && publisher == Some(client);
                if scope.holds(target) && !is_echo {
                    receivers.push(Receiver::new(target));
                }
            },
            Match::Shared(group) => groups.extend(shared(group)),
        });
        if receivers.len() > 1 {
            receivers.sort_unstable_by_key(|receiver| Arc::as_ptr(&receiver.mailbox).addr());
            receivers.dedup_by(Receiver::absorb);
        }
        receivers.append(&mut groups);
        receivers
    }

    /// A member of a shared group, a connected one if there is any.
    pub(crate) fn pick(&self, group: &Group<ClientId, Target>) -> Option<Receiver> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let picked = group.pick(turn, |_, target| target.mailbox.is_connected());
        picked.map(|(_, target)| Receiver::new(target))
    }

    /// A connected member of a shared group, or nobody.
    pub(crate) fn pick_connected(&self, group: &Group<ClientId, Target>) -> Option<Receiver> {
        self.pick(group)
            .filter(|receiver| receiver.mailbox.is_connected())
    }

    /// One member of the group of a shared filter among those that `holds`, a connected one if there is any.
    pub(crate) fn pick_of(
        &self,
        filter: &Filter,
        mut holds: impl FnMut(&Mailbox) -> bool,
    ) -> Option<Receiver> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let trie = self.trie.read();
        let group = trie.group(filter)?;
        let connected = |target: &Target| target.mailbox.is_connected();
        let picked = group.pick(turn, |_, target| {
            holds(&target.mailbox) && connected(target)
        });
        let (_, picked) = picked?;
        if holds(&picked.mailbox) && connected(picked) {
            return Some(Receiver::new(picked));
        }
        // nobody who may have it is connected
        let held = group
            .iter()
            .filter(|(_, target)| holds(&target.mailbox))
            .count();
        let nth = turn.checked_rem(held as u64)?;
        let mut rest = group.iter().filter(|(_, target)| holds(&target.mailbox));
        let (_, target) = rest.nth(usize::try_from(nth).ok()?)?;
        Some(Receiver::new(target))
    }

    /// A turn in choosing among nodes.
    pub(crate) fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

impl Target {
    /// The shared filter.
    pub(crate) fn shared(&self) -> Option<&Filter> {
        self.shared.as_deref()
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
