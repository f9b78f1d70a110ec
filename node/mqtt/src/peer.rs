//! Who is at the other end, as far as the network knows.

use std::{fmt, net::SocketAddr, sync::Arc};

use rustls::pki_types::CertificateDer;

/// The name a listener has in the configuration.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(Arc<str>);

impl ListenerId {
    /// Wraps a configured name.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What carries the bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
    /// WebSocket over TCP.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Transport {
    /// Every transport there is.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Tls, Self::Ws, Self::Wss];

    /// Label of this transport in metrics, and its name in the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether bytes are encrypted.
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

/// The other end of an accepted connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from: the client, not a proxy, if the listener trusts PROXY protocol.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: ListenerId,
    /// How.
    pub transport: Transport,
    /// The certificate chain it proved to own, leaf first.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}
