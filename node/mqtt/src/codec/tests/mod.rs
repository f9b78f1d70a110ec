//! The codec from outside: a table of everything it refuses, and laws that hold for everything else.

mod foreign;
mod laws;
mod million;
mod strict;

/// A packet of a first byte and a body.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    bytes::BufMut::put_u8(&mut bytes, first);
    super::wire::put_varint(&mut bytes, u32::try_from(body.len()).expect("small"));
    bytes.extend_from_slice(body);
    bytes.to_vec()
}

/// A string or binary with its length.
fn s(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    super::wire::put_binary(&mut bytes, text.as_ref());
    bytes.to_vec()
}

/// Parts in a row.
fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
