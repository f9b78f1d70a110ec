//! What the broker allows, with a default for each bound.

use std::time::Duration;

use umbel_core::{message::Qos, topic};

use super::delivery::Bounds;

/// Bounds and switches of the broker. Every one is a promise about memory, storage or time.
#[derive(Clone, Debug)]
pub struct Config {
    /// Most sessions, connected or not.
    pub sessions_max: usize,
    /// Longest life of a session without a connection; what 3.1.1 clients without clean session get.
    pub session_expiry_max: Duration,
    /// Longest keep-alive; also what a client gets that asks for none.
    pub keep_alive_max: Duration,
    /// Most unacknowledged QoS 1 and 2 messages a client may have sent.
    pub receive_maximum: u16,
    /// Most unacknowledged QoS 1 and 2 messages a client is sent, whatever it offers to take.
    pub inflight_max: u16,
    /// Highest quality of service.
    pub maximum_qos: Qos,
    /// Largest packet taken. The codec enforces it; CONNACK says it.
    pub packet_bytes_max: u32,
    /// Highest topic alias a client may use; 0: none.
    pub topic_alias_max: u16,
    /// Most topic aliases the broker uses towards one client, if it takes any.
    pub topic_alias_out_max: u16,
    /// Most subscriptions of one session.
    pub subscriptions_max: usize,
    /// Most filters in one SUBSCRIBE or UNSUBSCRIBE.
    pub filters_per_packet_max: usize,
    /// Bounds on topics and filters.
    pub topics: topic::Limits,
    /// Most messages waiting in memory for one client.
    pub queue_messages_max: usize,
    /// Most bytes waiting in memory for one client.
    pub queue_bytes_max: usize,
    /// Most messages kept in storage for one persistent session.
    pub stored_messages_max: u64,
    /// Most bytes kept in storage for one persistent session.
    pub stored_bytes_max: u64,
    /// Most retained messages.
    pub retained_messages_max: usize,
    /// Most bytes of retained messages.
    pub retained_bytes_max: u64,
    /// First levels of the response information: the client id follows. `None`: none is given.
    pub response_prefix: Option<String>,
    /// Whether `$aws/events/subscriptions/…` are published.
    pub subscription_events: bool,
    /// How long acknowledged rows wait to be deleted together.
    pub delete_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sessions_max: 200_000,
            session_expiry_max: Duration::from_hours(7 * 24),
            keep_alive_max: Duration::from_mins(20),
            receive_maximum: 100,
            inflight_max: 100,
            maximum_qos: Qos::ExactlyOnce,
            packet_bytes_max: 256 * 1024,
            topic_alias_max: 8,
            topic_alias_out_max: 16,
            subscriptions_max: 100,
            filters_per_packet_max: 64,
            topics: topic::Limits {
                bytes_max: 1024,
                levels_max: 32,
            },
            queue_messages_max: 1_000,
            queue_bytes_max: 1024 * 1024,
            stored_messages_max: 10_000,
            stored_bytes_max: 16 * 1024 * 1024,
            retained_messages_max: 100_000,
            retained_bytes_max: 256 * 1024 * 1024,
            response_prefix: Some("umbel/responses".to_owned()),
            subscription_events: true,
            delete_delay: Duration::from_millis(20),
        }
    }
}

impl Config {
    /// What may wait for one client.
    pub(crate) const fn bounds(&self) -> Bounds {
        Bounds {
            window_messages: self.queue_messages_max,
            window_bytes: self.queue_bytes_max,
            stored_messages: self.stored_messages_max,
            stored_bytes: self.stored_bytes_max,
        }
    }
}
