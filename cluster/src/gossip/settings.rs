//! How membership is watched, and why so.

use std::{
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use super::wire::MESSAGE_BYTES_MAX;

/// How membership is watched.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// One member is probed so often.
    pub probe: Duration,
    /// A direct answer takes no longer; then others are asked to probe it, too.
    pub probe_answer: Duration,
    /// A member that answers nobody for so long is down.
    pub suspicion: Duration,
    /// Members taken for down are asked so often whether they are back.
    pub announce_to_down: Duration,
    /// For so long after somebody (re)appeared, it is not believed when it calls others dead: it was the one cut off.
    pub settle: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            probe: Duration::from_millis(500),
            probe_answer: Duration::from_millis(200),
            suspicion: Duration::from_secs(2),
            announce_to_down: Duration::from_secs(2),
            settle: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// The same, as foca wants it.
    pub(super) fn of_foca(self) -> foca::Config {
        let count = |n| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        let every = |frequency, members| {
            Some(foca::PeriodicParams {
                frequency,
                num_members: count(members),
            })
        };
        foca::Config {
            probe_period: self.probe,
            probe_rtt: self.probe_answer,
            num_indirect_probes: count(3),
            max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: self.suspicion,
            // A member is known by its id, so the list is bounded by the nodes there ever were; a day later they are removed.
            remove_down_after: Some(Duration::from_hours(24)),
            max_packet_size: count(MESSAGE_BYTES_MAX - 32),
            notify_down_members: true,
            periodic_announce: every(Duration::from_secs(10), 1),
            periodic_announce_to_down_members: every(self.announce_to_down, 2),
            periodic_gossip: every(Duration::from_millis(200), 3),
        }
    }
}
