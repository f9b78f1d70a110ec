//! The MQTT edge: sockets to packets, packets to the broker, and back.
//!
//! * [`packet`], [`reason`], [`close`]: what is said, independent of version.
//! * [`codec`]: bytes to packets and back, strictly.
//! * [`outgoing`]: what one connection is about to write.
//! * [`authenticate`]: who a client is.
//! * [`session`]: one connection's half of the protocol.
//! * [`broker`]: sessions, subscriptions, retained messages, and the way of a message between them.

pub mod authenticate;
pub mod broker;
pub mod close;
pub mod codec;
pub mod outgoing;
pub mod packet;
pub mod peer;
pub mod reason;
pub mod session;
