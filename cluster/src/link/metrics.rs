//! What the link counts.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::{Service, limits::place};

/// Peers this node can speak to.
pub const CONNECTED: &str = "umbel_link_connected_peers";
/// Bytes between nodes, by `direction`: in, out; before encryption.
pub const BYTES: &str = "umbel_link_bytes_total";
/// Frames between nodes, by `direction`.
pub const FRAMES: &str = "umbel_link_frames_total";
/// Writes to sockets: frames over writes is how well they are coalesced.
pub const WRITES: &str = "umbel_link_writes_total";
/// Messages that wait to be sent.
pub const QUEUED: &str = "umbel_link_queued_messages";
/// Messages refused because too many wait or are under way, by `service`.
pub const BUSY: &str = "umbel_link_busy_total";
/// Links that came up.
pub const UPS: &str = "umbel_link_ups_total";
/// Links that broke, by `reason`: closed, reset, silent, protocol, cut.
pub const DOWNS: &str = "umbel_link_downs_total";
/// Connections refused or not made, by `reason`: limit, tls, rubbish, timeout, identity, cluster, version, removed,
/// `turned_away` (by the other side), regressed.
pub const REFUSED: &str = "umbel_link_refused_total";

/// Says what each metric means.
pub fn describe() {
    describe_gauge!(CONNECTED, "Peers this node can speak to");
    describe_counter!(BYTES, "Bytes between nodes before encryption, by direction");
    describe_counter!(FRAMES, "Frames between nodes, by direction");
    describe_counter!(WRITES, "Writes to connections between nodes");
    describe_gauge!(QUEUED, "Messages waiting to be sent to other nodes");
    describe_counter!(BUSY, "Messages to other nodes refused for load, by service");
    describe_counter!(UPS, "Links to other nodes that came up");
    describe_counter!(DOWNS, "Links to other nodes that broke, by reason");
    describe_counter!(
        REFUSED,
        "Connections between nodes that were refused, by reason"
    );
}

/// Why a connection did not come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many are half open.
    Limit,
    /// TLS failed: another authority, no certificate, or no TLS at all.
    Tls,
    /// TLS held, and what followed was not the link.
    Rubbish,
    /// It took too long.
    Timeout,
    /// It is not the node it should be.
    Identity,
    /// It belongs to another cluster.
    Cluster,
    /// No common version.
    Version,
    /// It was removed from the cluster.
    Removed,
    /// The other side refused us, and said why.
    Turned,
    /// Its disk, or ours, has gone back in time.
    Regressed,
}

impl Refusal {
    const ALL: [Self; 10] = [
        Self::Limit,
        Self::Tls,
        Self::Rubbish,
        Self::Timeout,
        Self::Identity,
        Self::Cluster,
        Self::Version,
        Self::Removed,
        Self::Turned,
        Self::Regressed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Tls => "tls",
            Self::Rubbish => "rubbish",
            Self::Timeout => "timeout",
            Self::Identity => "identity",
            Self::Cluster => "cluster",
            Self::Version => "version",
            Self::Removed => "removed",
            Self::Turned => "turned_away",
            Self::Regressed => "regressed",
        }
    }
}

/// The handles, registered once for each transport: what is counted for every frame must not be looked up.
pub(super) struct Meters {
    pub(super) bytes_in: Counter,
    pub(super) bytes_out: Counter,
    pub(super) frames_in: Counter,
    pub(super) frames_out: Counter,
    writes: (Counter, AtomicU64),
    pub(super) queued: Gauge,
    pub(super) connected: Gauge,
    pub(super) ups: Counter,
    busy: [Counter; Service::ALL.len()],
    refused: [(Counter, AtomicU64); Refusal::ALL.len()],
}

impl Meters {
    /// Registers every handle.
    pub(super) fn new() -> Self {
        Self {
            bytes_in: counter!(BYTES, "direction" => "in"),
            bytes_out: counter!(BYTES, "direction" => "out"),
            frames_in: counter!(FRAMES, "direction" => "in"),
            frames_out: counter!(FRAMES, "direction" => "out"),
            writes: (counter!(WRITES), AtomicU64::new(0)),
            queued: gauge!(QUEUED),
            connected: gauge!(CONNECTED),
            ups: counter!(UPS),
            busy: Service::ALL.map(|service| counter!(BUSY, "service" => service.to_string())),
            refused: Refusal::ALL.map(|reason| {
                let counter = counter!(REFUSED, "reason" => reason.name());
                (counter, AtomicU64::new(0))
            }),
        }
    }

    /// Counts writes to sockets.
    pub(super) fn wrote(&self, writes: u64) {
        self.writes.0.increment(writes);
        self.writes.1.fetch_add(writes, Ordering::Relaxed);
    }

    /// How many writes there were.
    #[cfg(test)]
    pub(super) fn written(&self) -> u64 {
        self.writes.1.load(Ordering::Relaxed)
    }

    /// Counts a message refused for load.
    pub(super) fn busy(&self, service: Service) {
        if let Some(counter) = self.busy.get(place(service)) {
            counter.increment(1);
        }
    }

    /// Counts a connection that did not come to be.
    pub(super) fn refused(&self, reason: Refusal) {
        if let Some((counter, count)) = self.refused.get(reason as usize) {
            counter.increment(1);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many did not come to be.
    pub(super) fn refusals(&self, reason: Refusal) -> u64 {
        let count = self.refused.get(reason as usize);
        count.map_or(0, |(_, count)| count.load(Ordering::Relaxed))
    }
}

/// Counts a link that broke.
pub(super) fn down(reason: &'static str) {
    counter!(DOWNS, "reason" => reason).increment(1);
}
