//! All subscriptions of a node: which subscribers match a topic.
//!
//! A tree over levels. Runs of literal levels without a fork share one node (its *tail*), so a device that
//! subscribes to one long topic costs two small nodes, and a walk hops once where a plain tree hops five times.
//!
//! # Cost
//! A walk visits only nodes whose path matches the topic so far, at each at most one literal child, `+` and `#`;
//! it allocates nothing. Hence O(levels × matching branches): the size of the tree does not matter but for the
//! search among siblings, O(log siblings). Filters that are made of `+` can make every node of a path match; then
//! the cost is bounded by the nodes those filters created, levels × filters, and the bounds on levels
//! ([`LEVELS_MAX`](super::LEVELS_MAX)) and on filters per session keep one client's share small.

use super::{
    children::Children,
    filter::Filter,
    group::{Group, mix},
    levels::{behind, literal_run, shared_levels, split_level},
    subscribers::{Entries, Left, Match, Subscribers, remove_from, retain_in},
};

/// Subscriptions by filter. `K` names a subscriber, `V` is what it asked for.
#[derive(Clone, Debug)]
pub struct Trie<K, V> {
    root: Node<K, V>,
    filters: usize,
    subscribers: usize,
}

#[derive(Clone, Debug)]
struct Node<K, V> {
    /// Literal levels behind the one the parent knows this node by: empty, or `/b/c` with its leading slash.
    tail: Box<str>,
    /// By the first level of the way to them; never `+` or `#`.
    children: Children<Node<K, V>>,
    plus: Option<Box<Node<K, V>>>,
    /// Subscribers of the filter that ends here.
    here: Entries<K, V>,
    /// Subscribers of that filter followed by `/#`.
    below: Entries<K, V>,
}

impl<K: Ord, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self {
            root: Node::new(Box::default()),
            filters: 0,
            subscribers: 0,
        }
    }
}

impl<K: Ord, V> Trie<K, V> {
    /// An empty trie.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many different filters have subscribers; the groups of a shared filter count one each.
    pub const fn filters(&self) -> usize {
        self.filters
    }

    /// How many subscriptions there are.
    pub const fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// Whether nobody subscribes.
    pub const fn is_empty(&self) -> bool {
        self.subscribers == 0
    }

    /// Adds a subscription or replaces the subscriber's earlier one to the same filter, which is returned.
    pub fn insert(&mut self, filter: &Filter, key: K, value: V) -> Option<V> {
        let subscribers = self
            .root
            .entries_or_new(Some(filter.pattern()))
            .get_or_insert_with(Box::default);
        let (old, first) = subscribers.insert(filter.group(), key, value);
        self.filters += usize::from(first);
        self.subscribers += usize::from(old.is_none());
        old
    }

    /// Removes a subscription; nodes nobody needs any more go with it.
    pub fn remove(&mut self, filter: &Filter, key: &K) -> Option<V> {
        let (value, last) = self
            .root
            .remove(Some(filter.pattern()), filter.group(), key)?;
        self.filters = self.filters.saturating_sub(usize::from(last));
        self.subscribers = self.subscribers.saturating_sub(1);
        Some(value)
    }

    /// Keeps only the subscriptions for which `keep` says so. Looks at all of them.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let mut left = Left::default();
        self.root.retain(&mut keep, &mut left);
        self.filters = left.filters;
        self.subscribers = left.subscribers;
    }

    /// What a subscriber asked for with exactly this filter.
    pub fn get(&self, filter: &Filter, key: &K) -> Option<&V> {
        let subscribers = self.root.entries(Some(filter.pattern()))?;
        subscribers.get(filter.group(), key)
    }

    /// The shared group of exactly this filter.
    pub fn group(&self, filter: &Filter) -> Option<&Group<K, V>> {
        let subscribers = self.root.entries(Some(filter.pattern()))?;
        subscribers.group(filter.group()?)
    }

    /// As [`Trie::get`], to change it in place.
    pub fn get_mut(&mut self, filter: &Filter, key: &K) -> Option<&mut V> {
        let subscribers = self.root.entries_mut(Some(filter.pattern()))?;
        subscribers.get_mut(filter.group(), key)
    }

    /// Visits every subscription that matches a topic name, once each: a subscriber with overlapping filters is
    /// visited for each of them.
    pub fn for_each_match<'a>(&'a self, topic: &str, mut visit: impl FnMut(Match<'a, K, V>)) {
        if topic.starts_with('$') {
            self.root.walk_literal(topic, &mut visit); // MQTT-4.7.2-1
        } else {
            self.root.walk(Some(topic), &mut visit);
        }
    }

    /// Visits every subscriber that gets a message on this topic: all direct ones, and of each shared group one,
    /// picked by `draw` with a preference as in [`Group::pick`](super::Group::pick).
    pub fn for_each_delivery<'a>(
        &'a self,
        topic: &str,
        draw: u64,
        mut prefer: impl FnMut(&K, &V) -> bool,
        mut visit: impl FnMut(&'a K, &'a V),
    ) {
        let mut groups = 0;
        self.for_each_match(topic, |found| match found {
            Match::Direct(key, value) => visit(key, value),
            Match::Shared(group) => {
                // a draw of its own, or groups of equal size would always pick members of equal rank
                groups += 1;
                if let Some((key, value)) = group.pick(mix(draw, groups), &mut prefer) {
                    visit(key, value);
                }
            },
        });
    }
}

impl<K: Ord, V> Node<K, V> {
    fn new(tail: Box<str>) -> Self {
        Self {
            tail,
            children: Children::default(),
            plus: None,
            here: None,
            below: None,
        }
    }

    fn is_unused(&self) -> bool {
        self.is_bare() && self.children.is_empty()
    }

    /// Nothing but literal children, if even those.
    fn is_bare(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.plus.is_none()
    }

    /// Where the subscribers of a filter are, creating the way to them. `rest` is what the filter has left
    /// behind this node; `None` when it ends here.
    fn entries_or_new(&mut self, rest: Option<&str>) -> &mut Entries<K, V> {
        let Some(rest) = rest else {
            return &mut self.here;
        };
        let (level, after) = split_level(rest);
        match level {
            "#" => &mut self.below,
            "+" => self
                .plus
                .get_or_insert_with(|| Box::new(Self::new(Box::default())))
                .entries_or_new(behind(after)),
            _ => {
                let tail = literal_run(after);
                let child = self
                    .children
                    .get_or_insert_with(level, || Self::new(Box::from(tail)));
                let shared = shared_levels(&child.tail, tail);
                child.split(shared);
                child.entries_or_new(after.get(shared..).and_then(behind))
            },
        }
    }

    /// Makes this node's tail `at` bytes long; what followed moves into a child. `at` lies between levels.
    fn split(&mut self, at: usize) {
        let Some((tail, rest)) = self.tail.split_at_checked(at) else {
            return;
        };
        let Some(rest) = behind(rest) else { return };
        let (level, lower_tail) = split_level(rest);
        let (tail, level, lower_tail) = (Box::from(tail), Box::from(level), Box::from(lower_tail));
        let lower = std::mem::replace(self, Self::new(tail));
        self.children = Children::one(
            level,
            Self {
                tail: lower_tail,
                ..lower
            },
        );
    }

    fn entries(&self, rest: Option<&str>) -> Option<&Subscribers<K, V>> {
        let Some(rest) = rest else {
            return self.here.as_deref();
        };
        let (level, after) = split_level(rest);
        match level {
            "#" => self.below.as_deref(),
            "+" => self.plus.as_ref()?.entries(behind(after)),
            _ => {
                let child = self.children.get(level)?;
                child.entries(child.past_tail(after)?)
            },
        }
    }

    fn entries_mut(&mut self, rest: Option<&str>) -> Option<&mut Subscribers<K, V>> {
        let Some(rest) = rest else {
            return self.here.as_deref_mut();
        };
        let (level, after) = split_level(rest);
        match level {
            "#" => self.below.as_deref_mut(),
            "+" => self.plus.as_mut()?.entries_mut(behind(after)),
            _ => {
                let child = self.children.get_mut(level)?;
                let rest = child.past_tail(after)?;
                child.entries_mut(rest)
            },
        }
    }

    /// The value removed, and whether it was the last of its filter and group.
    fn remove(&mut self, rest: Option<&str>, group: Option<&str>, key: &K) -> Option<(V, bool)> {
        let Some(rest) = rest else {
            return remove_from(&mut self.here, group, key);
        };
        let (level, after) = split_level(rest);
        match level {
            "#" => remove_from(&mut self.below, group, key),
            "+" => {
                let plus = self.plus.as_mut()?;
                let removed = plus.remove(behind(after), group, key)?;
                if plus.is_unused() {
                    self.plus = None;
                }
                Some(removed)
            },
            _ => {
                let child = self.children.get_mut(level)?;
                let rest = child.past_tail(after)?;
                let removed = child.remove(rest, group, key)?;
                if child.is_unused() {
                    self.children.remove(level);
                } else {
                    child.join();
                }
                Some(removed)
            },
        }
    }

    /// Drops subscriptions, and the nodes nobody needs any more.
    fn retain(&mut self, keep: &mut impl FnMut(&K, &mut V) -> bool, left: &mut Left) {
        retain_in(&mut self.here, keep, left);
        retain_in(&mut self.below, keep, left);
        if let Some(plus) = &mut self.plus {
            plus.retain(keep, left);
            if plus.is_unused() {
                self.plus = None;
            }
        }
        self.children.retain(|child| {
            child.retain(keep, left);
            if child.is_unused() {
                return false;
            }
            child.join();
            true
        });
    }

    /// Takes over an only child when this node is nothing but the way to it: undoes a split.
    fn join(&mut self) {
        if !self.is_bare() {
            return;
        }
        let Some((level, lower)) = self.children.take_only() else {
            return;
        };
        let tail = [&*self.tail, "/", &*level, &*lower.tail]
            .concat()
            .into_boxed_str();
        *self = Self { tail, ..lower };
    }

    /// `rest` is what the topic has left behind this node; `None` when it ends here.
    fn walk<'a>(&'a self, rest: Option<&str>, visit: &mut impl FnMut(Match<'a, K, V>)) {
        if let Some(below) = &self.below {
            below.visit(visit); // also when the topic ends here: `a/#` matches `a`
        }
        let Some(rest) = rest else {
            if let Some(here) = &self.here {
                here.visit(visit);
            }
            return;
        };
        self.walk_literal(rest, visit);
        if let Some(plus) = &self.plus {
            plus.walk(behind(split_level(rest).1), visit);
        }
    }

    fn walk_literal<'a>(&'a self, rest: &str, visit: &mut impl FnMut(Match<'a, K, V>)) {
        let (level, after) = split_level(rest);
        let Some(child) = self.children.get(level) else {
            return;
        };
        if let Some(rest) = child.past_tail(after) {
            child.walk(rest, visit);
        }
    }

    #[expect(
        clippy::option_option,
        reason = "does the way lead here; and does it end here"
    )]
    /// What is left behind this node's tail, or `None` when the text goes another way.
    fn past_tail<'t>(&self, after: &'t str) -> Option<Option<&'t str>> {
        let rest = after.strip_prefix(&*self.tail)?;
        if rest.is_empty() {
            Some(None)
        } else {
            rest.strip_prefix('/').map(Some)
        }
    }
}

#[cfg(test)]
mod tests;
