//! What a listener is to be.

use std::net::SocketAddr;

use crate::{
    peer::{ListenerId, Transport},
    transport::{tls::TlsHandle, websocket::Origins},
};

/// One listener, as the configuration wants it.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// Its name.
    pub id: ListenerId,
    /// Where it listens; port 0: any.
    pub bind: SocketAddr,
    /// What it speaks below MQTT.
    pub wire: Wire,
    /// Every connection starts with a PROXY protocol v2 header.
    pub proxy_protocol: bool,
}

/// What a listener speaks below MQTT.
#[derive(Clone, Debug)]
pub enum Wire {
    /// TCP.
    Tcp,
    /// TLS.
    Tls(TlsHandle),
    /// WebSocket.
    Ws(Origins),
    /// WebSocket over TLS.
    Wss(TlsHandle, Origins),
}

impl Wire {
    /// The transport of connections that come in here.
    pub const fn transport(&self) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp,
            Self::Tls(_) => Transport::Tls,
            Self::Ws(_) => Transport::Ws,
            Self::Wss(..) => Transport::Wss,
        }
    }
}
