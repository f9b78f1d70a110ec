//! How long to wait before trying again.

use std::time::Duration;

/// When to try again after the first, second, … failure: `first`, doubled each time, up to `max`, and then part of
/// that by chance, so that those who failed together do not come back together.
///
/// # Laws
/// * A delay is never more than `max`, and never less than `first` or `max` without jitter.
/// * The same attempt and draw give the same delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub first: Duration,
    /// Longest delay.
    pub max: Duration,
    /// How much of a delay chance decides.
    pub jitter: Jitter,
}

/// How much of a delay chance decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    /// Nothing.
    None,
    /// The upper half: never comes back at once.
    #[default]
    Half,
    /// All of it: spreads a crowd best.
    Full,
}

impl Backoff {
    /// The delay before the try after `attempt` earlier failures (0 for the first), by a random draw.
    pub fn delay(&self, attempt: u32, draw: u64) -> Duration {
        let factor = 1_u32.checked_shl(attempt).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(factor).min(self.max);
        match self.jitter {
            Jitter::None => whole,
            Jitter::Half => whole / 2 + part(whole / 2, draw),
            Jitter::Full => part(whole, draw),
        }
    }
}

/// The draw's share of a span: nothing for 0, all but a trifle for the greatest draw.
fn part(span: Duration, draw: u64) -> Duration {
    let nanos = (span.as_nanos() >> 32).saturating_mul(u128::from(draw >> 32))
        + (((span.as_nanos() & 0xffff_ffff) * u128::from(draw >> 32)) >> 32);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff(jitter: Jitter) -> Backoff {
        Backoff {
            first: Duration::from_millis(100),
            max: Duration::from_secs(10),
            jitter,
        }
    }

    #[test]
    fn delays_double_up_to_the_longest() {
        let delays: Vec<_> = (0..9)
            .map(|n| backoff(Jitter::None).delay(n, 7).as_millis())
            .collect();
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]
        );
        for attempt in [31, 32, 33, u32::MAX] {
            assert_eq!(
                backoff(Jitter::None).delay(attempt, 0),
                Duration::from_secs(10)
            );
        }
    }

    #[test]
    fn chance_reaches_both_ends_of_its_share() {
        assert_eq!(backoff(Jitter::Full).delay(1, 0), Duration::ZERO);
        assert_eq!(
            backoff(Jitter::Half).delay(1, 0),
            Duration::from_millis(100)
        );
        for jitter in [Jitter::Half, Jitter::Full] {
            let most = backoff(jitter).delay(1, u64::MAX);
            assert!(most > Duration::from_millis(199) && most <= Duration::from_millis(200));
        }
        assert_eq!(
            backoff(Jitter::Full).delay(1, u64::MAX / 2 + 1),
            Duration::from_millis(100)
        );
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_its_bounds(
            first in 0_u64..u64::MAX,
            max in 0_u64..u64::MAX,
            attempt in any::<u32>(),
            draw in any::<u64>(),
        ) {
            let (first, max) = (Duration::from_nanos(first), Duration::from_millis(max));
            for jitter in [Jitter::None, Jitter::Half, Jitter::Full] {
                let backoff = Backoff { first, max, jitter };
                prop_assert!(backoff.delay(attempt, draw) <= max);
                if jitter == Jitter::Half {
                    prop_assert!(backoff.delay(attempt, draw) >= first.min(max) / 2);
                }
            }
        }
    }
}
