//! Whether the disk is slow, judged by how long the writer's syncs take.
//!
//! One hiccup says nothing: every disk has them, and a process that was stopped for a while looks the same. Slow is what
//! goes on, and well is what has been well for a while, so that nobody moves house for a moment's sake.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Pace;
use crate::metrics::log as names;

/// A sync of a few kilobytes that takes so long is slow: any disk that is fit for a log needs a tenth of it.
const SLOW: Duration = Duration::from_millis(100);
/// Bytes a second that a disk may take its time for: a large flush is not a slow one.
const BYTES_A_SECOND: usize = 8 << 20;
/// What counts is what happened since then.
const WINDOW: Duration = Duration::from_secs(5);
/// Syncs have to have been slow for so long …
const SLOW_FOR: Duration = Duration::from_secs(2);
/// … and so many of them …
const SLOW_SYNCS: usize = 3;
/// … or one has to be under way for so long, at two looks that are so far apart.
const UNDER_WAY: Duration = Duration::from_millis(1500);
const LOOKS_APART: Duration = Duration::from_millis(200);
/// Of the time spent in syncs, the part of those that were slow, against the others.
const SLOW_SHARE: u32 = 4;
/// The disk is well again when nothing was slow for so long.
const WELL_AFTER: Duration = Duration::from_secs(10);
/// While the disk is slow, a writer without work syncs so often, to learn whether it still is.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Good syncs within so long are remembered as one.
const TOGETHER: Duration = Duration::from_millis(100);

/// Watches the syncs.
#[derive(Default)]
pub(super) struct Pulse(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    under_way: Option<UnderWay>,
    recent: VecDeque<Past>,
    last_slow: Option<Instant>,
    is_slow: bool,
    /// How long a sync took when the disk was last found slow: some good ones do not make it well.
    when_slow: Duration,
}

struct UnderWay {
    begun: Instant,
    limit: Duration,
    /// When somebody first saw that it takes too long.
    suspected: Option<Instant>,
}

/// One slow sync, or some good ones.
struct Past {
    begun: Instant,
    ended: Instant,
    took: Duration,
    syncs: u32,
    slow: bool,
}

impl Pulse {
    /// A flush of so many bytes begins.
    pub(super) fn begin(&self, bytes: usize, now: Instant) {
        let extra = Duration::from_millis((bytes.saturating_mul(1000) / BYTES_A_SECOND) as u64);
        self.0.lock().under_way = Some(UnderWay {
            begun: now,
            limit: SLOW + extra,
            suspected: None,
        });
    }

    /// It has ended.
    pub(super) fn end(&self, now: Instant) {
        let mut inner = self.0.lock();
        if let Some(done) = inner.under_way.take() {
            inner.note(&done, now);
        }
        inner.judge(now);
    }

    /// How the disk is.
    pub(super) fn look(&self, now: Instant) -> Pace {
        let mut inner = self.0.lock();
        inner.judge(now);
        Pace {
            usual: inner.told(now),
            is_slow: inner.is_slow,
        }
    }
}

impl Inner {
    fn note(&mut self, done: &UnderWay, now: Instant) {
        let took = now.saturating_duration_since(done.begun);
        let slow = took >= done.limit;
        if let Some(last) = self.recent.back_mut()
            && !slow
            && !last.slow
            && now.saturating_duration_since(last.begun) < TOGETHER
        {
            last.ended = now;
            last.took += took;
            last.syncs += 1;
            return;
        }
        self.recent.push_back(Past {
            begun: done.begun,
            ended: now,
            took,
            syncs: 1,
            slow,
        });
        if slow {
            self.last_slow = Some(now);
        }
    }

    fn judge(&mut self, now: Instant) {
        while let Some(first) = self.recent.front()
            && now.saturating_duration_since(first.ended) > WINDOW
        {
            self.recent.pop_front();
        }
        let under_way = self.late_under_way(now);
        if under_way.is_some() {
            self.last_slow = Some(now);
        }
        let goes_on = self.goes_on(under_way, now);
        if goes_on {
            self.when_slow = self.average(true, now);
        }
        let was_slow = self.is_slow;
        self.is_slow = if was_slow {
            let since = self.last_slow.map(|at| now.saturating_duration_since(at));
            since.is_some_and(|since| since < WELL_AFTER)
        } else {
            goes_on
        };
        if self.is_slow != was_slow {
            names::disk_slow(self.is_slow, self.told(now));
        }
    }

    /// For how long a sync that is late has been under way, and whether it was late at an earlier look already.
    fn late_under_way(&mut self, now: Instant) -> Option<(Duration, bool)> {
        let sync = self.under_way.as_mut()?;
        let age = now.saturating_duration_since(sync.begun);
        if age < sync.limit {
            return None;
        }
        let since = *sync.suspected.get_or_insert(now);
        let seen_before = now.saturating_duration_since(since) >= LOOKS_APART;
        Some((age, seen_before))
    }

    fn goes_on(&self, under_way: Option<(Duration, bool)>, now: Instant) -> bool {
        let slow = || self.recent.iter().filter(|past| past.slow);
        let slow_time: Duration = slow().map(|past| past.took).sum();
        let good = self.recent.iter().filter(|past| !past.slow);
        let good_time: Duration = good.map(|past| past.took).sum();
        let current = under_way.map_or(Duration::ZERO, |(age, _)| age);
        let stuck = under_way.is_some_and(|(age, seen)| seen && age >= UNDER_WAY);
        let first = slow().map(|past| past.begun).min();
        let for_long = first.is_some_and(|at| now.saturating_duration_since(at) >= SLOW_FOR);
        let often = slow().count() + usize::from(under_way.is_some()) >= SLOW_SYNCS;
        let mostly = slow_time + current >= good_time.saturating_mul(SLOW_SHARE);
        mostly && (stuck || (often && for_long))
    }

    fn told(&self, now: Instant) -> Duration {
        if self.is_slow {
            self.when_slow
        } else {
            self.average(false, now)
        }
    }

    /// How long a sync takes, on average; of all, or of those that are slow.
    fn average(&self, only_slow: bool, now: Instant) -> Duration {
        let age = |sync: &UnderWay| now.saturating_duration_since(sync.begun);
        let late = self
            .under_way
            .as_ref()
            .filter(|sync| age(sync) >= sync.limit);
        let counted = || self.recent.iter().filter(|past| past.slow || !only_slow);
        let syncs: u32 = counted().map(|past| past.syncs).sum();
        let took: Duration = counted().map(|past| past.took).sum();
        let total = took + late.map(age).unwrap_or_default();
        total
            .checked_div(syncs + u32::from(late.is_some()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        pulse: Pulse,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self {
                pulse: Pulse::default(),
                now: Instant::now(),
            }
        }

        fn pass(&mut self, millis: u64) {
            self.now += Duration::from_millis(millis);
        }

        fn sync(&mut self, bytes: usize, millis: u64) {
            self.pulse.begin(bytes, self.now);
            self.pass(millis);
            self.pulse.end(self.now);
        }

        fn is_slow(&self) -> bool {
            self.pulse.look(self.now).is_slow
        }
    }

    #[test]
    fn f17_syncs_that_go_on_being_slow_are_noticed_within_seconds() {
        for millis in [100, 250, 1000] {
            let mut world = World::new();
            let begun = world.now;
            while !world.is_slow() {
                world.sync(100, millis);
                assert!(world.now - begun < Duration::from_secs(4), "{millis} ms");
            }
            let usual = world.pulse.look(world.now).usual;
            assert_eq!(usual, Duration::from_millis(millis));
        }
    }

    #[test]
    fn f17_a_sync_that_does_not_end_is_noticed_while_it_is_under_way() {
        let mut world = World::new();
        world.pulse.begin(100, world.now);
        for _ in 0..6 {
            world.pass(200);
            assert!(!world.is_slow());
        }
        world.pass(400);
        assert!(world.is_slow());
    }

    #[test]
    fn f17_a_hiccup_a_pause_and_a_large_flush_are_not_a_slow_disk() {
        let mut world = World::new();
        for _ in 0..20 {
            world.sync(100, 4);
            world.pass(20);
        }
        world.sync(100, 3000);
        assert!(!world.is_slow(), "one hiccup");
        // stopped in the middle of a sync: it is over when the process goes on
        world.pulse.begin(100, world.now);
        world.pass(4000);
        assert!(!world.is_slow(), "a pause");
        world.pulse.end(world.now);
        world.pass(6000);
        for _ in 0..20 {
            world.sync(8 << 20, 400);
        }
        assert!(!world.is_slow(), "large flushes");
    }

    #[test]
    fn f17_slow_syncs_between_many_good_ones_are_not_a_slow_disk() {
        let mut world = World::new();
        for _ in 0..10 {
            for _ in 0..40 {
                world.sync(100, 5);
            }
            world.sync(100, 150);
        }
        assert!(!world.is_slow());
    }

    #[test]
    fn f17_a_disk_is_well_when_it_has_been_well_for_a_while() {
        let mut world = World::new();
        for _ in 0..5 {
            world.sync(100, 600);
        }
        assert!(world.is_slow());
        for _ in 0..9 {
            world.pass(1000);
            world.sync(100, 4);
            let pace = world.pulse.look(world.now);
            assert!(pace.is_slow, "too soon");
            assert_eq!(
                pace.usual.as_millis(),
                600,
                "so others do not take it for well"
            );
        }
        world.sync(100, 200);
        world.pass(9000);
        assert!(world.is_slow(), "it was slow again meanwhile");
        world.pass(1500);
        assert!(!world.is_slow());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut world = World::new();
        for _ in 0..100_000 {
            world.sync(100, 1);
        }
        assert!(world.pulse.0.lock().recent.len() < 100);
    }
}
