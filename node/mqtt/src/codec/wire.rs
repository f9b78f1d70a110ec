//! The elements packets are made of (MQTT 5.0, 1.5).

use bytes::{BufMut, BytesMut};

/// Largest remaining length and variable byte integer there is: four bytes of seven bits.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// How many bytes a variable byte integer takes.
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a variable byte integer; the caller has checked it against [`VARINT_MAX`].
pub(crate) fn put_varint(buffer: &mut BytesMut, mut value: u32) {
    debug_assert!(
        value <= VARINT_MAX,
        "length is checked before it is written"
    );
    loop {
        let low = u8::try_from(value & 0x7F).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            buffer.put_u8(low);
            return;
        }
        buffer.put_u8(low | 0x80);
    }
}

/// Writes a length of two bytes and the bytes; the caller has checked the length.
pub(crate) fn put_binary(buffer: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(
        u16::try_from(bytes.len()).is_ok(),
        "length is checked before it is written"
    );
    buffer.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    buffer.put_slice(bytes);
}

/// Property identifiers (MQTT 5.0, table 2-4).
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_announced() {
        for value in [
            0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VARINT_MAX,
        ] {
            let mut buffer = BytesMut::new();
            put_varint(&mut buffer, value);
            assert_eq!(buffer.len(), varint_len(value), "{value}");
        }
    }
}
