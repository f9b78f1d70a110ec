//! What is broken, when: drawn from the seed before anything starts, printed, and so replayable.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use crate::seeds::{Concern, stream};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// SIGKILL the owner of a shard.
    KillOwner,
    /// SIGKILL a node that follows in a shard.
    KillFollower,
    /// SIGKILL all nodes but one: the majority.
    KillMajority,
    /// SIGSTOP the owner of a shard for a while.
    PauseOwner,
    /// SIGTERM a node and start it again.
    Restart,
    /// Cut the owner of a shard off from all others.
    Isolate,
    /// The owner of a shard does not hear one other node, or is not heard by it.
    OneWay,
    /// All nodes lose their power at once: what the disks were not told to keep is gone.
    PowerCut,
    /// Between all nodes up to 5 % of the packets are lost, delayed by up to 100 ms, some twice: nobody may fail over.
    MildNetwork,
    /// Up to 30 % lost, up to 500 ms late, out of order, some twice, or 1 Mbit/s: slow, never wrong.
    BadNetwork,
    /// The owner of a shard gets a tenth of one processor.
    Starve,
    /// The wall clock of one node or of all jumps, by an hour or by ten years, or to and fro.
    Clock,
    /// A node dies at a named point of its code.
    CrashPoint,
    /// Every sync of the owner of a shard takes from a tenth of a second to several.
    SlowDisk,
}

impl Kind {
    /// Whether it needs a network of our own.
    pub(super) const fn needs_network(self) -> bool {
        matches!(
            self,
            Self::Isolate | Self::OneWay | Self::MildNetwork | Self::BadNetwork
        )
    }

    /// Whether it must move no shard and begin no term.
    pub(super) const fn moves_nothing(self) -> bool {
        matches!(self, Self::MildNetwork | Self::Clock)
    }

    /// Whether a device that goes on sending must not be told to be offline.
    pub(super) const fn keeps_devices(self) -> bool {
        self.moves_nothing() || matches!(self, Self::Starve)
    }
}

/// One fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Load before it, with everything in place.
    pub(super) after: Duration,
    /// What.
    pub(super) kind: Kind,
    /// Whose owner is meant.
    pub(super) shard: u16,
    /// Which of several: a follower, a direction, the node that is restarted or spared.
    pub(super) draw: usize,
    /// How long it lasts.
    pub(super) lasts: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            after,
            kind,
            shard,
            draw,
            lasts,
        } = self;
        write!(
            f,
            "after {} ms: {kind:?} of shard {shard}, draw {draw}, for {} ms",
            after.as_millis(),
            lasts.as_millis()
        )
    }
}

/// All faults of a run.
pub(super) fn draw(
    seed: u64,
    cycles: u32,
    kinds: &[Kind],
    shards: u16,
    longest: Duration,
) -> Vec<Step> {
    let mut rng = stream(seed, Concern::Faults);
    (0..cycles)
        .map(|_| step(&mut rng, kinds, shards, longest))
        .collect()
}

fn step(rng: &mut StdRng, kinds: &[Kind], shards: u16, longest: Duration) -> Step {
    let kind = kinds.choose(rng).copied().unwrap_or(Kind::KillOwner);
    // From less than an election timeout to several.
    let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
    let lasts = rng.random_range(300..longest.max(301));
    Step {
        after: Duration::from_millis(rng.random_range(200..1200)),
        kind,
        shard: rng.random_range(0..shards),
        draw: rng.random_range(0..1000),
        lasts: Duration::from_millis(lasts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_schedule() {
        let kinds = [Kind::KillOwner, Kind::PauseOwner, Kind::OneWay];
        let text = |seed| -> Vec<String> {
            let steps = draw(seed, 50, &kinds, 8, Duration::from_secs(4));
            steps.iter().map(ToString::to_string).collect()
        };
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }
}
