//! Restart policy as data: what failed and how often → what to do. No actor, no clock.

use std::{collections::VecDeque, time::Duration};

use umbel_core::time::Tick;

/// How patient the fleet is with a device actor that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Rest after the first failure; doubles with each further one inside the window.
    pub rest_min: Duration,
    /// Longest rest.
    pub rest_max: Duration,
    /// Failures older than this are forgotten.
    pub window: Duration,
    /// This many failures inside the window quarantine the device.
    pub strikes_max: usize,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            rest_min: Duration::from_millis(100),
            rest_max: Duration::from_secs(10),
            window: Duration::from_mins(1),
            strikes_max: 5,
        }
    }
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Wake the device again after this rest. Until then it answers `Restarting`.
    RestartAfter(Duration),
    /// Leave it alone until an operator releases it.
    Quarantine,
}

/// The failures of one device that still count. Bounded by the policy's `strikes_max`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strikes(VecDeque<Tick>);

impl Strikes {
    /// Counts a failure and decides. Law: the same failures at the same times give the same directives.
    pub fn strike(&mut self, policy: &RestartPolicy, now: Tick) -> Directive {
        self.forget(policy, now);
        self.0.push_back(now);
        if self.0.len() >= policy.strikes_max.max(1) {
            return Directive::Quarantine;
        }
        let doublings = u32::try_from(self.0.len() - 1).unwrap_or(u32::MAX).min(20);
        let rest = policy
            .rest_min
            .saturating_mul(1 << doublings)
            .min(policy.rest_max);
        Directive::RestartAfter(rest)
    }

    /// Whether no failure counts any more, so that the device needs no memory.
    pub fn is_forgotten(&mut self, policy: &RestartPolicy, now: Tick) -> bool {
        self.forget(policy, now);
        self.0.is_empty()
    }

    /// How many failures count.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn forget(&mut self, policy: &RestartPolicy, now: Tick) {
        while self
            .0
            .front()
            .is_some_and(|first| now - *first > policy.window)
        {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_millis(seconds * 1000)
    }

    #[test]
    fn rest_doubles_and_the_fifth_failure_within_a_minute_quarantines() {
        let policy = RestartPolicy::default();
        let mut strikes = Strikes::default();
        let rests: Vec<_> = (0..4)
            .map(|second| strikes.strike(&policy, at(second)))
            .collect();
        let expected =
            [100, 200, 400, 800].map(|ms| Directive::RestartAfter(Duration::from_millis(ms)));
        assert_eq!(rests, expected);
        assert_eq!(strikes.strike(&policy, at(60)), Directive::Quarantine);
    }

    #[test]
    fn failures_that_are_rare_never_quarantine() {
        let policy = RestartPolicy::default();
        let mut strikes = Strikes::default();
        for hour in 0..100 {
            let directive = strikes.strike(&policy, at(hour * 3600));
            assert_eq!(directive, Directive::RestartAfter(policy.rest_min));
            assert_eq!(strikes.count(), 1);
        }
        assert!(strikes.is_forgotten(&policy, at(1_000_000)));
    }

    #[test]
    fn rest_is_bounded() {
        let policy = RestartPolicy {
            strikes_max: 100,
            ..RestartPolicy::default()
        };
        let mut strikes = Strikes::default();
        let last = (0..50).map(|_| strikes.strike(&policy, at(1))).last();
        assert_eq!(last, Some(Directive::RestartAfter(policy.rest_max)));
    }
}
