//! Bytes to packets and back.
//!
//! `rmqtt-codec` builds and reads the packets that are rare (CONNECT, SUBSCRIBE, …); [`library`] is the only folder that
//! names it. PUBLISH and its acknowledgements, which are all but a few packets of a day, are read and written here
//! directly and checked against the library by property tests. In front of both stands [`validate`], which judges the
//! raw frame, because the library forgets what a strict server has to know (doubled properties, absent or zero,
//! reserved bits). Nothing here allocates for a packet before its length is known to be allowed and its bytes are
//! there.

mod decode;
mod encode;
mod library;
mod malformed;
mod property;
mod reader;
mod validate;
mod wire;

#[cfg(test)]
mod tests;

pub use decode::{Decoded, Decoder};
pub(crate) use encode::{PublishParts, encode_publish};
pub use encode::{TooLarge, encode};
pub use malformed::{Malformed, MalformedCause};
