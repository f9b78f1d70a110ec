//! Judges the raw body of the packets the library reads, where the library would forget what matters.

use super::{
    malformed::{Malformed, MalformedCause},
    property::{Allowed, Value, walk},
    reader::{Reader, has_wildcard},
    wire::property as id,
};
use crate::reason::ProtocolVersion;

/// Flags of CONNECT (MQTT 5.0, 3.1.2.3).
mod flag {
    pub(super) const RESERVED: u8 = 0b0000_0001;
    pub(super) const CLEAN_START: u8 = 0b0000_0010;
    pub(super) const WILL: u8 = 0b0000_0100;
    pub(super) const WILL_QOS: u8 = 0b0001_1000;
    pub(super) const WILL_RETAIN: u8 = 0b0010_0000;
    pub(super) const PASSWORD: u8 = 0b0100_0000;
    pub(super) const USERNAME: u8 = 0b1000_0000;
}

/// A CONNECT that may be read, with what the library would wrongly refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValidConnect {
    pub(super) version: ProtocolVersion,
    /// Where the flags are, if they ask for an assigned identifier without clean start: MQTT 5 allows it.
    pub(super) assign_without_clean_start: Option<usize>,
    /// Where the will's message expiry is, if it is zero.
    pub(super) will_expiry_zero: Option<usize>,
}

impl ValidConnect {
    /// The bit to set so that the library reads an empty identifier.
    pub(super) const CLEAN_START: u8 = flag::CLEAN_START;
}

/// Judges the body of a CONNECT.
pub(super) fn connect(body: &[u8]) -> Result<ValidConnect, Malformed> {
    let mut reader = Reader::new(body);
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(MalformedCause::ProtocolName.into());
    }
    let version = level(name, reader.u8()?)?;
    connect_of(body, reader, version).map_err(|error| Malformed {
        version: Some(version),
        ..error
    })
}

fn level(name: &[u8], level: u8) -> Result<ProtocolVersion, Malformed> {
    match (name, level) {
        (b"MQTT", 4) => Ok(ProtocolVersion::V311),
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V31),
        // Above 5 the client understands CONNACK of 5 better than of 3.1.1. Bit 7 is a bridge's, of level 3 or 4.
        (_, 6..=0x7F) => Err(unsupported(ProtocolVersion::V5)),
        _ => Err(unsupported(ProtocolVersion::V311)),
    }
}

const fn unsupported(version: ProtocolVersion) -> Malformed {
    Malformed {
        cause: MalformedCause::ProtocolLevel,
        version: Some(version),
    }
}

fn connect_of(
    body: &[u8],
    mut reader: Reader<'_>,
    version: ProtocolVersion,
) -> Result<ValidConnect, Malformed> {
    let flags_at = body.len() - reader.left();
    let flags = reader.u8()?;
    connect_flags(flags, version)?;
    reader.u16()?; // keep-alive: every value is valid
    if version.is_v5() {
        connect_properties(&mut reader)?;
    }
    let is_clean = flags & flag::CLEAN_START != 0;
    let is_anonymous = reader.text()?.is_empty();
    if is_anonymous && !version.is_v5() && (version == ProtocolVersion::V31 || !is_clean) {
        return Err(MalformedCause::ClientId.into()); // MQTT-3.1.3-8
    }
    let mut valid = ValidConnect {
        version,
        assign_without_clean_start: (is_anonymous && !is_clean).then_some(flags_at),
        will_expiry_zero: None,
    };
    if flags & flag::WILL != 0 {
        if version.is_v5() {
            let mut zero_left = None;
            walk(&mut reader, Allowed::WILL, |id, value, left| {
                if let (id::MESSAGE_EXPIRY, Value::Four(0)) = (id, value) {
                    zero_left = Some(left);
                }
            })?;
            // From the end of the block back over what followed, and over the four bytes themselves.
            let end = body.len() - reader.left();
            valid.will_expiry_zero = zero_left.map(|left| end - left - 4);
        }
        reader.topic()?;
        reader.binary()?;
    }
    if flags & flag::USERNAME != 0 {
        reader.text()?;
    }
    if flags & flag::PASSWORD != 0 {
        reader.binary()?;
    }
    reader.finish()?;
    Ok(valid)
}

fn connect_flags(flags: u8, version: ProtocolVersion) -> Result<(), Malformed> {
    let has_will = flags & flag::WILL != 0;
    let will_qos = (flags & flag::WILL_QOS) >> 3;
    let is_will_odd = if has_will {
        will_qos == 3
    } else {
        flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0
    };
    // MQTT 5 allows a password (a token) alone.
    let is_password_odd =
        !version.is_v5() && flags & flag::PASSWORD != 0 && flags & flag::USERNAME == 0;
    if flags & flag::RESERVED != 0 || is_will_odd || is_password_odd {
        return Err(MalformedCause::ConnectFlags.into());
    }
    Ok(())
}

fn connect_properties(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let (mut has_method, mut has_data) = (false, false);
    walk(reader, Allowed::CONNECT, |id, _, _| match id {
        id::AUTHENTICATION_METHOD => has_method = true,
        id::AUTHENTICATION_DATA => has_data = true,
        _ => {},
    })?;
    if has_data && !has_method {
        return Err(MalformedCause::PropertyValue.into());
    }
    Ok(())
}

/// Judges the body of a SUBSCRIBE.
pub(super) fn subscribe(body: &[u8], version: ProtocolVersion) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version.is_v5() {
        walk(&mut reader, Allowed::SUBSCRIBE, |_, _, _| {})?;
    }
    if reader.is_empty() {
        return Err(MalformedCause::EmptyList.into());
    }
    while !reader.is_empty() {
        let filter = reader.text()?;
        check_filter(filter)?;
        options(reader.u8()?, filter, version)?;
    }
    Ok(())
}

/// Subscription options (MQTT 5.0, 3.8.3.1); before MQTT 5 only the two lowest bits exist.
fn options(byte: u8, filter: &str, version: ProtocolVersion) -> Result<(), Malformed> {
    let reserved = if version.is_v5() {
        0b1100_0000
    } else {
        0b1111_1100
    };
    if byte & reserved != 0 {
        return Err(MalformedCause::ReservedBits.into());
    }
    let is_qos_odd = byte & 0b11 == 3;
    let is_retain_odd = byte & 0b11_0000 == 0b11_0000;
    let is_local_odd = byte & 0b100 != 0 && filter.starts_with(SHARE); // MQTT-3.8.3-4
    if is_qos_odd || is_retain_odd || is_local_odd {
        return Err(MalformedCause::SubscribeOptions.into());
    }
    Ok(())
}

/// Judges the body of an UNSUBSCRIBE.
pub(super) fn unsubscribe(body: &[u8], version: ProtocolVersion) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version.is_v5() {
        walk(&mut reader, Allowed::UNSUBSCRIBE, |_, _, _| {})?;
    }
    if reader.is_empty() {
        return Err(MalformedCause::EmptyList.into());
    }
    while !reader.is_empty() {
        check_filter(reader.text()?)?;
    }
    Ok(())
}

const SHARE: &str = "$share/";

/// The grammar of filters (MQTT 5.0, 4.7.1 and 4.8.2). `$share` alone could be read as a plain filter; as nobody means
/// that, it is refused with the other incomplete ones.
fn check_filter(filter: &str) -> Result<(), Malformed> {
    let plain = match filter.strip_prefix(SHARE) {
        Some(shared) => {
            let Some((group, plain)) = shared.split_once('/') else {
                return Err(MalformedCause::TopicFilter.into());
            };
            if group.is_empty() || has_wildcard(group) {
                return Err(MalformedCause::TopicFilter.into());
            }
            plain
        },
        None if filter == "$share" => return Err(MalformedCause::TopicFilter.into()),
        None => filter,
    };
    if plain.is_empty() || !are_wildcards_placed(plain) {
        return Err(MalformedCause::TopicFilter.into());
    }
    Ok(())
}

/// `#` is the whole last level, `+` is a whole level.
fn are_wildcards_placed(filter: &str) -> bool {
    if !has_wildcard(filter) {
        return true;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_good = match level {
            "+" => true,
            "#" => levels.peek().is_none(),
            other => !has_wildcard(other),
        };
        if !is_good {
            return false;
        }
    }
    true
}

/// Judges the body of a DISCONNECT.
pub(super) fn disconnect(body: &[u8], version: ProtocolVersion) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    if version.is_v5() && !reader.is_empty() {
        // What a client may say (MQTT 5.0, table 3-10).
        let is_allowed = matches!(reader.u8()?, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        if !is_allowed {
            return Err(MalformedCause::ReasonCode.into());
        }
        if !reader.is_empty() {
            walk(&mut reader, Allowed::DISCONNECT, |_, _, _| {})?;
        }
    }
    reader.finish()
}

/// Judges the body of an AUTH.
pub(super) fn auth(body: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(body);
    // An empty body is success, which only a server says; a client continues or starts again.
    if reader.is_empty() || !matches!(reader.u8()?, 0x18 | 0x19) {
        return Err(MalformedCause::ReasonCode.into());
    }
    let mut has_method = false;
    walk(&mut reader, Allowed::AUTH, |id, _, _| {
        has_method |= id == id::AUTHENTICATION_METHOD;
    })?;
    if !has_method {
        return Err(MalformedCause::PropertyValue.into());
    }
    reader.finish()
}
