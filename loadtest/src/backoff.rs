//! The pause before a client that lost its connection comes back: doubled up to the largest, each time a random part of
//! it less, so that a fleet which fell together does not come back together.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// How long to pause next.
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// For a client that has not failed yet.
    pub(crate) const fn new() -> Self {
        Self(FIRST)
    }

    /// The pause after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::rng().random_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST);
        pause
    }

    /// After a success pauses are short again.
    pub(crate) const fn succeeded(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let mut backoff = Backoff::new();
        let first = backoff.after_failure();
        assert!(first >= FIRST / 2 && first < FIRST, "{first:?}");
        let second = backoff.after_failure();
        assert!(second >= FIRST && second < FIRST * 2, "{second:?}");
        for _ in 0..20 {
            assert!(backoff.after_failure() < LONGEST);
        }
        assert!(backoff.after_failure() >= LONGEST / 2);
        backoff.succeeded();
        assert!(backoff.after_failure() < FIRST);
    }
}
