//! Latencies in histograms, failures in counters.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longest latency told apart; longer ones count as this.
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// Latencies of one kind of operation.
pub(crate) struct Latencies(Mutex<Histogram<u64>>);

/// What a histogram says, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many were measured.
    pub(crate) count: u64,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// Largest.
    pub(crate) max_ms: f64,
}

impl Latencies {
    /// Nothing recorded yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_MICROS, 3)
            .expect("the bounds are constants that hdrhistogram accepts");
        Self(Mutex::new(histogram))
    }

    /// Records one latency.
    pub(crate) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut histogram = self.0.lock().expect("no one panics while recording");
        histogram.saturating_record(micros.max(1));
    }

    /// What was recorded so far.
    pub(crate) fn summary(&self) -> Summary {
        let histogram = self.0.lock().expect("no one panics while recording");
        #[expect(clippy::cast_precision_loss, reason = "at most 6e7 microseconds")]
        let ms = |micros: u64| micros as f64 / 1000.0;
        Summary {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        }
    }
}

/// Everything a run measures.
pub(crate) struct Samples {
    /// TCP, TLS and CONNECT until CONNACK.
    pub(crate) connects: Latencies,
    /// Shadow update until `update/accepted` arrives.
    pub(crate) updates: Latencies,
    /// PINGREQ until PINGRESP.
    pub(crate) pings: Latencies,
    /// Connections that are open now.
    pub(crate) open: AtomicU64,
    /// Updates that were rejected.
    pub(crate) rejected: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

/// Different failure texts kept; the rest is counted together.
const FAILURES_MAX: usize = 20;

impl Samples {
    /// Nothing measured yet.
    pub(crate) fn new() -> Self {
        Self {
            connects: Latencies::new(),
            updates: Latencies::new(),
            pings: Latencies::new(),
            open: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failures: Mutex::new(BTreeMap::new()),
        }
    }

    /// Counts a failure by its text.
    pub(crate) fn fail(&self, error: &anyhow::Error) {
        let mut failures = self.failures.lock().expect("no one panics while counting");
        let text = error.root_cause().to_string();
        let known = failures.contains_key(&text) || failures.len() < FAILURES_MAX;
        *failures
            .entry(if known { text } else { "other".to_owned() })
            .or_default() += 1;
    }

    /// Failures by text.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        self.failures
            .lock()
            .expect("no one panics while counting")
            .clone()
    }

    /// Connections that are open now.
    pub(crate) fn open_now(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}
