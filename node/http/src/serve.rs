//! Servers: a listener, a router and the bounds between them and the world.
//!
//! HTTP/1.1 only. HTTP/2 would bring its own class of attacks (rapid reset, CONTINUATION floods) and nothing
//! that an AWS client, Prometheus or `curl` on a plain port would use.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::{limits::Limits, metrics as names};

mod patience;

use patience::Patience;

/// What AWS clients ask for on a port that also speaks MQTT (protocol.md 1.10), and plain HTTP.
const ALPN: [&[u8]; 2] = [b"x-amzn-http-ca", b"http/1.1"];
/// A fresh accept after one that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// hyper cannot do with a smaller buffer.
const BUFFER_BYTES_MIN: usize = 8192;

/// Who is at the other end of a connection. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it proved with its certificate, leaf first; empty without TLS or certificate.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Which server this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Our API.
    Api,
    /// The AWS data plane.
    Aws,
}

impl Role {
    const fn label(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Aws => "aws",
        }
    }
}

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The client authorities are not usable.
    #[error("client authorities: {0}")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key are not usable.
    #[error("server certificate: {0}")]
    Certificate(#[from] rustls::Error),
}

/// TLS for the AWS data plane: a client certificate of one of these authorities is required.
pub fn tls(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    authorities: RootCertStore,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// What a server offers, replaceable while it runs. Connections keep what they were opened with.
#[derive(Clone, Debug)]
pub struct TlsSwitch(Arc<ArcSwap<ServerConfig>>);

impl TlsSwitch {
    /// Offers `config` from the start.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }

    /// Offers `config` from the next handshake on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    slots: Arc<Semaphore>,
    slots_max: u32,
}

impl Server {
    /// Serves `router` on `listener` until [`Server::shutdown`].
    pub fn start(
        listener: TcpListener,
        router: Router,
        role: Role,
        tls: Option<TlsSwitch>,
        limits: &Limits,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let slots_max = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
        let slots = Arc::new(Semaphore::new(slots_max as usize));
        let door = Door {
            router,
            role,
            tls,
            limits: limits.clone(),
            stopped,
        };
        let accepting = tokio::spawn(accept(listener, Arc::new(door), Arc::clone(&slots)));
        Ok(Self {
            address,
            stop,
            accepting,
            slots,
            slots_max,
        })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets running requests end, and after `grace` leaves those that did not. Returns
    /// whether all ended.
    pub async fn shutdown(self, grace: Duration) -> bool {
        self.stop.send_replace(true);
        self.accepting.abort();
        timeout(grace, self.slots.acquire_many(self.slots_max))
            .await
            .is_ok()
    }
}

/// What a connection task needs.
struct Door {
    router: Router,
    role: Role,
    tls: Option<TlsSwitch>,
    limits: Limits,
    stopped: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, door: Arc<Door>, slots: Arc<Semaphore>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, listener = door.role.label(), "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            },
        };
        match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => {
                // Detached: the slot tells when it is over.
                drop(tokio::spawn(connection(
                    Arc::clone(&door),
                    stream,
                    address,
                    slot,
                )));
            },
            Err(_full) => refused(door.role, names::REASON_FULL),
        }
    }
}

async fn connection(
    door: Arc<Door>,
    stream: TcpStream,
    address: SocketAddr,
    _slot: OwnedSemaphorePermit,
) {
    let _open = names::Open::new(names::CONNECTIONS, door.role.label());
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let Some(tls) = &door.tls else {
        let peer = Peer {
            address,
            certificates: Arc::from([]),
        };
        return exchange(&door, stream, peer).await;
    };
    let acceptor = TlsAcceptor::from(tls.0.load_full());
    match timeout(door.limits.header_timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().cloned().collect();
            exchange(
                &door,
                stream,
                Peer {
                    address,
                    certificates,
                },
            )
            .await;
        },
        Ok(Err(error)) => {
            tracing::debug!(%error, %address, "TLS failed");
            refused(door.role, names::REASON_TLS);
        },
        Err(_elapsed) => refused(door.role, names::REASON_TLS),
    }
}

/// Requests and answers over one connection, until either side or the server has enough.
async fn exchange<S>(door: &Door, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = door.router.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        async move { Ok::<_, Infallible>(answer(router, request).await) }
    });
    let io = TokioIo::new(Patience::new(stream, door.limits.write_timeout));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(door.limits.header_timeout)
        .max_buf_size(door.limits.header_bytes_max.max(BUFFER_BYTES_MIN));
    let mut connection = Box::pin(builder.serve_connection(io, service));
    let stop = stop(door.stopped.clone());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended early");
        refused(door.role, names::REASON_PROTOCOL);
    }
}

/// Resolves when the server stops. A closed channel means that it is gone already.
async fn stop(mut stopped: watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

async fn answer(router: Router, request: Request<Incoming>) -> axum::response::Response {
    match router.oneshot(request.map(Body::new)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn refused(role: Role, reason: &'static str) {
    metrics::counter!(names::CONNECTIONS_REFUSED, "listener" => role.label(), "reason" => reason)
        .increment(1);
}
