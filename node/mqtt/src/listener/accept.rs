//! One accept loop, and the way of an accepted socket to its connection.

use std::{
    fmt,
    fs::File,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    config::{ListenerConfig, Wire},
    half_open::Admitted,
};
use crate::{
    connection::{Connection, Serve, Stream, open},
    driver::Gate,
    edge::Edge,
    peer::{ListenerId, Peer, Transport},
    refusal::Refusal,
    transport::{
        proxy::{self, Header},
        tls::{self, HandshakeError, TlsHandle},
        websocket::{self, Origins, UpgradeError, WebSocketBytes},
    },
};

/// First pause after accept failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause after accept failed.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Stands for clients whose address was not looked at.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const TOO_MANY: &str = "too many without a connect";

/// An accept loop.
pub(super) struct Loop<G> {
    pub(super) config: ListenerConfig,
    pub(super) edge: Arc<Edge<G>>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// A socket on its way to its connection.
struct Arrival<G> {
    listener: ListenerId,
    transport: Transport,
    address: SocketAddr,
    edge: Arc<Edge<G>>,
    admitted: Admitted,
    opening: Opening<G>,
}

/// Counted as opening until dropped.
struct Opening<G> {
    edge: Arc<Edge<G>>,
    transport: Transport,
}

impl<G> Opening<G> {
    fn new(edge: Arc<Edge<G>>, transport: Transport) -> Self {
        if let Some(gauge) = edge.counters.connections(transport, false) {
            gauge.increment(1.0);
        }
        Self { edge, transport }
    }
}

impl<G> Drop for Opening<G> {
    fn drop(&mut self) {
        if let Some(gauge) = self.edge.counters.connections(self.transport, false) {
            gauge.decrement(1.0);
        }
    }
}

impl<G: Gate> Loop<G> {
    /// Accepts until stopped.
    pub(super) async fn run(self, listener: TcpListener) {
        let mut reserve = Reserve::new();
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    pause = PAUSE_MIN;
                    self.admit(stream, address);
                },
                Err(error) => {
                    if is_of_the_peer(&error) {
                        continue;
                    }
                    if is_exhausted(&error) {
                        self.edge.counters.accept_exhausted.increment(1);
                        for _ in 0..reserve.refuse_some(&listener) {
                            self.edge.refuse(Refusal::NoFiles, NOBODY, &error);
                        }
                    } else {
                        tracing::warn!(%error, listener = %self.config.id, "accept failed");
                    }
                    // The error stays until files are free again: without a pause this would spin.
                    tokio::select! {
                        () = self.stop.cancelled() => return,
                        () = sleep(pause) => {},
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                },
            }
        }
    }

    fn admit(&self, stream: TcpStream, address: SocketAddr) {
        let edge = &self.edge;
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Ok(permit) = Arc::clone(&edge.connections).try_acquire_owned() else {
            edge.refuse(
                Refusal::ConnectionLimit,
                address.ip(),
                &edge.limits.connections_max,
            );
            return;
        };
        // A balancer speaks for many; whom it speaks for is known when its header has been read.
        let source = (!self.config.proxy_protocol).then(|| address.ip());
        let Some(admitted) = edge.half_open.admit(source, edge.now()) else {
            edge.refuse(Refusal::HalfOpenLimit, address.ip(), &TOO_MANY);
            return;
        };
        // Acknowledgements are small and waited for. A socket that is gone already says so when it is read.
        let _is_set = stream.set_nodelay(true);
        let transport = self.config.wire.transport();
        let arrival = Arrival {
            listener: self.config.id.clone(),
            transport,
            address,
            edge: Arc::clone(edge),
            admitted,
            opening: Opening::new(Arc::clone(edge), transport),
        };
        self.start(stream, arrival, permit);
    }

    fn start(&self, stream: TcpStream, arrival: Arrival<G>, permit: OwnedSemaphorePermit) {
        let is_proxied = self.config.proxy_protocol;
        match self.config.wire.clone() {
            Wire::Tcp => self.spawn(permit, async move {
                let (stream, arrival) = arrival.proxied(stream, is_proxied).await?;
                arrival.open(stream, None).await
            }),
            Wire::Tls(handle) => self.spawn(permit, async move {
                let (stream, arrival) = arrival.proxied(stream, is_proxied).await?;
                let (stream, arrival) = arrival.secured(stream, &handle).await?;
                let certificates = certificates_of(&stream);
                arrival.open(stream, certificates).await
            }),
            Wire::Ws(origins) => self.spawn(permit, async move {
                let (stream, arrival) = arrival.proxied(stream, is_proxied).await?;
                let (stream, arrival) = arrival.upgraded(stream, &origins).await?;
                arrival.open(stream, None).await
            }),
            Wire::Wss(handle, origins) => self.spawn(permit, async move {
                let (stream, arrival) = arrival.proxied(stream, is_proxied).await?;
                let (stream, arrival) = arrival.secured(stream, &handle).await?;
                let certificates = certificates_of(&stream);
                let (stream, arrival) = arrival.upgraded(stream, &origins).await?;
                arrival.open(stream, certificates).await
            }),
        }
    }

    /// Gives the connection its task. The permit of the connection limit goes with it.
    fn spawn<S: Stream>(
        &self,
        permit: OwnedSemaphorePermit,
        opening: impl Future<Output = Option<Connection<S, G>>> + Send + 'static,
    ) {
        self.tasks.spawn(Serve::new(Box::pin(opening), permit));
    }
}

type Step<S, G> = Option<(S, Arrival<G>)>;

impl<G: Gate> Arrival<G> {
    /// Learns from a balancer's header who really connects.
    async fn proxied(mut self, mut stream: TcpStream, is_proxied: bool) -> Step<TcpStream, G> {
        if !is_proxied {
            return Some((stream, self));
        }
        let limit = self.edge.limits.handshake_timeout;
        let header = self
            .unless_evicted(Box::pin(timeout(limit, proxy::read_header(&mut stream))))
            .await?;
        match header {
            Ok(Ok(Header::Proxied(address))) => {
                self.address = address;
                if self
                    .admitted
                    .move_to(address.ip(), self.edge.now())
                    .is_none()
                {
                    return self.refused(Refusal::HalfOpenLimit, &TOO_MANY);
                }
            },
            Ok(Ok(Header::Local)) => {},
            Ok(Err(error)) => return self.refused(Refusal::ProxyHeader, &error),
            Err(elapsed) => return self.refused(Refusal::Timeout, &elapsed),
        }
        Some((stream, self))
    }

    async fn secured<S: Stream>(mut self, stream: S, handle: &TlsHandle) -> Step<TlsStream<S>, G> {
        let edge = Arc::clone(&self.edge);
        let handshake = Box::pin(tls::accept(stream, handle, &edge.handshakes, &edge.limits));
        match self.unless_evicted(handshake).await? {
            Ok(stream) => {
                self.admitted.renew(edge.now());
                Some((stream, self))
            },
            Err(error @ HandshakeError::Timeout) => self.refused(Refusal::Timeout, &error),
            Err(error) => self.refused(Refusal::TlsHandshake, &error),
        }
    }

    async fn upgraded<S: Stream>(
        mut self,
        stream: S,
        origins: &Origins,
    ) -> Step<WebSocketBytes<S>, G> {
        let edge = Arc::clone(&self.edge);
        let handshake = Box::pin(websocket::accept(stream, origins, &edge.limits));
        match self.unless_evicted(handshake).await? {
            Ok(stream) => Some((stream, self)),
            Err(error @ UpgradeError::Timeout) => self.refused(Refusal::Timeout, &error),
            Err(error) => self.refused(Refusal::WebSocketHandshake, &error),
        }
    }

    async fn open<S: Stream>(
        self,
        stream: S,
        certificates: Option<Arc<[CertificateDer<'static>]>>,
    ) -> Option<Connection<S, G>> {
        let Self {
            listener,
            transport,
            address,
            edge,
            admitted,
            opening,
        } = self;
        let peer = Peer {
            address,
            listener,
            transport,
            certificates,
        };
        let connection = open(stream, peer, edge, admitted).await;
        drop(opening);
        connection
    }

    /// Runs a step of the way in, unless the place is needed by another meanwhile.
    async fn unless_evicted<T>(&mut self, step: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = step => return Some(done),
            _ = &mut self.admitted.evicted => {},
        }
        self.refused(Refusal::HalfOpenEvicted, &"within a handshake")
    }

    fn refused<T>(&self, refusal: Refusal, detail: &dyn fmt::Display) -> Option<T> {
        self.edge.refuse(refusal, self.address.ip(), detail);
        None
    }
}

fn certificates_of<S>(stream: &TlsStream<S>) -> Option<Arc<[CertificateDer<'static>]>> {
    stream.get_ref().1.peer_certificates().map(Arc::from)
}

/// A file kept for the moment when there is none left: closing it makes room to take connections from the queue and
/// close them, so that clients are told and the queue does not stand still.
struct Reserve(Option<File>);

impl Reserve {
    /// Most connections refused before the next pause.
    const REFUSED_MAX: usize = 32;

    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// Refuses some of those who wait and says how many.
    fn refuse_some(&mut self, listener: &TcpListener) -> usize {
        self.0 = None;
        let mut cx = Context::from_waker(Waker::noop());
        let accepted = std::iter::from_fn(|| match listener.poll_accept(&mut cx) {
            Poll::Ready(Ok((stream, _))) => {
                drop(stream);
                Some(())
            },
            Poll::Ready(Err(_)) | Poll::Pending => None,
        });
        let refused = accepted.take(Self::REFUSED_MAX).count();
        *self = Self::new();
        refused
    }
}

/// The process or the system has no file or memory left for a connection.
fn is_exhausted(error: &io::Error) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM
    matches!(error.raw_os_error(), Some(24 | 23 | 105 | 12))
}

/// The connection ended before it was accepted; the next one may be fine.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
