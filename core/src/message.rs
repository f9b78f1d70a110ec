//! A message as the broker carries it, independent of protocol version and wire format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ids::ClientId, time::Timestamp};

/// Quality of service of a delivery (MQTT 5.0, 4.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[repr(u8)]
#[expect(clippy::enum_variant_names, reason = "the names of the specification")]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

/// What a publisher attached to a message and a subscriber gets with it (MQTT 5.0, 3.3.2.3). Empty for 3.1.1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// The payload is UTF-8 text.
    pub payload_is_utf8: Option<bool>,
    /// Kind of content, in the publisher's words.
    pub content_type: Option<String>,
    /// Where an answer is awaited.
    pub response_topic: Option<String>,
    /// Identifies the request an answer belongs to.
    pub correlation_data: Option<Bytes>,
    /// Name and value pairs, order kept.
    pub user: Vec<(String, String)>,
}

/// A message on its way from a publisher to subscribers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Topic name; no wildcards, no alias.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// The publisher's quality of service.
    pub qos: Qos,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// Who published; `None` for the cluster itself.
    pub publisher: Option<ClientId>,
    /// When the cluster received it.
    pub received_at: Timestamp,
    /// When it stops being worth delivering.
    pub expires_at: Option<Timestamp>,
    /// MQTT 5 properties; boxed because most messages have none.
    pub properties: Option<Box<Properties>>,
}

impl Message {
    /// A message of the cluster itself.
    pub fn from_cluster(topic: String, payload: Bytes, qos: Qos, now: Timestamp) -> Self {
        Self {
            topic,
            payload,
            qos,
            retain: false,
            publisher: None,
            received_at: now,
            expires_at: None,
            properties: None,
        }
    }
}
