//! Reads the elements of a packet from a slice, and refuses what MQTT refuses.

use std::num::NonZeroU16;

use super::malformed::{Malformed, MalformedCause};

/// A cursor over the body of one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    pub(super) const fn left(self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything that is left.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.bytes
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(MalformedCause::TrailingBytes.into())
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(Malformed::new(MalformedCause::Truncated))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or(Malformed::new(MalformedCause::Truncated))?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16, Malformed> {
        NonZeroU16::new(self.u16()?).ok_or(Malformed::new(MalformedCause::PacketId))
    }

    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        match varint(self.bytes)? {
            Some((value, len)) => {
                self.take(len)?;
                Ok(value)
            },
            None => Err(MalformedCause::Truncated.into()),
        }
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        check_text(self.binary()?)
    }

    /// A text that is a topic name: not empty, no wildcards (MQTT-3.3.2-2, MQTT-4.7.3-1).
    pub(super) fn topic(&mut self) -> Result<&'a str, Malformed> {
        let topic = self.text()?;
        if topic.is_empty() || has_wildcard(topic) {
            return Err(MalformedCause::TopicName.into());
        }
        Ok(topic)
    }
}

/// A variable byte integer at the start of `bytes` and how many bytes it took; `None` if it does not end there.
///
/// At most four bytes, and no more than the value needs (MQTT-1.5.5-1): an integer with two spellings is a way around
/// whoever looks at only one of them.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let is_padded = index > 0 && *byte == 0;
            return if is_padded {
                Err(MalformedCause::Length.into())
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    if bytes.len() >= 4 {
        Err(MalformedCause::Length.into())
    } else {
        Ok(None)
    }
}

pub(super) fn has_wildcard(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// UTF-8 without NUL (MQTT-1.5.4-2) and without what a receiver may refuse: control characters and noncharacters.
fn check_text(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .ok_or(Malformed::new(MalformedCause::Text))?;
    let is_plain = bytes.iter().all(|byte| matches!(byte, 0x20..0x7F));
    if is_plain || text.chars().all(is_allowed) {
        Ok(text)
    } else {
        Err(MalformedCause::Text.into())
    }
}

fn is_allowed(c: char) -> bool {
    let code = u32::from(c);
    let is_noncharacter = code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code);
    !c.is_control() && !is_noncharacter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(bytes: &[u8]) -> Option<MalformedCause> {
        varint(bytes).err().map(|error| error.cause)
    }

    #[test]
    fn a_length_has_one_spelling() {
        assert_eq!(varint(&[0]), Ok(Some((0, 1))));
        assert_eq!(varint(&[0x80, 0x01]), Ok(Some((128, 2))));
        assert_eq!(
            varint(&[0xFF, 0xFF, 0xFF, 0x7F]),
            Ok(Some((268_435_455, 4)))
        );
        assert_eq!(varint(&[0x80]), Ok(None));
        assert_eq!(varint(&[]), Ok(None));
        assert_eq!(cause(&[0x80, 0x00]), Some(MalformedCause::Length));
        assert_eq!(
            cause(&[0x81, 0x80, 0x80, 0x00]),
            Some(MalformedCause::Length)
        );
        assert_eq!(
            cause(&[0xFF, 0xFF, 0xFF, 0xFF]),
            Some(MalformedCause::Length)
        );
    }

    #[test]
    fn text_refuses_what_mqtt_forbids() {
        for good in ["", "plain", "ü", "\u{FEFF}bom", "𝄞", "\u{FFFD}"] {
            assert_eq!(check_text(good.as_bytes()), Ok(good));
        }
        let bad: [&[u8]; 8] = [
            b"a\0b",
            b"\x01",
            b"\x7F",
            "\u{9F}".as_bytes(),
            "\u{FFFF}".as_bytes(),
            "\u{1FFFE}".as_bytes(),
            b"\xED\xA0\x80", // a surrogate
            b"\xC0\xAF",     // overlong
        ];
        for bytes in bad {
            assert!(check_text(bytes).is_err(), "{bytes:?}");
        }
    }
}
