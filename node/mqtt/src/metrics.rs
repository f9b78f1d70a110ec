//! What the edge counts. Handles are looked up once; counting a packet is one addition.

use std::fmt;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::{
    close::CloseCause, codec::MalformedCause, packet::PacketKind, peer::Transport, refusal::Refusal,
};

/// Open connections, by `transport` and `state` (`opening`, `open`).
pub const CONNECTIONS: &str = "umbel_mqtt_connections";
/// Connections opened, by `transport`.
pub const OPENED: &str = "umbel_mqtt_opened_total";
/// Connections closed after they were open, by `cause`.
pub const CLOSED: &str = "umbel_mqtt_closed_total";
/// Connections refused before they were open, by `cause`.
pub const REFUSED: &str = "umbel_mqtt_refused_total";
/// Malformed packets, by `cause`.
pub const MALFORMED: &str = "umbel_mqtt_malformed_total";
/// Packets received, by `type`.
pub const PACKETS_IN: &str = "umbel_mqtt_packets_in_total";
/// Packets sent, by `type`.
pub const PACKETS_OUT: &str = "umbel_mqtt_packets_out_total";
/// Bytes received after CONNECT.
pub const BYTES_IN: &str = "umbel_mqtt_in_bytes_total";
/// Bytes sent after CONNACK.
pub const BYTES_OUT: &str = "umbel_mqtt_out_bytes_total";
/// Times the accept loop ran out of files.
pub const ACCEPT_EXHAUSTED: &str = "umbel_mqtt_accept_exhausted_total";

/// Describes every metric of the edge and of the broker.
pub fn describe() {
    crate::broker::metrics::describe();
    describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "Connections by transport and state"
    );
    describe_counter!(OPENED, Unit::Count, "Connections opened by transport");
    describe_counter!(CLOSED, Unit::Count, "Open connections closed by cause");
    describe_counter!(
        REFUSED,
        Unit::Count,
        "Connections refused before they were open by cause"
    );
    describe_counter!(MALFORMED, Unit::Count, "Malformed packets by cause");
    describe_counter!(PACKETS_IN, Unit::Count, "Packets received by type");
    describe_counter!(PACKETS_OUT, Unit::Count, "Packets sent by type");
    describe_counter!(BYTES_IN, Unit::Bytes, "Bytes received on open connections");
    describe_counter!(BYTES_OUT, Unit::Bytes, "Bytes sent on open connections");
    describe_counter!(
        ACCEPT_EXHAUSTED,
        Unit::Count,
        "Times no file was left for a connection"
    );
}

/// Handles of every metric of the edge.
pub struct Counters {
    opening: [Gauge; 4],
    open: [Gauge; 4],
    opened: [Counter; 4],
    closed: Vec<Counter>,
    refused: Vec<Counter>,
    malformed: Vec<Counter>,
    packets_in: [Counter; 15],
    packets_out: [Counter; 15],
    /// Bytes received.
    pub(crate) bytes_in: Counter,
    /// Bytes sent.
    pub(crate) bytes_out: Counter,
    /// Times no file was left.
    pub(crate) accept_exhausted: Counter,
}

impl Counters {
    /// Looks every handle up in the recorder that is installed now.
    pub fn new() -> Self {
        let state = |state: &'static str| {
            Transport::ALL
                .map(|one| gauge!(CONNECTIONS, "transport" => one.label(), "state" => state))
        };
        let packets =
            |name: &'static str| PacketKind::ALL.map(|kind| counter!(name, "type" => kind.label()));
        Self {
            opening: state("opening"),
            open: state("open"),
            opened: Transport::ALL.map(|one| counter!(OPENED, "transport" => one.label())),
            closed: by_cause(CLOSED, CloseCause::ALL.iter().map(|cause| cause.label())),
            refused: by_cause(REFUSED, Refusal::ALL.iter().map(|cause| cause.label())),
            malformed: by_cause(
                MALFORMED,
                MalformedCause::ALL.iter().map(|cause| cause.label()),
            ),
            packets_in: packets(PACKETS_IN),
            packets_out: packets(PACKETS_OUT),
            bytes_in: counter!(BYTES_IN),
            bytes_out: counter!(BYTES_OUT),
            accept_exhausted: counter!(ACCEPT_EXHAUSTED),
        }
    }

    pub(crate) fn packet_in(&self, kind: PacketKind) {
        count(&self.packets_in, kind as usize - 1);
    }

    pub(crate) fn packet_out(&self, kind: PacketKind) {
        count(&self.packets_out, kind as usize - 1);
    }

    pub(crate) fn closed(&self, cause: CloseCause) {
        count(&self.closed, cause as usize);
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        count(&self.refused, refusal as usize);
    }

    pub(crate) fn malformed(&self, cause: MalformedCause) {
        count(&self.malformed, cause as usize);
    }

    pub(crate) fn opened(&self, transport: Transport) {
        count(&self.opened, transport as usize);
    }

    /// The gauge of connections of this transport that are opening, or open.
    pub(crate) fn connections(&self, transport: Transport, is_open: bool) -> Option<&Gauge> {
        let gauges = if is_open { &self.open } else { &self.opening };
        gauges.get(transport as usize)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

fn by_cause(name: &'static str, labels: impl Iterator<Item = &'static str>) -> Vec<Counter> {
    labels
        .map(|cause| counter!(name, "cause" => cause))
        .collect()
}

fn count(counters: &[Counter], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.increment(1);
    }
}
