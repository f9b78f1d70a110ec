//! One message on its way to one client, what it counts, and how it is named on the wire.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
};

use umbel_core::message::{Message, Qos};

/// How many sequence numbers can be told apart by their packet identifier.
pub(crate) const IDENTIFIERS: u64 = u16::MAX as u64;

/// Bytes a message costs beside its text: the struct, its row's key and framing.
pub(crate) const OVERHEAD_BYTES: usize = 96;

/// The packet identifier of a sequence number: 1 to 65,535, the same after every restart.
pub(crate) fn packet_id(sequence: u64) -> NonZeroU16 {
    u16::try_from(sequence % IDENTIFIERS + 1)
        .ok()
        .and_then(NonZeroU16::new)
        .unwrap_or(NonZeroU16::MAX)
}

/// What a message counts against a bound in bytes.
pub(crate) fn cost(message: &Message) -> usize {
    let properties = message.properties.as_deref().map_or(0, |properties| {
        properties
            .user
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
            + properties.content_type.as_ref().map_or(0, String::len)
            + properties.response_topic.as_ref().map_or(0, String::len)
            + properties
                .correlation_data
                .as_ref()
                .map_or(0, bytes::Bytes::len)
    });
    message.topic.len() + message.payload.len() + properties + OVERHEAD_BYTES
}

/// One message on its way to one client.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Place in the order of this session's QoS 1 and 2 messages; 0 for QoS 0.
    pub(crate) sequence: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) qos: Qos,
    /// The retain flag the client sees.
    pub(crate) retain: bool,
    /// Identifiers of all subscriptions that matched (MQTT-3.3.4-3).
    pub(crate) subscription_ids: Vec<NonZeroU32>,
    /// The client has it (PUBREC came): only PUBREL is left to send.
    pub(crate) released: bool,
}

/// Bounds on what waits for one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// In memory.
    pub(crate) window_messages: usize,
    /// In memory.
    pub(crate) window_bytes: usize,
    /// In storage, for a durable session.
    pub(crate) stored_messages: u64,
    /// In storage, for a durable session.
    pub(crate) stored_bytes: u64,
}
