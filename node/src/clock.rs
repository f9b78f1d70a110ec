//! The only reader of the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use umbel_actors::ports::Clock;
use umbel_core::time::{Tick, Timestamp};

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Ticks count from here.
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn wall(&self) -> Timestamp {
        // A clock before 1970 is broken; 0 keeps the node running, and documents show it.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}
