//! What must hold of a history, and how much was compared.
//!
//! Every applied update returns its version, so the order of a device's updates is given and checking takes
//! O(n log n): no search. The rules are those of the linearizability of one register with versions:
//!
//! 1. acknowledged versions are unique;
//! 2. an update that began after another operation ended has a higher version, a read at least the same;
//! 3. a read of version v shows the marker of the update that was told v; if nobody was told v, the marker of an update
//!    whose answer was lost and that had begun by then, always the same one;
//! 4. a conflict had a moment in its window when the version was not the expected one;
//! 5. holes between acknowledged versions are filled by updates whose answers were lost, each at most once;
//! 6. session epochs of a client rise and never repeat;
//! 7. every acknowledged message of a queue was received, first receptions in the order of publishing.
//!
//! Which node said what makes no difference to any rule: the cluster is one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Serialize;

use crate::history::{Action, Events, Operation, Outcome};

/// Comparisons below which a run is void: it proves nothing.
pub(crate) const COMPARED_MIN: u64 = 1000;

/// What the history was found to be.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Verdict {
    /// Breaches, each with what was seen.
    pub(crate) violations: Vec<String>,
    /// Updates that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Updates whose answer was lost.
    pub(crate) unknown: u64,
    /// Reads that were answered.
    pub(crate) reads: u64,
    /// Conflicts told.
    pub(crate) conflicts: u64,
    /// Session epochs seen.
    pub(crate) epochs: u64,
    /// Queue messages acknowledged.
    pub(crate) queued: u64,
    /// Single comparisons made.
    pub(crate) compared: u64,
}

impl Verdict {
    fn check(&mut self, holds: bool, breach: impl FnOnce() -> String) {
        self.compared += 1;
        if !holds {
            self.violations.push(breach());
        }
    }

    /// Whether enough was compared for the verdict to mean anything.
    pub(crate) fn is_void(&self) -> bool {
        self.compared < COMPARED_MIN || self.acknowledged == 0
    }
}

/// Judges everything that was recorded.
pub(crate) fn judge(events: &Events) -> Verdict {
    let mut verdict = Verdict::default();
    for (device, operations) in &events.devices {
        judge_device(device, operations, &mut verdict);
    }
    for (client, epochs) in &events.epochs {
        judge_epochs(client, epochs, &mut verdict);
    }
    for (queue, acknowledged) in &events.acknowledged {
        let received = events.received.get(queue).map_or(&[][..], Vec::as_slice);
        judge_queue(queue, acknowledged, received, &mut verdict);
    }
    verdict
}

fn judge_device(device: &str, operations: &[Operation], verdict: &mut Verdict) {
    let told = versions_told(device, operations, verdict);
    let lost = markers_lost(operations);
    verdict.unknown += lost.len() as u64;
    real_time(device, operations, verdict);
    let found = markers_read(device, operations, &told, &lost, verdict);
    holes(device, &told, &found, lost.len(), verdict);
    conflicts(device, operations, verdict);
}

/// Rule 1. Version → marker of the update that was told it.
fn versions_told(
    device: &str,
    operations: &[Operation],
    verdict: &mut Verdict,
) -> BTreeMap<u64, u64> {
    let mut told = BTreeMap::new();
    for operation in operations {
        if let (Action::Update { marker, .. }, Outcome::Ok { version, .. }) =
            (&operation.action, &operation.outcome)
        {
            verdict.acknowledged += 1;
            let before = told.insert(*version, *marker);
            verdict.check(before.is_none(), || {
                format!("{device}: version {version} was told twice ({before:?}, {marker})")
            });
        }
    }
    told
}

/// Marker → when the update began, for updates whose answer was lost.
fn markers_lost(operations: &[Operation]) -> BTreeMap<u64, Duration> {
    operations
        .iter()
        .filter_map(|operation| match (&operation.action, &operation.outcome) {
            (Action::Update { marker, .. }, Outcome::Unknown) => Some((*marker, operation.began)),
            _ => None,
        })
        .collect()
}

/// Rule 2: sweeps over beginnings and keeps the highest version of what had ended by then.
fn real_time(device: &str, operations: &[Operation], verdict: &mut Verdict) {
    let versioned = |operation: &&Operation| matches!(operation.outcome, Outcome::Ok { .. });
    let mut by_begin: Vec<&Operation> = operations.iter().filter(versioned).collect();
    let mut by_end = by_begin.clone();
    by_begin.sort_by_key(|operation| operation.began);
    by_end.sort_by_key(|operation| operation.ended);
    let mut ended = by_end.into_iter().peekable();
    let mut floor = 0;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|other| other.ended < operation.began) {
            floor = floor.max(version_of(before));
        }
        let version = version_of(operation);
        let update = matches!(operation.action, Action::Update { .. });
        verdict.check(
            if update {
                version > floor
            } else {
                version >= floor
            },
            || format!("{device}: {operation:?} after version {floor} was told"),
        );
    }
    for operation in operations.iter().filter(|o| o.outcome == Outcome::Missing) {
        let told_before = operations
            .iter()
            .any(|o| versioned(&o) && o.ended < operation.began);
        verdict.check(!told_before, || {
            format!("{device}: the shadow is gone: {operation:?}")
        });
    }
}

fn version_of(operation: &Operation) -> u64 {
    match operation.outcome {
        Outcome::Ok { version, .. } => version,
        _ => 0,
    }
}

/// Rule 3. Version → marker for versions that nobody was told.
fn markers_read(
    device: &str,
    operations: &[Operation],
    told: &BTreeMap<u64, u64>,
    lost: &BTreeMap<u64, Duration>,
    verdict: &mut Verdict,
) -> BTreeMap<u64, u64> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for operation in operations
        .iter()
        .filter(|o| matches!(o.action, Action::Read))
    {
        let Outcome::Ok {
            version,
            marker: Some(marker),
        } = operation.outcome
        else {
            continue;
        };
        verdict.reads += 1;
        let fits = if let Some(known) = told.get(&version).or_else(|| found.get(&version)) {
            *known == marker
        } else {
            let began_before = lost
                .get(&marker)
                .is_some_and(|began| *began < operation.ended);
            let fresh = !found.values().any(|other| *other == marker);
            found.insert(version, marker);
            began_before && fresh
        };
        verdict.check(fits, || {
            format!("{device}: version {version} shows marker {marker}: {operation:?}")
        });
    }
    found
}

/// Rule 5.
fn holes(
    device: &str,
    told: &BTreeMap<u64, u64>,
    found: &BTreeMap<u64, u64>,
    lost: usize,
    verdict: &mut Verdict,
) {
    let highest = told
        .keys()
        .chain(found.keys())
        .max()
        .copied()
        .unwrap_or_default();
    let holes = highest - told.len() as u64;
    verdict.check(holes <= lost as u64, || {
        format!("{device}: {holes} versions up to {highest} are nobody's, {lost} answers were lost")
    });
}

/// Rule 4: a conflict is wrong if the version was certainly the expected one in all its window.
fn conflicts(device: &str, operations: &[Operation], verdict: &mut Verdict) {
    for operation in operations.iter().filter(|o| o.outcome == Outcome::Conflict) {
        let Action::Update {
            expected: Some(expected),
            ..
        } = operation.action
        else {
            verdict.check(false, || {
                format!("{device}: a conflict nobody risked: {operation:?}")
            });
            continue;
        };
        verdict.conflicts += 1;
        let reached = operations
            .iter()
            .any(|o| version_of(o) == expected && o.ended < operation.began);
        let left = operations.iter().any(|o| {
            let update = matches!(o.action, Action::Update { .. });
            let may_be_later = version_of(o) > expected || o.outcome == Outcome::Unknown;
            update && may_be_later && o.began < operation.ended
        });
        verdict.check(!reached || left, || {
            format!("{device}: a conflict although the version was {expected}: {operation:?}")
        });
    }
}

/// Rule 6.
fn judge_epochs(client: &str, epochs: &[u64], verdict: &mut Verdict) {
    verdict.epochs += epochs.len() as u64;
    for pair in epochs.windows(2) {
        if let [before, after] = pair {
            verdict.check(before < after, || {
                format!("{client}: session epoch {after} after {before}")
            });
        }
    }
}

/// Rule 7.
fn judge_queue(queue: &str, acknowledged: &[u64], received: &[u64], verdict: &mut Verdict) {
    verdict.queued += acknowledged.len() as u64;
    let mut first: Vec<u64> = Vec::new();
    let mut seen = BTreeSet::new();
    let told: BTreeSet<u64> = acknowledged.iter().copied().collect();
    for number in received {
        // What was never acknowledged was sent over a connection that broke; it may be overtaken by the next one's.
        if seen.insert(*number) && told.contains(number) {
            first.push(*number);
        }
    }
    for number in acknowledged {
        verdict.check(seen.contains(number), || {
            format!("{queue}: message {number} was acknowledged and never arrived")
        });
    }
    for pair in first.windows(2) {
        if let [before, after] = pair {
            verdict.check(before < after, || {
                format!("{queue}: message {after} arrived before {before}")
            });
        }
    }
}

#[cfg(test)]
mod tests;
