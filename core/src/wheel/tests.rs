use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn tick(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

/// An owner of keys as a shard is one: the truth about each key, and the wheel beside it.
struct Owner {
    wheel: Wheel<u8>,
    keys: BTreeMap<u8, (Option<Tick>, Armed)>,
}

impl Owner {
    fn new(start: u64) -> Self {
        Self {
            wheel: Wheel::new(tick(start)),
            keys: BTreeMap::new(),
        }
    }

    fn set(&mut self, key: u8, deadline: Tick) {
        let (truth, armed) = self.keys.entry(key).or_default();
        *truth = Some(deadline);
        armed.arm(&mut self.wheel, key, deadline);
    }

    fn cancel(&mut self, key: u8) {
        if let Some((truth, _)) = self.keys.get_mut(&key) {
            *truth = None;
        }
    }

    fn advance(&mut self, now: Tick) -> Vec<u8> {
        let mut due = Vec::new();
        let keys = &mut self.keys;
        self.wheel.advance(
            now,
            |key, generation| {
                let (truth, armed) = keys.get_mut(key)?;
                armed.answer(generation, *truth, now)
            },
            |key, _| due.push(key),
        );
        for key in &due {
            self.cancel(*key);
        }
        due.sort_unstable();
        due
    }
}

#[test]
fn a_key_expires_at_its_deadline_within_a_second() {
    for after in [
        0,
        1,
        499,
        500,
        31_999,
        32_000,
        40_000,
        3_600_000,
        200_000_000,
        10_000_000_000,
    ] {
        let mut owner = Owner::new(12_345);
        let deadline = 12_345 + after;
        owner.set(1, tick(deadline));
        let mut now = 12_345;
        // half-second ticks near the deadline, strides that the wheel takes step by step before
        let expired_at = loop {
            let left = deadline.saturating_sub(now);
            now += if left > 40_000 {
                31_000.max(left / 50)
            } else {
                500
            };
            if !owner.advance(tick(now)).is_empty() {
                break now;
            }
        };
        let late = expired_at
            .checked_sub(deadline)
            .expect("never before the deadline");
        assert!(late <= 1_000, "{after}: {late} ms late");
        assert!(owner.wheel.is_empty());
    }
}

#[test]
fn a_refresh_touches_nothing_but_the_number() {
    let mut owner = Owner::new(0);
    for beat in 0..1_000 {
        owner.set(1, tick(beat * 1_000 + 90_000));
        assert_eq!(owner.wheel.len(), 1);
        assert!(owner.advance(tick(beat * 1_000)).is_empty());
    }
    assert_eq!(owner.advance(tick(999_000 + 90_500)), [1]);
}

#[test]
fn an_earlier_deadline_wins_and_the_stale_entry_is_harmless() {
    let mut owner = Owner::new(0);
    owner.set(1, tick(60_000));
    owner.set(1, tick(2_000));
    assert_eq!(owner.wheel.len(), 2);
    assert_eq!(owner.advance(tick(2_500)), [1]);
    owner.set(1, tick(90_000));
    assert!(owner.advance(tick(61_000)).is_empty());
    assert_eq!(owner.wheel.len(), 1);
    assert_eq!(owner.advance(tick(90_500)), [1]);
    assert!(owner.wheel.is_empty());
}

#[test]
fn connecting_again_and_again_does_not_pile_up_entries() {
    let mut owner = Owner::new(0);
    for second in 0..3_000 {
        owner.cancel(1);
        owner.advance(tick(second * 1_000));
        owner.set(1, tick(second * 1_000 + 3_600_000));
        assert!(owner.wheel.len() <= 1);
    }
}

#[test]
fn extreme_times_do_no_harm() {
    let mut owner = Owner::new(u64::MAX);
    owner.set(1, tick(0));
    owner.set(2, tick(u64::MAX));
    assert!(owner.advance(tick(u64::MAX)).is_empty());

    let mut owner = Owner::new(0);
    owner.set(1, tick(u64::MAX));
    owner.set(2, tick(7));
    assert_eq!(owner.advance(tick(u64::MAX - 1)), [2]);
    assert!(owner.advance(tick(0)).is_empty());
    assert_eq!(owner.wheel.len(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    /// Sets a key's deadline so many milliseconds from now.
    Set(u8, u64),
    Cancel(u8),
    Advance(u64),
}

fn span() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0_u64..3_000,
        3 => 0_u64..200_000,
        1 => 0_u64..10_000_000,
        1 => 0_u64..20_000_000_000,
    ]
}

fn steps_of_an_owner() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..8_u8, span()).prop_map(|(key, after)| Step::Set(key, after)),
        1 => (0..8_u8).prop_map(Step::Cancel),
        3 => span().prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn the_wheel_equals_looking_at_every_deadline(start in span(), steps in steps_of_an_owner()) {
        let mut owner = Owner::new(start);
        let mut model: BTreeMap<u8, u64> = BTreeMap::new();
        let mut now = start;
        for step in steps {
            match step {
                Step::Set(key, after) => {
                    owner.set(key, tick(now + after));
                    model.insert(key, now + after);
                },
                Step::Cancel(key) => {
                    owner.cancel(key);
                    model.remove(&key);
                },
                Step::Advance(span) => {
                    now += span;
                    let due = owner.advance(tick(now));
                    for key in &due {
                        let deadline = model.remove(key);
                        prop_assert!(deadline.is_some_and(|at| at <= now), "{key} is early");
                    }
                    // whoever is left is not due, or has been for less than one step
                    for (key, deadline) in &model {
                        prop_assert!(deadline + GRANULARITY_MS > now, "{key} is late");
                    }
                },
            }
            prop_assert!(owner.wheel.len() >= model.len());
        }
        // every entry goes in the end, stale ones too
        owner.advance(tick(now + 30_000_000_000));
        prop_assert!(owner.wheel.is_empty());
    }
}
