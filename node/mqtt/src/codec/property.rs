//! Properties: which may come, how often, and with which values (MQTT 5.0, 2.2.2).

use super::{
    malformed::{Malformed, MalformedCause},
    reader::{Reader, has_wildcard},
    wire::property as id,
};

/// The properties a packet may carry, as a set of bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed(u64);

impl Allowed {
    const fn of(ids: &[u8]) -> Self {
        let mut bits = 0;
        let mut rest = ids;
        while let [first, tail @ ..] = rest {
            bits |= 1 << *first;
            rest = tail;
        }
        Self(bits)
    }

    const fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }

    /// CONNECT.
    pub(super) const CONNECT: Self = Self::of(&[
        id::SESSION_EXPIRY,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::USER,
        id::MAXIMUM_PACKET_SIZE,
    ]);
    /// The will in CONNECT.
    pub(super) const WILL: Self = Self::of(&[
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY,
        id::USER,
    ]);
    /// PUBLISH from a client: everything but subscription identifiers.
    pub(super) const PUBLISH: Self = Self::of(&[
        id::PAYLOAD_FORMAT,
        id::MESSAGE_EXPIRY,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::TOPIC_ALIAS,
        id::USER,
    ]);
    /// The four acknowledgements.
    pub(super) const ACK: Self = Self::of(&[id::REASON_STRING, id::USER]);
    /// SUBSCRIBE.
    pub(super) const SUBSCRIBE: Self = Self::of(&[id::SUBSCRIPTION_ID, id::USER]);
    /// UNSUBSCRIBE.
    pub(super) const UNSUBSCRIBE: Self = Self::of(&[id::USER]);
    /// DISCONNECT from a client: no server reference.
    pub(super) const DISCONNECT: Self =
        Self::of(&[id::SESSION_EXPIRY, id::REASON_STRING, id::USER]);
    /// AUTH.
    pub(super) const AUTH: Self = Self::of(&[
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REASON_STRING,
        id::USER,
    ]);
}

/// The value of a property.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Varint(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// Reads a property block and shows every property to `visit`, with the number of bytes left in the block after it.
pub(super) fn walk<'a>(
    reader: &mut Reader<'a>,
    allowed: Allowed,
    mut visit: impl FnMut(u8, Value<'a>, usize),
) -> Result<(), Malformed> {
    let len = reader.varint()?;
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut block = Reader::new(reader.take(len)?);
    let mut seen = 0_u64;
    while !block.is_empty() {
        // An identifier is a variable byte integer; all that exist are one byte.
        let id = block.u8()?;
        if !allowed.has(id) {
            return Err(not_allowed(id));
        }
        if id != id::USER && seen & (1 << id) != 0 {
            return Err(MalformedCause::DuplicateProperty.into());
        }
        seen |= 1 << id;
        let value = read(&mut block, id)?;
        check(id, value)?;
        visit(id, value, block.left());
    }
    Ok(())
}

const fn not_allowed(id: u8) -> Malformed {
    Malformed::new(match id {
        // The one the specification calls a protocol error by name (MQTT-3.3.4-6).
        id::SUBSCRIPTION_ID => MalformedCause::SubscriptionId,
        _ => MalformedCause::Property,
    })
}

fn read<'a>(block: &mut Reader<'a>, id: u8) -> Result<Value<'a>, Malformed> {
    Ok(match id {
        id::PAYLOAD_FORMAT | id::REQUEST_PROBLEM_INFORMATION | id::REQUEST_RESPONSE_INFORMATION => {
            Value::Byte(block.u8()?)
        },
        id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => Value::Two(block.u16()?),
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            Value::Four(block.u32()?)
        },
        id::SUBSCRIPTION_ID => Value::Varint(block.varint()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => Value::Binary(block.binary()?),
        id::USER => Value::Pair(block.text()?, block.text()?),
        id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::AUTHENTICATION_METHOD | id::REASON_STRING => {
            Value::Text(block.text()?)
        },
        _ => return Err(MalformedCause::Property.into()),
    })
}

/// Values no property of that name may have.
fn check(id: u8, value: Value<'_>) -> Result<(), Malformed> {
    let is_good = match (id, value) {
        (id::TOPIC_ALIAS, Value::Two(0)) => return Err(MalformedCause::TopicAlias.into()),
        (id::RECEIVE_MAXIMUM, Value::Two(0))
        | (id::MAXIMUM_PACKET_SIZE, Value::Four(0))
        | (id::SUBSCRIPTION_ID, Value::Varint(0)) => false,
        (id::RESPONSE_TOPIC, Value::Text(topic)) => !topic.is_empty() && !has_wildcard(topic),
        (_, Value::Byte(byte)) => byte <= 1,
        _ => true,
    };
    if is_good {
        Ok(())
    } else {
        Err(MalformedCause::PropertyValue.into())
    }
}
