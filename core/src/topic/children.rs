//! The literal children of a node in the trie, by level.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

/// Above this many the children are a crowd.
const FEW_MAX: usize = 16;

/// Below this many they are few again; the gap keeps a node at the edge from changing to and fro.
const FEW_AGAIN: usize = FEW_MAX / 2;

/// Children by level: few in an exactly sized sorted vector, as nearly every node has one; a crowd by hash.
///
/// The levels a fleet makes are alike at the front (`device-0001`, `device-0002`), so comparing them as text reads
/// most of each; comparing hashes is one instruction. The order is nobody's business: children are never listed.
/// Clients could choose levels with equal hashes, but then only those levels wait for one another, and the number
/// of filters a session may hold bounds how long.
#[derive(Clone, Debug)]
pub(super) enum Children<N> {
    Few(Vec<(Box<str>, N)>),
    /// Boxed for 24 bytes in every node instead of 32.
    Crowd(Box<Crowd<N>>),
}

/// By hash, and rank among the levels of equal hash; ranks have no gaps.
type Crowd<N> = BTreeMap<(u64, u32), (Box<str>, N)>;

impl<N> Default for Children<N> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<N> Children<N> {
    pub(super) fn one(level: Box<str>, node: N) -> Self {
        Self::Few(vec![(level, node)])
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Crowd(crowd) => crowd.is_empty(),
        }
    }

    pub(super) fn get(&self, level: &str) -> Option<&N> {
        match self {
            Self::Few(few) => few.get(position(few, level).ok()?).map(|(_, node)| node),
            Self::Crowd(crowd) => {
                let hash = xxh3_64(level.as_bytes());
                ranks()
                    .map_while(|rank| crowd.get(&(hash, rank)))
                    .find_map(|(text, node)| (**text == *level).then_some(node))
            },
        }
    }

    pub(super) fn get_mut(&mut self, level: &str) -> Option<&mut N> {
        match self {
            Self::Few(few) => {
                let at = position(few, level).ok()?;
                few.get_mut(at).map(|(_, node)| node)
            },
            Self::Crowd(crowd) => {
                let key = key_in(crowd, level).ok()?;
                crowd.get_mut(&key).map(|(_, node)| node)
            },
        }
    }

    pub(super) fn get_or_insert_with(&mut self, level: &str, node: impl FnOnce() -> N) -> &mut N {
        if self.get(level).is_none() {
            self.insert(Box::from(level), node());
        }
        self.get_mut(level)
            .expect("it was there or has just been inserted")
    }

    /// Adds a child that is not there.
    fn insert(&mut self, level: Box<str>, node: N) {
        if let Self::Few(few) = self {
            let at = position(few, &level).unwrap_or_else(|at| at);
            if few.len() < FEW_MAX {
                few.reserve_exact(1);
                few.insert(at, (level, node));
                return;
            }
            let mut crowd = Crowd::new();
            for (level, node) in std::mem::take(few) {
                insert_in(&mut crowd, level, node);
            }
            *self = Self::Crowd(Box::new(crowd));
        }
        if let Self::Crowd(crowd) = self {
            insert_in(crowd, level, node);
        }
    }

    pub(super) fn remove(&mut self, level: &str) {
        match self {
            Self::Few(few) => {
                if let Ok(at) = position(few, level) {
                    few.remove(at);
                    few.shrink_to_fit();
                }
            },
            Self::Crowd(crowd) => {
                remove_from(crowd, level);
                self.settle();
            },
        }
    }

    /// Keeps only the children for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut N) -> bool) {
        match self {
            Self::Few(few) => {
                let before = few.len();
                few.retain_mut(|(_, node)| keep(node));
                if few.len() < before {
                    few.shrink_to_fit();
                }
            },
            Self::Crowd(crowd) => {
                let before = crowd.len();
                let mut left = Crowd::new();
                for (level, mut node) in std::mem::take(&mut **crowd).into_values() {
                    if keep(&mut node) {
                        insert_in(&mut left, level, node);
                    }
                }
                **crowd = left;
                if crowd.len() < before {
                    self.settle();
                }
            },
        }
    }

    /// A crowd that became small is few again.
    fn settle(&mut self) {
        if let Self::Crowd(crowd) = self
            && crowd.len() < FEW_AGAIN
        {
            let mut few: Vec<_> = std::mem::take(&mut **crowd).into_values().collect();
            few.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            *self = Self::Few(few);
        }
    }

    /// Takes the child out if it is the only one.
    pub(super) fn take_only(&mut self) -> Option<(Box<str>, N)> {
        match self {
            Self::Few(few) if few.len() == 1 => few.pop(),
            Self::Few(_) | Self::Crowd(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn for_each<'a>(&'a self, mut visit: impl FnMut(&'a str, &'a N)) {
        match self {
            Self::Few(few) => few.iter().for_each(|(level, node)| visit(level, node)),
            Self::Crowd(crowd) => crowd.values().for_each(|(level, node)| visit(level, node)),
        }
    }
}

fn position<N>(few: &[(Box<str>, N)], level: &str) -> Result<usize, usize> {
    few.binary_search_by(|(other, _)| (**other).cmp(level))
}

/// Where the level is, or the first free key for it.
fn key_in<N>(crowd: &Crowd<N>, level: &str) -> Result<(u64, u32), (u64, u32)> {
    let hash = xxh3_64(level.as_bytes());
    for rank in ranks() {
        match crowd.get(&(hash, rank)) {
            Some((text, _)) if **text == *level => return Ok((hash, rank)),
            Some(_) => {},
            None => return Err((hash, rank)),
        }
    }
    Err((hash, u32::MAX))
}

fn insert_in<N>(crowd: &mut Crowd<N>, level: Box<str>, node: N) {
    let (Ok(key) | Err(key)) = key_in(crowd, &level);
    crowd.insert(key, (level, node));
}

fn remove_from<N>(crowd: &mut Crowd<N>, level: &str) {
    let Ok(key) = key_in(crowd, level) else {
        return;
    };
    crowd.remove(&key);
    // the last of equal hash takes its place, so that ranks have no gaps
    let last = ranks()
        .skip_while(|rank| *rank <= key.1)
        .map_while(|rank| crowd.contains_key(&(key.0, rank)).then_some((key.0, rank)));
    if let Some(last) = last.last()
        && let Some(moved) = crowd.remove(&last)
    {
        crowd.insert(key, moved);
    }
}

fn ranks() -> impl Iterator<Item = u32> {
    0..u32::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn children_equal_a_plain_map(
            steps in prop::collection::vec((0_u8..40, prop::option::of(any::<u8>())), 0..200),
        ) {
            let mut children = Children::default();
            let mut model = BTreeMap::new();
            for (level, value) in steps {
                let level = format!("device-{level}");
                if let Some(value) = value {
                    *children.get_or_insert_with(&level, || 0) = value;
                    model.insert(level.clone(), value);
                } else {
                    children.remove(&level);
                    model.remove(&level);
                }
                prop_assert_eq!(children.get(&level), model.get(&level));
                prop_assert_eq!(children.is_empty(), model.is_empty());
                let mut listed = BTreeMap::new();
                children.for_each(|level, value| {
                    listed.insert(level.to_owned(), *value);
                });
                prop_assert_eq!(&listed, &model);
            }
        }
    }

    #[test]
    fn levels_of_equal_hash_are_told_apart() {
        // a collision cannot be found in a test, so one is made: three levels under the hash of the first
        let hash = xxh3_64(b"a");
        let mut crowd = Crowd::new();
        for (rank, level) in (0..).zip(["x", "y", "a"]) {
            crowd.insert((hash, rank), (Box::from(level), rank));
        }
        let mut children = Children::Crowd(Box::new(crowd));
        assert_eq!(children.get("a"), Some(&2));
        let Children::Crowd(crowd) = &mut children else {
            return;
        };
        assert_eq!(key_in(crowd, "a"), Ok((hash, 2)));
        let first = crowd.remove(&(hash, 0));
        assert!(first.is_some());
        crowd.insert((hash, 0), (Box::from("a"), 7));
        crowd.insert((hash, 2), (Box::from("z"), 9));
        remove_from(crowd, "a");
        let left: Vec<_> = crowd
            .iter()
            .map(|(key, (level, _))| (key.1, &**level))
            .collect();
        assert_eq!(left, [(0, "z"), (1, "y")]);
    }
}
