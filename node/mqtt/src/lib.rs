//! The MQTT edge: sockets to packets, packets to the broker, and back.
//!
//! * [`packet`], [`reason`], [`close`]: what is said, independent of version.
//! * [`codec`]: bytes to packets and back, strictly.
//! * [`outgoing`]: what one connection is about to write.

pub mod close;
pub mod codec;
pub mod outgoing;
pub mod packet;
pub mod peer;
pub mod reason;
