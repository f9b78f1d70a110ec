//! The MQTT edge.
