//! The topics that hold a retained message, and which of them a new subscription gets.

use std::{collections::BTreeMap, ops::Bound};

use super::filter::{Filter, matches};

/// Topic names with something attached to each, found by filter.
///
/// The topics are one ordered map, and a scan leaps over what cannot match: from a topic that fails at some level
/// to the first that could pass it. Each leap is O(log topics), so a scan costs about as much as the walk of a
/// tree, but stores each topic once, and can stop anywhere and resume from the name it stopped at.
#[derive(Clone, Debug, Default)]
pub struct RetainedIndex<V> {
    topics: BTreeMap<Box<str>, V>,
}

/// How much one call of [`RetainedIndex::scan`] may do. Both end it early; neither loses its place.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimit {
    /// Most topics visited.
    pub matches: usize,
    /// Most topics looked at, matching or not: `+/+/x` may look at many and find none.
    pub steps: usize,
}

/// Where a scan looks on.
enum Leap {
    /// Behind the topic.
    Behind,
    /// At the key.
    To,
    /// Nowhere: nothing further can match.
    End,
}

impl<V> RetainedIndex<V> {
    /// An empty index.
    pub const fn new() -> Self {
        Self {
            topics: BTreeMap::new(),
        }
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Adds a topic, or replaces what it holds.
    pub fn insert(&mut self, topic: &str, value: V) -> Option<V> {
        if let Some(held) = self.topics.get_mut(topic) {
            return Some(std::mem::replace(held, value));
        }
        self.topics.insert(Box::from(topic), value)
    }

    /// Removes a topic.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.topics.remove(topic)
    }

    /// Removes every topic of which `goes` says so, and gives what they held. Looks at all of them.
    pub fn remove_if(&mut self, mut goes: impl FnMut(&str, &V) -> bool) -> Vec<V> {
        let all = self
            .topics
            .extract_if(.., |topic, value| goes(topic, value));
        all.map(|(_, value)| value).collect()
    }

    /// What a topic holds.
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.topics.get(topic)
    }

    /// As [`RetainedIndex::get`], to change it in place.
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut V> {
        self.topics.get_mut(topic)
    }

    /// Visits topics that match the filter's pattern, in byte order, beginning behind `after`. Whether shared
    /// subscriptions get retained messages is not decided here.
    ///
    /// Returns where to resume when a limit ended the scan: the text to pass as `after`, which need not be a
    /// topic that matches. `None` when there is nothing left. A limit of zero counts as one, so that a scan
    /// always gets on.
    pub fn scan<'a>(
        &'a self,
        filter: &Filter,
        after: Option<&str>,
        limit: ScanLimit,
        mut visit: impl FnMut(&'a str, &'a V),
    ) -> Option<&'a str> {
        let pattern = filter.pattern();
        if !filter.has_wildcards() {
            if after.is_none_or(|after| after < pattern)
                && let Some((topic, value)) = self.topics.get_key_value(pattern)
            {
                visit(topic, value);
            }
            return None;
        }
        let start = literal_start(pattern);
        let from = match after {
            Some(after) if after >= start => Bound::Excluded(after),
            Some(_) | None => Bound::Included(start),
        };
        let mut topics = self.topics.range::<str, _>((from, Bound::Unbounded));
        let mut next = topics.next();
        // one buffer for all leaps
        let mut key = String::new();
        let (mut found, mut steps) = (0, 0);
        let mut last = None;
        while let Some((topic, value)) = next {
            if last.is_some() && (found >= limit.matches || steps >= limit.steps) {
                return last;
            }
            if matches(pattern, topic) {
                found += 1;
                visit(topic, value);
            }
            steps += 1;
            last = Some(&**topic);
            let leap = leap(pattern, topic, &mut key);
            if matches!(leap, Leap::End) {
                return None;
            }
            next = topics.next();
            // a look at the neighbour is cheaper than a search from the top, and often enough
            if matches!(leap, Leap::To) && next.is_some_and(|(topic, _)| **topic < *key) {
                let from = (Bound::Included(&*key), Bound::Unbounded);
                topics = self.topics.range::<str, _>(from);
                next = topics.next();
            }
        }
        None
    }
}

/// The least text a matching topic can begin with.
fn literal_start(pattern: &str) -> &str {
    let (start, wildcard) = pattern.split_at(pattern.find(['+', '#']).unwrap_or(pattern.len()));
    // `a/#` also matches `a`
    if wildcard == "#" {
        start.strip_suffix('/').unwrap_or(start)
    } else {
        start
    }
}

/// The character behind `/`: the least text behind everything below `a/` is `a0`.
const BEHIND_SLASH: char = '0';

/// The character behind `$`.
const BEHIND_DOLLAR: &str = "%";

/// Where to look on after `topic`; a place other than behind it becomes `key`. No topic between the two matches: texts that lie between
/// two with a common beginning share that beginning, and the beginning is chosen so that it settles the matter.
fn leap(pattern: &str, topic: &str, key: &mut String) -> Leap {
    key.clear();
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        key.push_str(BEHIND_DOLLAR);
        return Leap::To;
    }
    // byte at which the level begins
    let mut at = 0;
    let mut levels = topic.split('/');
    for wanted in pattern.split('/') {
        let level = match (wanted, levels.next()) {
            ("#", _) | (_, None) => {
                return Leap::Behind;
            },
            (_, Some(level)) => level,
        };
        if wanted != "+" && wanted != level {
            return leap_to_level(topic, at, wanted, key);
        }
        at += level.len() + 1;
    }
    if at > topic.len() {
        return Leap::Behind;
    }
    leap_over(topic, at, key)
}

/// `topic` fails at the level that begins at byte `at`, where `wanted` should be.
fn leap_to_level(topic: &str, at: usize, wanted: &str, key: &mut String) -> Leap {
    key.push_str(topic.get(..at).unwrap_or_default());
    key.push_str(wanted);
    if key.as_str() > topic {
        return Leap::To;
    }
    // `x-y` lies between `x` and `x/z`
    key.push('/');
    if key.as_str() > topic {
        return Leap::To;
    }
    key.clear();
    leap_over(topic, at, key)
}

/// Nothing behind `topic` that shares its first `at` bytes matches; they end with a slash.
fn leap_over(topic: &str, at: usize, key: &mut String) -> Leap {
    let Some(end) = at.checked_sub(1) else {
        return Leap::End;
    };
    key.push_str(topic.get(..end).unwrap_or_default());
    key.push(BEHIND_SLASH);
    Leap::To
}

#[cfg(test)]
mod tests;
