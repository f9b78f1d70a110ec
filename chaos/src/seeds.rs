//! One stream of chance for each concern, all from one number that is printed first.

use rand::{SeedableRng, rngs::StdRng};

/// What chance is used for. Streams are separate, so that a change of the workload does not change the faults.
#[derive(Clone, Copy)]
pub(crate) enum Concern {
    /// When and how the node is broken.
    Faults,
    /// What HTTP worker `n` does.
    Caller(u16),
    /// What worker `n` does.
    Worker(u16),
    /// When queue reader `n` comes and goes.
    Queue(u16),
    /// Where the publisher of queue `n` goes.
    Publisher(u16),
}

/// The stream of one concern.
pub(crate) fn stream(seed: u64, concern: Concern) -> StdRng {
    let lane = match concern {
        Concern::Faults => 0,
        Concern::Worker(n) => 1 << 16 | u64::from(n),
        Concern::Queue(n) => 2 << 16 | u64::from(n),
        Concern::Caller(n) => 4 << 16 | u64::from(n),
        Concern::Publisher(n) => 3 << 16 | u64::from(n),
    };
    StdRng::seed_from_u64(seed ^ lane.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
