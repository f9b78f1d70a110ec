//! A sorted map for the two sizes there are: a handful, or a crowd.
//!
//! Nearly every filter has one subscriber, and a fleet has a million such filters; a `BTreeMap` allocates room for
//! eleven entries at once. So a few entries live in an exactly sized sorted vector, and only a crowd moves into a
//! tree.

use std::{borrow::Borrow, collections::BTreeMap};

/// Above this many entries the map is a tree: where a shift of the vector starts to cost more than the tree.
const FEW_MAX: usize = 16;

/// Below this many it is a vector again; the gap keeps a map at the edge from moving to and fro.
const FEW_AGAIN: usize = FEW_MAX / 2;

#[derive(Clone, Debug)]
pub(super) enum SmallMap<K, V> {
    Few(Vec<(K, V)>),
    #[expect(
        clippy::box_collection,
        reason = "24 bytes for every node instead of 32"
    )]
    Many(Box<BTreeMap<K, V>>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(entries) => entries.len(),
            Self::Many(entries) => entries.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(entries) => {
                let at = position(entries, key).ok()?;
                entries.get(at).map(|(_, value)| value)
            },
            Self::Many(entries) => entries.get(key),
        }
    }

    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(entries) => {
                let at = position(entries, key).ok()?;
                entries.get_mut(at).map(|(_, value)| value)
            },
            Self::Many(entries) => entries.get_mut(key),
        }
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Self::Few(entries) = self {
            match position(entries, &key) {
                Ok(at) => {
                    return entries
                        .get_mut(at)
                        .map(|(_, old)| std::mem::replace(old, value));
                },
                Err(at) if entries.len() < FEW_MAX => {
                    insert_tight(entries, at, (key, value));
                    return None;
                },
                Err(_) => {
                    *self = Self::Many(Box::new(std::mem::take(entries).into_iter().collect()));
                },
            }
        }
        match self {
            Self::Few(_) => None,
            Self::Many(entries) => entries.insert(key, value),
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Few(entries) => {
                let at = position(entries, key).ok()?;
                let (_, value) = entries.remove(at);
                entries.shrink_to_fit();
                Some(value)
            },
            Self::Many(entries) => {
                let value = entries.remove(key)?;
                if entries.len() < FEW_AGAIN {
                    *self = Self::Few(std::mem::take(&mut **entries).into_iter().collect());
                }
                Some(value)
            },
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        match self {
            Self::Few(entries) => {
                entries.retain_mut(|(key, value)| keep(key, value));
                entries.shrink_to_fit();
            },
            Self::Many(entries) => {
                entries.retain(keep);
                if entries.len() < FEW_AGAIN {
                    *self = Self::Few(std::mem::take(&mut **entries).into_iter().collect());
                }
            },
        }
    }

    pub(super) fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a K, &'a V)) {
        match self {
            Self::Few(entries) => entries.iter().for_each(|(key, value)| visit(key, value)),
            Self::Many(entries) => entries.iter().for_each(|(key, value)| visit(key, value)),
        }
    }
}

/// Inserts with the smallest allocation that holds the entry, while entries are few.
pub(super) fn insert_tight<T>(entries: &mut Vec<T>, at: usize, entry: T) {
    if entries.len() < FEW_AGAIN {
        entries.reserve_exact(1);
    }
    entries.insert(at, entry);
}

/// Where the key is, or where it belongs.
pub(super) fn position<K, V, Q>(entries: &[(K, V)], key: &Q) -> Result<usize, usize>
where
    K: Borrow<Q>,
    Q: Ord + ?Sized,
{
    entries.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_small_map_equals_a_tree(steps in prop::collection::vec((0_u8..40, prop::option::of(any::<u8>())), 0..200)) {
            let mut map = SmallMap::default();
            let mut model = BTreeMap::new();
            for (key, value) in steps {
                if let Some(value) = value {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.len(), model.len());
                let mut seen = Vec::new();
                map.for_each(|key, value| seen.push((*key, *value)));
                prop_assert_eq!(seen, model.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
