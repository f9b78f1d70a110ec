//! The devices of a shard whose actors failed lately, and those in quarantine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use umbel_core::{
    ids::ClientId,
    time::{Tick, Timestamp},
};

use crate::supervise::{Directive, RestartPolicy, Strikes};

/// Above this many devices with failures the forgotten ones are cleared away.
const CLEAR_ABOVE: usize = 256;

/// Most bytes of a failure's text that are kept.
const MESSAGE_BYTES_MAX: usize = 256;

/// A device that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Which.
    pub device: ClientId,
    /// Since when.
    pub since: Timestamp,
    /// How many failures led to it.
    pub failures: usize,
    /// The last failure, in the program's words.
    pub message: String,
}

#[derive(Debug, Default)]
struct Case {
    strikes: Strikes,
    message: String,
    quarantined_at: Option<Timestamp>,
}

/// Strikes and quarantines by device.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    cases: BTreeMap<ClientId, Case>,
    /// How many cases the last clearing left.
    left: usize,
}

impl Troubles {
    /// Counts a failure and decides.
    pub(crate) fn strike(
        &mut self,
        device: &ClientId,
        message: &str,
        policy: &RestartPolicy,
        (now, wall): (Tick, Timestamp),
    ) -> Directive {
        // Doubling keeps the cost of a strike constant when a whole fleet fails at once.
        if self.cases.len() > CLEAR_ABOVE.max(2 * self.left) {
            self.cases.retain(|_, case| {
                case.quarantined_at.is_some() || !case.strikes.is_forgotten(policy, now)
            });
            self.left = self.cases.len();
        }
        let case = self.cases.entry(device.clone()).or_default();
        let end = message.floor_char_boundary(MESSAGE_BYTES_MAX);
        message
            .get(..end)
            .unwrap_or_default()
            .clone_into(&mut case.message);
        let directive = case.strikes.strike(policy, now);
        if directive == Directive::Quarantine {
            case.quarantined_at = Some(wall);
        }
        directive
    }

    /// The last failure of a device.
    pub(crate) fn message(&self, device: &ClientId) -> Option<&str> {
        self.cases.get(device).map(|case| case.message.as_str())
    }

    /// Lets a device out of quarantine with a clean sheet; false when it was not in it.
    pub(crate) fn release(&mut self, device: &ClientId) -> bool {
        let is_in = self
            .cases
            .get(device)
            .is_some_and(|case| case.quarantined_at.is_some());
        if is_in {
            self.cases.remove(device);
        }
        is_in
    }

    pub(crate) fn quarantined(&self) -> impl Iterator<Item = Quarantined> {
        self.cases.iter().filter_map(|(device, case)| {
            case.quarantined_at.map(|since| Quarantined {
                device: device.clone(),
                since,
                failures: case.strikes.count(),
                message: case.message.clone(),
            })
        })
    }

    pub(crate) fn quarantined_count(&self) -> usize {
        self.cases
            .values()
            .filter(|case| case.quarantined_at.is_some())
            .count()
    }
}
