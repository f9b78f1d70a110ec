//! The subscribers of one filter, alone and in shared groups.

use super::{
    group::Group,
    small_map::{SmallMap, insert_tight},
};

/// What a topic hits.
#[derive(Debug)]
pub enum Match<'a, K, V> {
    /// A subscriber of its own.
    Direct(&'a K, &'a V),
    /// A shared group: one member gets the message, see [`Group::pick`].
    Shared(&'a Group<K, V>),
}

/// Boxed because most nodes have neither kind.
pub(super) type Entries<K, V> = Option<Box<Subscribers<K, V>>>;

#[derive(Clone, Debug)]
pub(super) struct Subscribers<K, V> {
    direct: SmallMap<K, V>,
    /// Sorted by name.
    groups: Vec<Group<K, V>>,
}

impl<K: Ord, V> Default for Subscribers<K, V> {
    fn default() -> Self {
        Self {
            direct: SmallMap::default(),
            groups: Vec::new(),
        }
    }
}

impl<K: Ord, V> Subscribers<K, V> {
    pub(super) fn visit<'a>(&'a self, visit: &mut impl FnMut(Match<'a, K, V>)) {
        self.direct
            .for_each(|key, value| visit(Match::Direct(key, value)));
        self.groups
            .iter()
            .for_each(|group| visit(Match::Shared(group)));
    }

    pub(super) fn get(&self, group: Option<&str>, key: &K) -> Option<&V> {
        match group {
            None => self.direct.get(key),
            Some(name) => self.groups.get(self.group_at(name).ok()?)?.get(key),
        }
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group<K, V>> {
        self.groups.get(self.group_at(name).ok()?)
    }

    pub(super) fn get_mut(&mut self, group: Option<&str>, key: &K) -> Option<&mut V> {
        match group {
            None => self.direct.get_mut(key),
            Some(name) => {
                let at = self.group_at(name).ok()?;
                self.groups.get_mut(at)?.get_mut(key)
            },
        }
    }

    /// The value replaced, and whether this is the first subscriber of the filter and group.
    pub(super) fn insert(&mut self, group: Option<&str>, key: K, value: V) -> (Option<V>, bool) {
        let Some(name) = group else {
            let first = self.direct.is_empty();
            return (self.direct.insert(key, value), first);
        };
        let at = self.group_at(name);
        if let Err(at) = at {
            insert_tight(&mut self.groups, at, Group::new(name));
        }
        let old = self
            .groups
            .get_mut(at.unwrap_or_else(|at| at))
            .and_then(|group| group.insert(key, value));
        (old, at.is_err())
    }

    /// The value removed, and whether it was the last of the filter and group.
    fn remove(&mut self, group: Option<&str>, key: &K) -> Option<(V, bool)> {
        let Some(name) = group else {
            let value = self.direct.remove(key)?;
            return Some((value, self.direct.is_empty()));
        };
        let at = self.group_at(name).ok()?;
        let group = self.groups.get_mut(at)?;
        let value = group.remove(key)?;
        let last = group.is_empty();
        if last {
            self.groups.remove(at);
        }
        Some((value, last))
    }

    fn group_at(&self, name: &str) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| group.name().cmp(name))
    }
}

/// The value removed, and whether it was the last of its filter and group; empty entries go with it.
pub(super) fn remove_from<K: Ord, V>(
    entries: &mut Entries<K, V>,
    group: Option<&str>,
    key: &K,
) -> Option<(V, bool)> {
    let subscribers = entries.as_mut()?;
    let removed = subscribers.remove(group, key)?;
    if subscribers.direct.is_empty() && subscribers.groups.is_empty() {
        *entries = None;
    }
    Some(removed)
}

/// What a sweep left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) filters: usize,
    pub(super) subscribers: usize,
}

/// Keeps only the subscriptions for which `keep` says so; empty entries go.
pub(super) fn retain_in<K: Ord, V>(
    entries: &mut Entries<K, V>,
    keep: &mut impl FnMut(&K, &mut V) -> bool,
    left: &mut Left,
) {
    let Some(subscribers) = entries else { return };
    subscribers.direct.retain(&mut *keep);
    for group in &mut subscribers.groups {
        group.retain(&mut *keep);
        left.subscribers += group.len();
    }
    subscribers.groups.retain(|group| !group.is_empty());
    let direct = subscribers.direct.len();
    left.subscribers += direct;
    left.filters += subscribers.groups.len() + usize::from(direct > 0);
    if direct == 0 && subscribers.groups.is_empty() {
        *entries = None;
    }
}
