//! What a run found, for people and for programs.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use serde::Serialize;

use crate::sample::{Samples, Summary};

/// The result of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Devices asked for.
    pub(crate) devices: usize,
    /// Devices connected at the end.
    pub(crate) connected: u64,
    /// Length of the steady phase.
    pub(crate) seconds: f64,
    /// Latency of connecting.
    pub(crate) connect: Summary,
    /// Latency from update to `accepted`.
    pub(crate) update: Summary,
    /// Updates accepted each second of the steady phase.
    pub(crate) updates_per_second: f64,
    /// Updates rejected.
    pub(crate) updates_rejected: u64,
    /// Latency of heartbeats.
    pub(crate) ping: Summary,
    /// Failures by text.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Report {
    /// Sums up.
    pub(crate) fn new(
        devices: usize,
        samples: &Samples,
        updates_before: u64,
        steady: Duration,
    ) -> Self {
        let update = samples.updates.summary();
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let updates_per_second =
            update.count.saturating_sub(updates_before) as f64 / steady.as_secs_f64();
        Self {
            devices,
            connected: samples.open_now(),
            seconds: steady.as_secs_f64(),
            connect: samples.connects.summary(),
            update,
            updates_per_second,
            updates_rejected: samples.rejected.load(Ordering::Relaxed),
            ping: samples.pings.summary(),
            failures: samples.failures(),
        }
    }

    /// The table for people.
    pub(crate) fn text(&self) -> String {
        let row = |name: &str, s: &Summary| {
            format!(
                "{name:<8} {:>10} {:>10.2} {:>10.2} {:>10.2}\n",
                s.count, s.p50_ms, s.p99_ms, s.max_ms
            )
        };
        let mut text = format!(
            "{} of {} devices connected, {:.0} s steady, {:.1} updates/s, {} rejected\n\n{:<8} {:>10} {:>10} {:>10} {:>10}\n",
            self.connected,
            self.devices,
            self.seconds,
            self.updates_per_second,
            self.updates_rejected,
            "",
            "count",
            "p50 ms",
            "p99 ms",
            "max ms",
        );
        text += &row("connect", &self.connect);
        text += &row("update", &self.update);
        text += &row("ping", &self.ping);
        let failures = self
            .failures
            .iter()
            .map(|(text, count)| format!("{count} × {text}\n"));
        text.extend(failures);
        text
    }
}
