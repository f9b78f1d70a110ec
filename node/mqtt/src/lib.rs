//! The MQTT edge: sockets to packets, packets to the broker, and back.
//!
//! * [`packet`], [`reason`], [`close`]: what is said, independent of version.
//! * [`codec`]: bytes to packets and back, strictly.
//! * [`listener`], [`transport`]: sockets to streams of bytes.
//! * `connection`: one task per connection, driving a [`driver::SessionDriver`] let in by a [`driver::Gate`]; [`gate`] is
//!   the one in front of the broker.
//! * [`outgoing`]: what one connection is about to write.
//! * [`authenticate`]: who a client is.
//! * [`session`]: one connection's half of the protocol.
//! * [`broker`]: sessions, subscriptions, retained messages, and the way of a message between them.

pub mod authenticate;
pub mod broker;
pub mod close;
pub mod codec;
mod connection;
pub mod driver;
pub mod edge;
pub mod gate;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod outgoing;
pub mod packet;
pub mod peer;
pub mod reason;
pub mod refusal;
pub mod session;
#[cfg(test)]
mod testing;
pub mod transport;
