//! The clock of leases: it goes on while the process is stopped and while the machine sleeps.
//!
//! `Instant` is `CLOCK_MONOTONIC` on Linux, which stands still in a suspended machine: an owner that was put to sleep
//! would wake up and believe in a lease that its followers have long forgotten.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment since the machine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Now.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// A moment of a test's own.
    #[cfg(test)]
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Later by this much.
    #[must_use]
    pub(crate) fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier`; zero if before.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
