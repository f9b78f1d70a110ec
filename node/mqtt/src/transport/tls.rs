//! TLS: what a listener offers, and how one handshake is bounded.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{Acceptor, WebPkiClientVerifier},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::limits::Limits;

/// Names by which MQTT is asked for in a handshake: AWS's clients on port 443, and everybody else.
const ALPN_MQTT: [&[u8]; 2] = [b"x-amzn-mqtt-ca", b"mqtt"];
/// And by which the HTTP below WebSocket is.
const ALPN_HTTP: [&[u8]; 1] = [b"http/1.1"];

/// Which certificates clients have to show.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    /// None is asked for.
    None,
    /// One may be shown, and has to be good if it is.
    Optional(Arc<RootCertStore>),
    /// One has to be shown.
    Required(Arc<RootCertStore>),
}

/// What runs inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// MQTT itself.
    Mqtt,
    /// HTTP that becomes WebSocket.
    WebSocket,
}

/// Why a TLS configuration is unusable.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// Certificate and key do not fit, or are not supported.
    #[error("certificate or key is not usable")]
    Certificate(#[source] rustls::Error),
    /// The authorities for client certificates are not usable.
    #[error("client certificate authorities are not usable")]
    ClientAuthorities(#[source] rustls::server::VerifierBuilderError),
    /// No ticket keys could be made.
    #[error("session ticket keys could not be made")]
    Tickets(#[source] rustls::Error),
}

/// Builds what a listener offers: TLS 1.3 and the authenticated ciphers of 1.2, sessions that resume, ring.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: ClientCertificates,
    inside: Inside,
) -> Result<Arc<ServerConfig>, TlsConfigError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::Certificate)?;
    let verifier = |roots| WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = match clients {
        ClientCertificates::None => builder.with_no_client_auth(),
        ClientCertificates::Optional(roots) => {
            let verifier = verifier(roots).allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(TlsConfigError::ClientAuthorities)?)
        },
        ClientCertificates::Required(roots) => {
            let verifier = verifier(roots).build();
            builder.with_client_cert_verifier(verifier.map_err(TlsConfigError::ClientAuthorities)?)
        },
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(TlsConfigError::Certificate)?;
    let names: &[&[u8]] = match inside {
        Inside::Mqtt => &ALPN_MQTT,
        Inside::WebSocket => &ALPN_HTTP,
    };
    config.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
    // Tickets make a reconnecting fleet cost a third; one is enough, as a connection lives long.
    config.ticketer = ring::Ticketer::new().map_err(TlsConfigError::Tickets)?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// What a listener offers, replaceable while it runs. Connections keep what they were opened with.
#[derive(Clone)]
pub struct TlsHandle(Arc<ArcSwap<ServerConfig>>);

impl TlsHandle {
    /// Offers `config` from the start.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    /// Offers `config` from the next handshake on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }
}

impl fmt::Debug for TlsHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsHandle")
    }
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("tls handshake failed: {0}")]
    Tls(std::io::Error),
    #[error("tls handshake took too long")]
    Timeout,
    #[error("stopping")]
    Stopping,
}

/// Runs one handshake.
///
/// Reading the client's first message costs nothing and holds nothing. What follows computes, so it takes one of the
/// permits; a client that lets us wait keeps its permit for `handshake_hold` only, then goes on without one.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    handle: &TlsHandle,
    permits: &Semaphore,
    limits: &Limits,
) -> Result<TlsStream<S>, HandshakeError> {
    let handshake = async {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
            .await
            .map_err(HandshakeError::Tls)?;
        // An error means that the semaphore is closed.
        let permit = permits
            .acquire()
            .await
            .ok()
            .ok_or(HandshakeError::Stopping)?;
        let mut finish = std::pin::pin!(start.into_stream(handle.0.load_full()));
        let first = timeout(limits.handshake_hold, finish.as_mut()).await;
        drop(permit);
        match first {
            Ok(done) => done.map_err(HandshakeError::Tls),
            Err(_) => finish.await.map_err(HandshakeError::Tls),
        }
    };
    timeout(limits.handshake_timeout, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}
