//! How many clients are there, by kind and presence; kept while they change, never counted by a walk.

use std::sync::atomic::{AtomicI64, Ordering};

use metrics::gauge;
use serde::{Deserialize, Serialize};
use umbel_core::device::Presence;

use crate::{metrics::CLIENTS, slot::Standing};

/// Numbers by presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByPresence {
    /// Listed, and never seen.
    pub never: u64,
    /// Connected.
    pub online: u64,
    /// Its gateway is lost or its heartbeats stopped, and its grace is not over.
    pub stale: u64,
    /// Gone.
    pub offline: u64,
}

impl ByPresence {
    pub(crate) fn count(&mut self, presence: Presence) {
        let number = match presence {
            Presence::Never => &mut self.never,
            Presence::Online => &mut self.online,
            Presence::Stale => &mut self.stale,
            Presence::Offline => &mut self.offline,
        };
        *number += 1;
    }
}

impl std::ops::AddAssign for ByPresence {
    fn add_assign(&mut self, other: Self) {
        self.never += other.never;
        self.online += other.online;
        self.stale += other.stale;
        self.offline += other.offline;
    }
}

const PRESENCES: [Presence; 4] = [
    Presence::Never,
    Presence::Online,
    Presence::Stale,
    Presence::Offline,
];

/// The running totals.
#[derive(Debug, Default)]
pub(crate) struct Census {
    devices: [AtomicI64; 4],
    apps: [AtomicI64; 4],
}

impl Census {
    /// A client moved from one standing to another; `None` is "not counted".
    pub(crate) fn moved(&self, from: Option<Standing>, to: Option<Standing>) {
        if from == to {
            return;
        }
        for (standing, step) in [(from, -1), (to, 1)] {
            if let Some(total) = standing.and_then(|standing| self.total(standing)) {
                total.fetch_add(step, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn devices(&self) -> ByPresence {
        read(&self.devices)
    }

    pub(crate) fn apps(&self) -> ByPresence {
        read(&self.apps)
    }

    /// Shows the totals as metrics.
    pub(crate) fn publish(&self) {
        for (kind, totals) in [("device", &self.devices), ("app", &self.apps)] {
            for (presence, total) in PRESENCES.into_iter().zip(totals) {
                let clients = u32::try_from(total.load(Ordering::Relaxed)).unwrap_or_default();
                gauge!(CLIENTS, "kind" => kind, "presence" => presence.as_str())
                    .set(f64::from(clients));
            }
        }
    }

    fn total(&self, (is_device, presence): Standing) -> Option<&AtomicI64> {
        let totals = if is_device { &self.devices } else { &self.apps };
        PRESENCES
            .iter()
            .position(|known| *known == presence)
            .and_then(|index| totals.get(index))
    }
}

fn read(totals: &[AtomicI64; 4]) -> ByPresence {
    let [never, online, stale, offline] = totals
        .each_ref()
        .map(|total| u64::try_from(total.load(Ordering::Relaxed)).unwrap_or(0));
    ByPresence {
        never,
        online,
        stale,
        offline,
    }
}
