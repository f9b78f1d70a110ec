//! Which numbers of a sender were seen already.

/// How far a packet may be overtaken by later ones and still be taken. Far more than a network reorders, and 128 bytes.
const SPAN: u64 = 1024;
const WORDS: usize = 16;

/// The numbers one sender has used: everything up to `highest - SPAN`, and those marked above it.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Whether the number was never taken before, as far as can be known: what is too old to remember counts as seen.
    pub(super) fn is_fresh(&self, number: u64) -> bool {
        if number > self.highest {
            return true;
        }
        number != 0 && self.highest - number < SPAN && !self.marked(number)
    }

    /// Remembers a number.
    pub(super) fn take(&mut self, number: u64) {
        if number > self.highest {
            // The bits between are of numbers a whole span ago, or never used.
            let passed = (number - self.highest).min(SPAN);
            for gap in 0..passed {
                self.mark(number - gap, false);
            }
            self.highest = number;
        }
        if self.highest - number < SPAN {
            self.mark(number, true);
        }
    }

    fn marked(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen.get(word).is_some_and(|seen| seen & bit != 0)
    }

    fn mark(&mut self, number: u64, taken: bool) {
        let (word, bit) = place(number);
        if let Some(seen) = self.seen.get_mut(word) {
            *seen = if taken { *seen | bit } else { *seen & !bit };
        }
    }
}

fn place(number: u64) -> (usize, u64) {
    let slot = number % SPAN;
    (
        usize::try_from(slot / 64).unwrap_or(usize::MAX),
        1 << (slot % 64),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No number is taken twice, and one that is new and not a span behind is always taken.
        #[test]
        fn every_number_is_taken_once_and_late_ones_while_they_are_remembered(
            steps in prop::collection::vec((0_u64..40, any::<bool>(), 0_u64..3000), 1..400)
        ) {
            let mut window = Window::default();
            let mut taken = BTreeSet::new();
            let mut front = 0_u64;
            for (forward, late, back) in steps {
                let number = if late {
                    front.saturating_sub(back)
                } else {
                    front += forward * forward;
                    front
                };
                let remembered = number > 0 && front.saturating_sub(number) < SPAN;
                let highest = taken.last().copied().unwrap_or(0);
                let fresh = window.is_fresh(number);
                prop_assert!(!(fresh && taken.contains(&number)), "{number} is taken twice");
                if number > highest || (remembered && !taken.contains(&number)) {
                    prop_assert!(fresh, "{number} is refused after {highest}");
                }
                if fresh {
                    window.take(number);
                    taken.insert(number);
                }
            }
        }
    }

    #[test]
    fn a_jump_to_the_end_of_numbers_forgets_what_was_before() {
        let mut window = Window::default();
        window.take(5);
        window.take(u64::MAX);
        assert!(!window.is_fresh(u64::MAX));
        assert!(window.is_fresh(u64::MAX - 1));
        assert!(!window.is_fresh(6));
        assert!(!window.is_fresh(0));
    }
}
