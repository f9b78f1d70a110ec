//! Names of this room's metrics. No label, or one of a closed set; never an id.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes every metric of this room; called once by the node.
pub fn describe() {
    log::describe();
    state::describe();
}

/// Metrics of the log.
pub mod log {
    use std::time::Duration;

    use super::{Unit, describe_counter, describe_gauge, describe_histogram};

    /// Flushes: one write and one sync for all groups.
    pub const FLUSHES: &str = "umbel_log_flushes_total";
    /// Entries written.
    pub const ENTRIES: &str = "umbel_log_entries_total";
    /// Bytes written, before compression by the file system.
    pub const WRITTEN: &str = "umbel_log_written_bytes_total";
    /// Time of a flush, sync included.
    pub const FLUSH: &str = "umbel_log_flush_seconds";
    /// Size on disk.
    pub const SIZE: &str = "umbel_log_size_bytes";
    /// Whether syncs have been slow for a while.
    pub const DISK_SLOW: &str = "umbel_log_disk_slow";

    pub(super) fn describe() {
        describe_counter!(FLUSHES, "flushes of the log, each one write and one sync");
        describe_counter!(ENTRIES, "entries written to the log");
        describe_counter!(WRITTEN, Unit::Bytes, "bytes written to the log");
        describe_histogram!(
            FLUSH,
            Unit::Seconds,
            "time of a flush of the log, sync included"
        );
        describe_gauge!(SIZE, Unit::Bytes, "size of the log on disk");
        describe_gauge!(
            DISK_SLOW,
            "1 while syncs of the log are slow: this node gives its shards away"
        );
        // Somebody who watches it wants to see that it is 0.
        metrics::gauge!(DISK_SLOW).set(0.0);
    }

    pub(crate) fn flushed(took: Duration, entries: u64, bytes: u64) {
        metrics::counter!(FLUSHES).increment(1);
        metrics::counter!(ENTRIES).increment(entries);
        metrics::counter!(WRITTEN).increment(bytes);
        metrics::histogram!(FLUSH).record(took);
    }

    pub(crate) fn disk_slow(is_slow: bool, usual: Duration) {
        metrics::gauge!(DISK_SLOW).set(f64::from(u8::from(is_slow)));
        let sync_ms = u64::try_from(usual.as_millis()).unwrap_or(u64::MAX);
        if is_slow {
            tracing::error!(
                sync_ms,
                "disk is slow: others should own this node's shards"
            );
        } else {
            tracing::info!(sync_ms, "disk is well again");
        }
    }

    pub(crate) fn size(bytes: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; 2^53 bytes are exact"
        )]
        metrics::gauge!(SIZE).set(bytes as f64);
    }
}

/// Metrics of the state.
pub mod state {
    use super::{Unit, describe_counter, describe_gauge};

    /// Rows written by applying.
    pub const WRITES: &str = "umbel_state_writes_total";
    /// Rows read and checked by the scrub.
    pub const SCRUBBED: &str = "umbel_state_scrubbed_rows_total";
    /// Shards found damaged.
    pub const DAMAGED: &str = "umbel_state_damaged_shards";
    /// Size on disk.
    pub const SIZE: &str = "umbel_state_size_bytes";

    pub(super) fn describe() {
        describe_counter!(WRITES, "row changes applied to the state");
        describe_counter!(SCRUBBED, "rows read and checked by the background scrub");
        describe_gauge!(
            DAMAGED,
            "shards that serve nothing because they are damaged"
        );
        describe_gauge!(SIZE, Unit::Bytes, "size of the state on disk");
    }

    pub(crate) fn applied(rows: usize) {
        metrics::counter!(WRITES).increment(rows as u64);
    }

    pub(crate) fn scrubbed(rows: usize) {
        metrics::counter!(SCRUBBED).increment(rows as u64);
    }

    pub(crate) fn damaged(shards: usize) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; shards are few"
        )]
        metrics::gauge!(DAMAGED).set(shards as f64);
    }

    pub(crate) fn size(bytes: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a float; 2^53 bytes are exact"
        )]
        metrics::gauge!(SIZE).set(bytes as f64);
    }
}
