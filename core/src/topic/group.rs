//! A shared group: several subscribers of one filter, of whom one gets each message (MQTT 5.0, 4.8.2).

use super::small_map::{insert_tight, position};

/// Random probes before the members are counted: finds a preferred one at once unless most are not.
const PROBES: u64 = 4;

/// The members of one shared group on one filter.
#[derive(Clone, Debug)]
pub struct Group<K, V> {
    name: Box<str>,
    members: Vec<(K, V)>,
}

impl<K: Ord, V> Group<K, V> {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: Box::from(name),
            members: Vec::new(),
        }
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many members there are; a group in a trie has at least one.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is left.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The members in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.members.iter().map(|(key, value)| (key, value))
    }

    /// One member, by a random draw: uniform among those that are preferred (say, connected ones), and uniform
    /// among all when none is. The same draw picks the same member of the same group.
    pub fn pick(&self, draw: u64, mut prefer: impl FnMut(&K, &V) -> bool) -> Option<(&K, &V)> {
        for probe in 0..PROBES {
            let (key, value) = self.drawn(mix(draw, probe))?;
            if prefer(key, value) {
                return Some((key, value));
            }
        }
        let preferred = self
            .iter()
            .filter(|(key, value)| prefer(key, value))
            .count();
        if preferred == 0 {
            return self
                .drawn(mix(draw, PROBES))
                .map(|(key, value)| (key, value));
        }
        let wanted = index(mix(draw, PROBES), preferred);
        self.iter()
            .filter(|(key, value)| prefer(key, value))
            .nth(wanted)
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = position(&self.members, key).ok()?;
        self.members.get(at).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = position(&self.members, key).ok()?;
        self.members.get_mut(at).map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match position(&self.members, &key) {
            Ok(at) => self
                .members
                .get_mut(at)
                .map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                insert_tight(&mut self.members, at, (key, value));
                None
            },
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let at = position(&self.members, key).ok()?;
        Some(self.members.remove(at).1)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.members.retain_mut(|(key, value)| keep(key, value));
    }

    fn drawn(&self, draw: u64) -> Option<&(K, V)> {
        self.members.get(index(draw, self.members.len()))
    }
}

/// Independent draws from one: the finaliser of splitmix64.
pub(super) fn mix(draw: u64, step: u64) -> u64 {
    let z = draw.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn index(draw: u64, len: usize) -> usize {
    // both conversions are exact where a `usize` has 64 bits, and harmless where it has 32
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    draw.checked_rem(len)
        .and_then(|rest| usize::try_from(rest).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: u64) -> Group<u64, ()> {
        let mut group = Group::new("g");
        for member in 0..members {
            group.insert(member, ());
        }
        group
    }

    #[test]
    fn picks_spread_evenly_over_the_preferred_members() {
        let group = group(50);
        for preferred in [1_u64, 5, 50] {
            let mut hits = vec![0_u64; 50];
            let draws = preferred * 2_000;
            for draw in 0..draws {
                let (member, ()) = group
                    .pick(draw, |key, ()| *key < preferred)
                    .expect("a member");
                hits[usize::try_from(*member).expect("small")] += 1;
            }
            for (member, hits) in hits.iter().enumerate() {
                if member < usize::try_from(preferred).expect("small") {
                    assert!(
                        (1_700..=2_300).contains(hits),
                        "member {member} of {preferred}: {hits}"
                    );
                } else {
                    assert_eq!(*hits, 0, "member {member} is not preferred");
                }
            }
        }
    }

    #[test]
    fn a_group_without_preferred_members_still_delivers() {
        let group = group(3);
        let mut hits = [0; 3];
        for draw in 0..3_000 {
            let (member, ()) = group.pick(draw, |_, ()| false).expect("a member");
            hits[usize::try_from(*member).expect("small")] += 1;
        }
        assert!(
            hits.iter().all(|hits| (850..=1_150).contains(hits)),
            "{hits:?}"
        );
    }

    #[test]
    fn an_empty_group_picks_nobody() {
        assert_eq!(group(0).pick(7, |_, ()| true), None);
    }
}
