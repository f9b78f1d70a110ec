//! What the broker counts. Names and labels are closed sets; no id ever becomes a label.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use umbel_core::message::Qos;

/// Messages received from clients, by `qos`.
pub const PUBLISHED: &str = "umbel_mqtt_publishes_received_total";
/// Messages sent to clients, by `qos`.
pub const DELIVERED: &str = "umbel_mqtt_publishes_sent_total";
/// Messages not delivered to one client, by `reason`.
pub const DROPPED: &str = "umbel_mqtt_messages_dropped_total";
/// What a client was not allowed to do, by `action`.
pub const REFUSED: &str = "umbel_mqtt_authorization_refusals_total";
/// Sessions, by `state`.
pub const SESSIONS: &str = "umbel_mqtt_sessions";
/// Subscriptions of all sessions.
pub const SUBSCRIPTIONS: &str = "umbel_mqtt_subscriptions";
/// Messages sent and not acknowledged.
pub const INFLIGHT: &str = "umbel_mqtt_inflight_messages";
/// Messages waiting for clients.
pub const QUEUED: &str = "umbel_mqtt_queued_messages";
/// Retained messages.
pub const RETAINED: &str = "umbel_mqtt_retained_messages";
/// Bytes of retained messages.
pub const RETAINED_BYTES: &str = "umbel_mqtt_retained_bytes";
/// Sessions taken over by a newer connection.
pub const TAKEN_OVER: &str = "umbel_mqtt_sessions_taken_over_total";

/// Filters, by `where`: held by sessions of this node, or of others.
pub const FILTERS: &str = "umbel_mqtt_advertised_filters";
/// Nodes and shards that get every message because it is not known what they want.
pub const BLIND: &str = "umbel_mqtt_blind_destinations";
/// Messages that wait for the owner of a shard.
pub const WAITING: &str = "umbel_mqtt_messages_waiting_for_owner";
/// Deliveries asked of other nodes, by `result`.
pub const FORWARDED: &str = "umbel_mqtt_forwarded_deliveries_total";

/// Registers every name with its description.
pub fn describe() {
    describe_counter!(
        PUBLISHED,
        "Messages received from clients, by quality of service"
    );
    describe_counter!(DELIVERED, "Messages sent to clients, by quality of service");
    describe_counter!(DROPPED, "Messages not delivered to one client, by reason");
    describe_counter!(REFUSED, "Requests of clients refused by policy, by action");
    describe_counter!(TAKEN_OVER, "Sessions taken over by a newer connection");
    describe_gauge!(SESSIONS, "Sessions, by state: connected or offline");
    describe_gauge!(SUBSCRIPTIONS, "Subscriptions of all sessions");
    describe_gauge!(INFLIGHT, "Messages sent to clients and not acknowledged");
    describe_gauge!(
        QUEUED,
        "Messages waiting for clients, in memory and storage"
    );
    describe_gauge!(
        FILTERS,
        "Filters that nodes tell each other, by where their sessions are: here or elsewhere"
    );
    describe_gauge!(
        BLIND,
        "Nodes and shards that get every message because it is not known what they want"
    );
    describe_gauge!(WAITING, "Messages that wait for the owner of a shard");
    describe_counter!(
        FORWARDED,
        "Messages handed to another node, by result: done, refused, lost or untold"
    );
    describe_gauge!(RETAINED, "Retained messages");
    describe_gauge!(RETAINED_BYTES, "Bytes of retained messages");
}

/// Why a message did not reach one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// The client's queue is full.
    QueueFull,
    /// It expired before it could be sent.
    Expired,
    /// It is larger than the client takes.
    TooLarge,
    /// The client may not receive it.
    NotAuthorized,
    /// It could not be made durable.
    NotStored,
    /// The connection ended with it in the queue.
    ConnectionEnded,
    /// Its row cannot be read.
    Unreadable,
    /// The client's node cannot be spoken to.
    NodeUnreachable,
}

impl Drop {
    const fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLarge => "too_large",
            Self::NotAuthorized => "not_authorized",
            Self::NotStored => "not_stored",
            Self::ConnectionEnded => "connection_ended",
            Self::Unreadable => "unreadable",
            Self::NodeUnreachable => "node_unreachable",
        }
    }
}

/// Counts messages that did not reach a client.
pub(crate) fn dropped(reason: Drop, count: usize) {
    if count > 0 {
        counter!(DROPPED, "reason" => reason.label()).increment(count as u64);
    }
}

/// The counters of every message, looked up once: a recorder has to be there before the broker is.
pub(crate) struct Meters {
    received: [Counter; 3],
    sent: [Counter; 3],
}

impl Meters {
    pub(crate) fn new() -> Self {
        let each = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce].map(qos_label);
        Self {
            received: each.map(|qos| counter!(PUBLISHED, "qos" => qos)),
            sent: each.map(|qos| counter!(DELIVERED, "qos" => qos)),
        }
    }

    /// Counts a message from a client.
    pub(crate) fn received(&self, qos: Qos) {
        count(&self.received, qos);
    }

    /// Counts a message to a client.
    pub(crate) fn sent(&self, qos: Qos) {
        count(&self.sent, qos);
    }
}

fn count(counters: &[Counter; 3], qos: Qos) {
    if let Some(counter) = counters.get(qos as usize) {
        counter.increment(1);
    }
}

/// Counts a refusal.
pub(crate) fn refused(action: &'static str) {
    counter!(REFUSED, "action" => action).increment(1);
}

/// Counts a take-over.
pub(crate) fn taken_over() {
    counter!(TAKEN_OVER).increment(1);
}

/// Sums over all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sessions with a connection.
    pub connected: usize,
    /// Sessions without.
    pub offline: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages sent and not acknowledged.
    pub inflight: usize,
    /// Messages waiting.
    pub queued: u64,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: u64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; counts stay far below 2^52"
)]
pub(crate) fn record(totals: &Totals) {
    gauge!(SESSIONS, "state" => "connected").set(totals.connected as f64);
    gauge!(SESSIONS, "state" => "offline").set(totals.offline as f64);
    gauge!(SUBSCRIPTIONS).set(totals.subscriptions as f64);
    gauge!(INFLIGHT).set(totals.inflight as f64);
    gauge!(QUEUED).set(totals.queued as f64);
    gauge!(RETAINED).set(totals.retained as f64);
    gauge!(RETAINED_BYTES).set(totals.retained_bytes as f64);
}

/// What is known of other nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) here: usize,
    pub(crate) elsewhere: usize,
    pub(crate) blind: usize,
    pub(crate) waiting: usize,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; counts stay far below 2^52"
)]
pub(crate) fn record_routes(known: &Known) {
    gauge!(FILTERS, "where" => "here").set(known.here as f64);
    gauge!(FILTERS, "where" => "elsewhere").set(known.elsewhere as f64);
    gauge!(BLIND).set(known.blind as f64);
    gauge!(WAITING).set(known.waiting as f64);
}

/// What became of a message that was handed to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// It answered that it has it.
    Done,
    /// It did not take all of it.
    Refused,
    /// It did not answer, or there is no link.
    Lost,
    /// No answer was wanted.
    Untold,
}

/// Counts a message that was handed to another node.
pub(crate) fn forwarded(result: Forwarded) {
    let label = match result {
        Forwarded::Done => "done",
        Forwarded::Refused => "refused",
        Forwarded::Lost => "lost",
        Forwarded::Untold => "untold",
    };
    counter!(FORWARDED, "result" => label).increment(1);
}

const fn qos_label(qos: Qos) -> &'static str {
    match qos {
        Qos::AtMostOnce => "0",
        Qos::AtLeastOnce => "1",
        Qos::ExactlyOnce => "2",
    }
}
