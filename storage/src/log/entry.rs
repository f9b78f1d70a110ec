//! One log entry in the shape raft-engine wants: a protobuf message. Written by hand, because it has two fields.

use std::{any::Any, sync::OnceLock};

use bytes::Bytes;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields,
    error::{ProtobufError, WireError},
    reflect::MessageDescriptor,
    rt,
    wire_format::WireType,
};
use raft_engine::MessageExt;

const INDEX: u32 = 1;
const DATA: u32 = 2;

/// An index and opaque bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) data: Bytes,
    unknown: UnknownFields,
}

impl Entry {
    pub(super) fn new(index: u64, data: Bytes) -> Self {
        Self {
            index,
            data,
            unknown: UnknownFields::default(),
        }
    }
}

/// Tells raft-engine what an entry is.
pub(super) struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl Clear for Entry {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Entry {
    fn descriptor(&self) -> &'static MessageDescriptor {
        // as generated code without reflection has it; asked for only when a required field is missing
        Self::descriptor_static()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            match input.read_tag()?.unpack() {
                (INDEX, WireType::WireTypeVarint) => self.index = input.read_uint64()?,
                (DATA, WireType::WireTypeLengthDelimited) => {
                    self.data = Bytes::from(input.read_bytes()?);
                },
                // entries are only ever ours: another field is damage that the checksum missed
                _ => return Err(ProtobufError::WireError(WireError::Other)),
            }
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_uint64(INDEX, self.index)?;
        output.write_bytes(DATA, &self.data)
    }

    fn compute_size(&self) -> u32 {
        let index = rt::value_size(INDEX, self.index, WireType::WireTypeVarint);
        index + rt::bytes_size(DATA, &self.data)
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static DEFAULT: OnceLock<Entry> = OnceLock::new();
        DEFAULT.get_or_init(Self::default)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_sample_of_an_entry() {
        let entry = Entry::new(300, Bytes::from_static(b"ab"));
        let bytes = entry.write_to_bytes().expect("small entry");
        assert_eq!(bytes, [0x08, 0xac, 0x02, 0x12, 0x02, b'a', b'b']);
    }

    proptest! {
        #[test]
        fn entries_round_trip(index: u64, data: Vec<u8>) {
            let entry = Entry::new(index, Bytes::from(data));
            let bytes = entry.write_to_bytes().expect("small entry");
            prop_assert_eq!(bytes.len() as u64, u64::from(entry.compute_size()));
            prop_assert_eq!(Entry::parse_from_bytes(&bytes).expect("own bytes"), entry);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            drop(Entry::parse_from_bytes(&bytes));
        }
    }
}
