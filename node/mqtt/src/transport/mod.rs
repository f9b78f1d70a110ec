//! What lies between TCP and MQTT: PROXY headers, TLS, WebSocket.

pub(crate) mod proxy;
pub mod tls;
pub mod websocket;
