//! One supervised actor per device; order per device; bounded work.
//!
//! Deliberately absent: sockets, MQTT packets, HTTP, openraft.

pub mod ports;
