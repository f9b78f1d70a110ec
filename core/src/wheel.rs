//! Deadlines of many keys, looked at only when they may be due.
//!
//! The wheel is lazy. It remembers under which slot a key was filed and nothing else; the true deadline stays
//! with the key's owner, as a number that a heartbeat moves without touching the wheel. When the slot comes
//! round, the wheel asks for the number: due keys expire, others are filed again.
//!
//! So moving a deadline *later* is free. Moving it *earlier* takes a new entry under a new [`Generation`], and the
//! old entry is stale: the owner disowns it when asked, or it names a generation the owner no longer has.
//! [`Armed`] does this bookkeeping and never files an entry that an earlier one makes needless, which bounds the
//! entries of a key by the number of times its deadline moved towards the present.
//!
//! # Laws
//! * A key expires never before its deadline, and on the first [`Wheel::advance`] that is [`GRANULARITY`] or more
//!   past it. With an advance every half second that is within a second.
//! * An entry is a key and four bytes. It is looked at once for each wheel on its way (at most [`WHEELS`] times),
//!   and once for each time its deadline was moved.

use std::time::Duration;

use crate::time::Tick;

/// How precise the wheel is.
pub const GRANULARITY: Duration = Duration::from_millis(GRANULARITY_MS);

const GRANULARITY_MS: u64 = 500;

/// Slots of one wheel, as a power of two.
const SLOT_BITS: u32 = 6;
const SLOTS: u64 = 1 << SLOT_BITS;

/// Wheels, each as slow as a full turn of the one before: half seconds, 32 s, 34 min, 36 h. What lies further off
/// than the 97 days of a turn of the last waits there and is filed again.
pub const WHEELS: usize = 4;

/// Tells entries of one key apart; see [`Armed`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// Keys filed by deadline.
#[derive(Clone, Debug)]
pub struct Wheel<K> {
    /// Steps of [`GRANULARITY`] that are done. Every entry is filed for a later one.
    done: u64,
    wheels: [Turn<K>; WHEELS],
    len: usize,
}

type Turn<K> = [Vec<(K, Generation)>; 1 << SLOT_BITS];

/// What an owner keeps about the entry of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    generation: Generation,
    /// When the entry's slot comes round; `None` without an entry.
    at: Option<Tick>,
}

impl<K> Wheel<K> {
    /// An empty wheel that starts to turn at `start`.
    pub fn new(start: Tick) -> Self {
        Self {
            done: steps(start),
            wheels: std::array::from_fn(|_| std::array::from_fn(|_| Vec::new())),
            len: 0,
        }
    }

    /// Entries there are, stale ones included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Files a key. A deadline that has passed expires on the next advance that completes a step.
    pub fn insert(&mut self, key: K, generation: Generation, deadline: Tick) {
        // the step that is complete only once the deadline has been reached
        let step = steps(deadline).saturating_add(1).max(self.done + 1);
        let (wheel, slot) = self.place(step);
        if let Some(entries) = self
            .wheels
            .get_mut(wheel)
            .and_then(|turn| turn.get_mut(slot))
        {
            entries.push((key, generation));
            self.len += 1;
        }
    }

    /// Turns the wheel to `now`. For each entry whose slot comes round, `deadline` gives the true deadline of the
    /// key, or `None` when the entry is stale; keys that are due go to `expired`.
    pub fn advance(
        &mut self,
        now: Tick,
        mut deadline: impl FnMut(&K, Generation) -> Option<Tick>,
        mut expired: impl FnMut(K, Generation),
    ) {
        let target = steps(now);
        if target.saturating_sub(self.done) > SLOTS {
            self.leap(now, target, &mut deadline, &mut expired);
            return;
        }
        while self.done < target {
            self.done += 1;
            for wheel in (0..WHEELS).rev() {
                let Some(slot) = due_slot(wheel, self.done) else {
                    continue;
                };
                let entries = self.take(wheel, slot);
                self.sort_out(entries, now, &mut deadline, &mut expired);
            }
        }
    }

    /// After a long pause, such as a suspended machine: looks at every entry once instead of at every step.
    fn leap(
        &mut self,
        now: Tick,
        target: u64,
        deadline: &mut impl FnMut(&K, Generation) -> Option<Tick>,
        expired: &mut impl FnMut(K, Generation),
    ) {
        self.done = target;
        let turns = self.wheels.iter_mut();
        let all: Vec<_> = turns
            .flatten()
            .map(std::mem::take)
            .filter(|one| !one.is_empty())
            .collect();
        self.len = 0;
        for entries in all {
            self.len += entries.len();
            self.sort_out(entries, now, deadline, expired);
        }
    }

    fn take(&mut self, wheel: usize, slot: usize) -> Vec<(K, Generation)> {
        let slot = self
            .wheels
            .get_mut(wheel)
            .and_then(|turn| turn.get_mut(slot));
        slot.map(std::mem::take).unwrap_or_default()
    }

    fn sort_out(
        &mut self,
        entries: Vec<(K, Generation)>,
        now: Tick,
        deadline: &mut impl FnMut(&K, Generation) -> Option<Tick>,
        expired: &mut impl FnMut(K, Generation),
    ) {
        self.len = self.len.saturating_sub(entries.len());
        for (key, generation) in entries {
            match deadline(&key, generation) {
                None => {},
                Some(at) if at <= now => expired(key, generation),
                Some(at) => self.insert(key, generation, at),
            }
        }
    }

    /// Wheel and slot of a step that is not done: the fastest wheel whose turn reaches that far.
    fn place(&self, step: u64) -> (usize, usize) {
        for wheel in 0..WHEELS {
            let (mine, theirs) = (turned(wheel, self.done), turned(wheel, step));
            if theirs - mine < SLOTS {
                return (wheel, slot(theirs));
            }
        }
        // beyond the last turn: its furthest slot
        (WHEELS - 1, slot(turned(WHEELS - 1, self.done) + SLOTS - 1))
    }
}

impl Armed {
    /// Sees to it that the key is looked at by its deadline: files an entry unless an earlier one does the job.
    pub fn arm<K>(&mut self, wheel: &mut Wheel<K>, key: K, deadline: Tick) {
        if self.at.is_some_and(|at| at <= deadline) {
            return;
        }
        self.generation = Generation(self.generation.0.wrapping_add(1));
        self.at = Some(deadline);
        wheel.insert(key, self.generation, deadline);
    }

    /// The answer to the wheel's question: `deadline` is the key's true one, `None` when it has none any more.
    pub fn answer(
        &mut self,
        generation: Generation,
        deadline: Option<Tick>,
        now: Tick,
    ) -> Option<Tick> {
        if generation != self.generation {
            return None;
        }
        // the entry is filed again only if it is not due
        self.at = deadline.filter(|deadline| *deadline > now);
        deadline
    }
}

const fn steps(tick: Tick) -> u64 {
    tick.millis() / GRANULARITY_MS
}

/// The turn of a wheel that a step belongs to.
fn turned(wheel: usize, step: u64) -> u64 {
    u32::try_from(wheel)
        .ok()
        .and_then(|wheel| step.checked_shr(wheel * SLOT_BITS))
        .unwrap_or_default()
}

fn slot(turn: u64) -> usize {
    usize::try_from(turn % SLOTS).unwrap_or_default()
}

/// The slot of a wheel that comes round at a step, if one does.
fn due_slot(wheel: usize, step: u64) -> Option<usize> {
    let turn = turned(wheel, step);
    (turned(wheel, step.saturating_sub(1)) != turn).then(|| slot(turn))
}

#[cfg(test)]
mod tests;
