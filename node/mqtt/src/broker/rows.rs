//! The rows the broker keeps: their keys and their bytes.
//!
//! Types of the disk only. Format 1 of each has a sample in the tests, which every later release has to read.

use std::num::{NonZeroU16, NonZeroU32};

use serde::{Deserialize, Serialize};
use umbel_core::{
    ids::ClientId,
    message::{Message, Qos},
};
use umbel_storage::codec::{self, CodecError};

use super::{delivery::Delivery, mailbox::Options};

const FORMAT: u8 = 1;

/// Ends the client id in a key: no client id holds it.
const END: u8 = 0;

#[derive(Serialize)]
struct QueuedRef<'a> {
    message: &'a Message,
    qos: Qos,
    retain: bool,
    subscription_ids: &'a [NonZeroU32],
    released: bool,
}

#[derive(Deserialize)]
struct Queued {
    message: Message,
    qos: Qos,
    retain: bool,
    subscription_ids: Vec<NonZeroU32>,
    released: bool,
}

#[derive(Serialize, Deserialize)]
struct Subscribed {
    qos: Qos,
    no_local: bool,
    retain_as_published: bool,
    id: Option<NonZeroU32>,
}

/// The key prefix of all rows of a client in a table.
pub(crate) fn prefix(client: &ClientId) -> Vec<u8> {
    key(client, &[])
}

/// The key of a queued message.
pub(crate) fn queue_key(client: &ClientId, sequence: u64) -> Vec<u8> {
    key(client, &sequence.to_be_bytes())
}

/// The key of a subscription.
pub(crate) fn subscription_key(client: &ClientId, filter: &str) -> Vec<u8> {
    key(client, filter.as_bytes())
}

/// The key of a received QoS 2 packet identifier.
pub(crate) fn inbound_key(client: &ClientId, id: NonZeroU16) -> Vec<u8> {
    key(client, &id.get().to_be_bytes())
}

/// The key of the generation of a shard's homes, in the table of queues: no client has an empty id.
pub(crate) fn generation_key() -> Vec<u8> {
    vec![END]
}

/// The row of a generation.
pub(crate) fn encode_generation(generation: u64) -> Vec<u8> {
    encoded(&generation)
}

/// Reads the row of a generation.
pub(crate) fn decode_generation(bytes: &[u8]) -> Result<u64, CodecError> {
    decoded(bytes)
}

fn key(client: &ClientId, rest: &[u8]) -> Vec<u8> {
    let client = client.as_str().as_bytes();
    let mut key = Vec::with_capacity(client.len() + 1 + rest.len());
    key.extend_from_slice(client);
    key.push(END);
    key.extend_from_slice(rest);
    key
}

/// Splits a key into the client's id and the rest.
pub(crate) fn split(key: &[u8]) -> Option<(ClientId, &[u8])> {
    let end = key.iter().position(|byte| *byte == END)?;
    let (client, rest) = key.split_at_checked(end)?;
    let client = ClientId::parse(std::str::from_utf8(client).ok()?).ok()?;
    Some((client, rest.get(1..)?))
}

/// The sequence number in the rest of a key.
pub(crate) fn sequence(rest: &[u8]) -> Option<u64> {
    rest.try_into().ok().map(u64::from_be_bytes)
}

/// The packet identifier in the rest of a key.
pub(crate) fn identifier(rest: &[u8]) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::from_be_bytes(rest.try_into().ok()?))
}

/// The row of a message that waits.
pub(crate) fn encode_queued(delivery: &Delivery) -> Vec<u8> {
    encoded(&QueuedRef {
        message: &delivery.message,
        qos: delivery.qos,
        retain: delivery.retain,
        subscription_ids: &delivery.subscription_ids,
        released: delivery.released,
    })
}

/// The row of a message whose PUBREC came: its content is the client's now, only the identifier is left.
pub(crate) fn encode_released() -> Vec<u8> {
    let nothing = Message::from_cluster(
        String::new(),
        bytes::Bytes::new(),
        Qos::ExactlyOnce,
        umbel_core::time::Timestamp::default(),
    );
    encoded(&QueuedRef {
        message: &nothing,
        qos: Qos::ExactlyOnce,
        retain: false,
        subscription_ids: &[],
        released: true,
    })
}

/// Reads a row of the queue.
pub(crate) fn decode_queued(sequence: u64, bytes: &[u8]) -> Result<Delivery, CodecError> {
    let row: Queued = decoded(bytes)?;
    Ok(Delivery {
        sequence,
        message: row.message.into(),
        qos: row.qos,
        retain: row.retain,
        subscription_ids: row.subscription_ids,
        released: row.released,
    })
}

/// The row of a subscription.
pub(crate) fn encode_subscription(options: Options) -> Vec<u8> {
    encoded(&Subscribed {
        qos: options.qos,
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        id: options.id,
    })
}

/// Reads a row of the subscriptions.
pub(crate) fn decode_subscription(bytes: &[u8]) -> Result<Options, CodecError> {
    let row: Subscribed = decoded(bytes)?;
    Ok(Options {
        qos: row.qos,
        no_local: row.no_local,
        retain_as_published: row.retain_as_published,
        id: row.id,
    })
}

/// The row of a retained message.
pub(crate) fn encode_retained(message: &Message) -> Vec<u8> {
    encoded(message)
}

/// Reads a row of the retained messages.
pub(crate) fn decode_retained(bytes: &[u8]) -> Result<Message, CodecError> {
    decoded(bytes)
}

/// The row of a received packet identifier says nothing but that it is there.
pub(crate) fn encode_inbound() -> Vec<u8> {
    vec![FORMAT]
}

fn encoded<T: Serialize>(value: &T) -> Vec<u8> {
    // only a record above 16 MiB can fail, and no packet is that large; an empty row fails to decode, which is seen
    codec::encode(FORMAT, value)
        .inspect_err(|error| tracing::error!(%error, "row does not encode"))
        .unwrap_or_default()
}

fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    match codec::format_of(bytes)? {
        (FORMAT, body) => codec::decode_body(body),
        (other, _) => Err(CodecError::Format(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use umbel_core::{message::Properties, time::Timestamp};

    use super::*;

    fn message() -> Message {
        Message {
            topic: "a/b".to_owned(),
            payload: Bytes::from_static(b"hello"),
            qos: Qos::ExactlyOnce,
            retain: true,
            publisher: ClientId::parse("me").ok(),
            received_at: Timestamp::from_millis(1_000),
            expires_at: Some(Timestamp::from_millis(2_000)),
            properties: Some(Box::new(Properties {
                payload_is_utf8: Some(true),
                content_type: Some("text".to_owned()),
                response_topic: None,
                correlation_data: Some(Bytes::from_static(b"7")),
                user: vec![("k".to_owned(), "v".to_owned())],
            })),
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn rows_of_format_one_are_read_by_every_release() {
        let delivery = Delivery {
            sequence: 9,
            message: Arc::new(message()),
            qos: Qos::AtLeastOnce,
            retain: false,
            subscription_ids: NonZeroU32::new(300).into_iter().collect(),
            released: false,
        };
        let queued = "0103612f620568656c6c6f020101026d65fbe80301fbd0070101010104746578740001013701016b0176010001fb2c0100";
        assert_eq!(hex(&encode_queued(&delivery)), queued);
        let back = decode_queued(9, &encode_queued(&delivery)).expect("decodes");
        assert_eq!(
            (back.message.as_ref(), back.qos, back.sequence),
            (&message(), Qos::AtLeastOnce, 9)
        );
        assert_eq!(back.subscription_ids, delivery.subscription_ids);

        let options = Options {
            qos: Qos::AtLeastOnce,
            no_local: true,
            retain_as_published: false,
            id: None,
        };
        assert_eq!(hex(&encode_subscription(options)), "0101010000");
        assert_eq!(decode_subscription(&[1, 1, 1, 0, 0]), Ok(options));
        assert_eq!(decode_retained(&encode_retained(&message())), Ok(message()));
        assert!(decode_queued(1, &encode_released()).is_ok_and(|row| row.released));
    }

    #[test]
    fn keys_name_client_and_place_and_other_bytes_are_refused() {
        let client = ClientId::parse("ü/1").expect("valid");
        let key = queue_key(&client, 258);
        let (who, rest) = split(&key).expect("splits");
        assert_eq!((who.as_str(), sequence(rest)), ("ü/1", Some(258)));
        assert!(key.starts_with(&prefix(&client)));
        assert_eq!(split(b"no end"), None);
        assert_eq!(
            decode_subscription(&[2, 0, 0, 0, 0]),
            Err(CodecError::Format(2))
        );
        assert!(decode_retained(&[1, 255, 255]).is_err());
    }
}
