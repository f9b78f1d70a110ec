//! How long shards did not serve: for each fault and shard it touched, from the fault to the first success after it.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use umbel_core::ids::ShardId;

use super::schedule::Kind;
use crate::history::{Events, Outcome};

/// One fault as it happened.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Happened {
    /// What, in words.
    pub(super) what: String,
    #[serde(skip)]
    pub(super) kind: Kind,
    /// When.
    pub(super) at: Duration,
    /// When it was undone.
    pub(super) until: Duration,
    /// How long the cluster then took to be whole.
    pub(super) healed: Duration,
    /// Shards whose owner it hit.
    pub(super) shards: Vec<u16>,
    /// Those of them that had another owner or term afterwards.
    pub(super) changed: usize,
}

/// What is told of one kind of fault.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// Shards measured.
    pub(super) shards: usize,
    /// Half of them served again by then, in milliseconds.
    pub(super) p50: u128,
    /// All but one in a hundred.
    pub(super) p99: u128,
    /// All.
    pub(super) max: u128,
}

/// By kind of fault.
pub(super) fn figures(
    events: &Events,
    happened: &[Happened],
    shards: u16,
) -> BTreeMap<String, Figures> {
    let successes = successes(events, shards);
    let mut gaps: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for fault in happened {
        for shard in &fault.shards {
            let first = successes
                .get(shard)
                .and_then(|all| all.iter().find(|(began, _)| *began > fault.at));
            if let Some((_, ended)) = first {
                let kind = format!("{:?}", fault.kind);
                gaps.entry(kind)
                    .or_default()
                    .push(ended.saturating_sub(fault.at));
            }
        }
    }
    gaps.into_iter()
        .map(|(kind, gaps)| (kind, summary(gaps)))
        .collect()
}

/// Successes during faults: without any, a run says nothing about them.
pub(super) fn during(events: &Events, happened: &[Happened]) -> usize {
    let operations = events.devices.values().flatten();
    operations
        .filter(|operation| {
            let ok = matches!(operation.outcome, Outcome::Ok { .. });
            let inside =
                |fault: &&Happened| fault.at <= operation.began && operation.ended <= fault.until;
            ok && happened.iter().any(|fault| inside(&fault))
        })
        .count()
}

/// Shards that moved through faults that may move none.
pub(super) fn moved(happened: &[Happened]) -> Vec<String> {
    happened
        .iter()
        .filter(|fault| fault.kind.moves_nothing() && fault.changed > 0)
        .map(|fault| format!("{} shards moved through {}", fault.changed, fault.what))
        .collect()
}

/// Shard → beginnings and ends of its successes, by end.
fn successes(events: &Events, shards: u16) -> BTreeMap<u16, Vec<(Duration, Duration)>> {
    let mut all: BTreeMap<u16, Vec<(Duration, Duration)>> = BTreeMap::new();
    for (device, operations) in &events.devices {
        let shard = ShardId::of(device, shards).0;
        let ok = operations
            .iter()
            .filter(|operation| matches!(operation.outcome, Outcome::Ok { .. }));
        all.entry(shard)
            .or_default()
            .extend(ok.map(|operation| (operation.began, operation.ended)));
    }
    for successes in all.values_mut() {
        successes.sort_by_key(|(_, ended)| *ended);
    }
    all
}

fn summary(mut gaps: Vec<Duration>) -> Figures {
    gaps.sort();
    let at = |permille: usize| {
        let index = (gaps.len() * permille / 1000).min(gaps.len().saturating_sub(1));
        gaps.get(index).map_or(0, Duration::as_millis)
    };
    Figures {
        shards: gaps.len(),
        p50: at(500),
        p99: at(990),
        max: at(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Operation};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn read(began: u64, ended: u64, outcome: Outcome) -> Operation {
        Operation {
            action: Action::Read,
            began: ms(began),
            ended: ms(ended),
            outcome,
            node: 0,
        }
    }

    #[test]
    fn a_gap_lasts_from_the_fault_to_the_first_success_that_began_after_it() {
        let ok = Outcome::Ok {
            version: 1,
            marker: None,
        };
        let mut events = Events::default();
        let operations = vec![
            read(0, 10, ok.clone()),
            // Asked before the fault and answered after it: says nothing about who serves now.
            read(90, 130, ok.clone()),
            read(140, 400, Outcome::Unknown),
            read(300, 310, Outcome::Refused { code: 503 }),
            read(600, 700, ok.clone()),
            read(650, 690, ok),
        ];
        events.devices.insert("d".to_owned(), operations);
        let happened = Happened {
            what: String::new(),
            kind: Kind::KillOwner,
            at: ms(100),
            until: ms(680),
            healed: ms(0),
            shards: vec![0],
            changed: 1,
        };
        let all = figures(&events, std::slice::from_ref(&happened), 1);
        let one = &all["KillOwner"];
        assert_eq!((one.shards, one.p50, one.max), (1, 590, 590));
        assert_eq!(during(&events, &[happened]), 0);
    }
}
