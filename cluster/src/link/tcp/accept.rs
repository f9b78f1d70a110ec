//! The door for other nodes: TLS, the first words, and who is turned away.
//!
//! Until a peer has shown its certificate it may cost a socket, a place among the half-open, and five seconds.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::server::Acceptor;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tracing::{debug, error, warn};

use super::{
    super::{
        join,
        metrics::Refusal,
        tls::{self, ALPN_JOIN},
        vet::Introduction,
    },
    hello::{self, Hello, Lane, Reply, Versions, Welcome},
    lobby::Place,
    serve::Seat,
    shared::{Phase, Shared},
    socket::{self, Socket},
};

/// After the system could not accept (no files left, mostly).
const PAUSE: Duration = Duration::from_millis(100);

/// Why somebody is turned away.
struct Turned(Refusal, String);

/// Who is at the door.
enum Guest {
    Node(TlsStream<Socket>, Hello),
    Joiner(TlsStream<Socket>),
}

/// Lets others in until this node stops.
pub(super) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let mut phase = shared.phase();
    loop {
        let accepted = tokio::select! {
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => match shared.lobby.enter(address.ip()) {
                Some(place) => {
                    let admitted = admit(Arc::clone(&shared), stream, address, place);
                    drop(tokio::spawn(admitted));
                },
                None => shared.meters.refused(Refusal::Limit),
            },
            Err(error) => {
                error!(%error, "the link accepts nobody");
                sleep(PAUSE).await;
            },
        }
    }
}

async fn admit(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr, place: Place) {
    socket::prepare(&stream);
    let mut phase = shared.phase();
    let greeted = tokio::select! {
        _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        greeted = timeout(shared.handshake, Box::pin(greet(&shared, Socket::new(stream)))) => greeted,
    };
    let late = |_| Err(Turned(Refusal::Timeout, "no handshake in time".to_owned()));
    let guest = match greeted.unwrap_or_else(late) {
        Ok(guest) => guest,
        Err(Turned(refusal, why)) => {
            shared.meters.refused(refusal);
            shared.turned_away(refusal, address, why);
            return;
        },
    };
    match guest {
        Guest::Node(stream, hello) => {
            drop(place);
            if hello.lane == Lane::Control {
                return Box::pin(serve(&shared, stream, &hello, address)).await;
            }
            let runtime = shared.work.clone();
            drop(runtime.spawn(serve_elsewhere(shared, stream, hello, address)));
        },
        // It has shown nothing, so it keeps its place among the half-open.
        Guest::Joiner(stream) => match shared.joins.get() {
            Some(joins) => Box::pin(join::serve(joins, stream, address)).await,
            None => shared.meters.refused(Refusal::Rubbish),
        },
    }
}

/// TLS and the hello; all that can be wrong with them.
async fn greet(shared: &Shared, stream: Socket) -> Result<Guest, Turned> {
    let tls_failed = |error: io::Error| Turned(Refusal::Tls, error.to_string());
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream)
        .await
        .map_err(tls_failed)?;
    let joins = start
        .client_hello()
        .alpn()
        .is_some_and(|mut offered| offered.any(|protocol| protocol == ALPN_JOIN));
    if joins {
        let stream = start.into_stream(Arc::clone(&shared.sides.join)).await;
        return stream.map(Guest::Joiner).map_err(tls_failed);
    }
    let mut stream = start
        .into_stream(Arc::clone(&shared.sides.server))
        .await
        .map_err(tls_failed)?;
    let rubbish = |what: String| Turned(Refusal::Rubbish, what);
    let packet = hello::read(&mut stream)
        .await
        .map_err(|error| rubbish(error.to_string()))?
        .ok_or_else(|| rubbish("it does not speak the link".to_owned()))?;
    let checked = match Versions::peek(&packet).map(|theirs| shared.versions.common(theirs)) {
        Some(Some(_)) => match Hello::decode(packet) {
            Some(hello) => check(shared, &stream, &hello).map(|()| hello),
            None => Err(rubbish("its hello is not understood".to_owned())),
        },
        Some(None) => Err(Turned(
            Refusal::Version,
            format!(
                "this node speaks versions {} to {} of the link, and none of the other's",
                shared.versions.min, shared.versions.max
            ),
        )),
        None => Err(rubbish("its hello is too short".to_owned())),
    };
    match checked {
        Ok(hello) => Ok(Guest::Node(stream, hello)),
        Err(turned) => {
            let reply = Reply::Refused {
                why: turned.1.clone(),
                is_removed: turned.0 == Refusal::Removed,
            };
            // Whether it hears why is not our concern.
            drop(hello::write(&mut stream, &reply.encode()).await);
            drop(stream.shutdown().await);
            Err(turned)
        },
    }
}

/// Whether who speaks is who it says, and wants us.
fn check(shared: &Shared, stream: &TlsStream<Socket>, hello: &Hello) -> Result<(), Turned> {
    let identity = |why: String| Err(Turned(Refusal::Identity, why));
    if hello.cluster != shared.cluster_id {
        let why = format!(
            "it is of cluster {:?}, this one is {:?}",
            hello.cluster, shared.cluster_id
        );
        return Err(Turned(Refusal::Cluster, why));
    }
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    match tls::bearer(chain, &shared.cluster_id) {
        Err(error) => return identity(format!("the certificate: {error}")),
        Ok(node) if node != hello.from => {
            return identity(format!(
                "it says it is node {}, and its certificate that it is node {node}",
                hello.from
            ));
        },
        Ok(_) => {},
    }
    if hello.to != shared.me {
        return identity(format!(
            "it looks for node {}, this is node {}",
            hello.to, shared.me
        ));
    }
    if hello.from == shared.me {
        return identity("it has this node's own id".to_owned());
    }
    if shared.banned.read().contains(&hello.from) {
        let why = format!("node {} was removed from the cluster", hello.from);
        return Err(Turned(Refusal::Removed, why));
    }
    Ok(())
}

/// What devices and users wait for is not served where the groups beat: see [`super::config::TcpConfig::work`].
async fn serve_elsewhere(
    shared: Arc<Shared>,
    mut stream: TlsStream<Socket>,
    hello: Hello,
    address: SocketAddr,
) {
    match stream.get_mut().0.settle_here() {
        Ok(()) => Box::pin(serve(&shared, stream, &hello, address)).await,
        Err(error) => debug!(peer = %hello.from, %error, "a peer's connection cannot be moved"),
    }
}

/// Welcomes a node and serves it; one that has forgotten something is told so, and not served.
async fn serve(
    shared: &Arc<Shared>,
    mut stream: TlsStream<Socket>,
    hello: &Hello,
    address: SocketAddr,
) {
    let regressed = (shared.vet)(Introduction {
        node: hello.from,
        boot: hello.boot,
        nonce: hello.nonce,
    });
    let welcome = Welcome {
        version: shared.versions.common(hello.versions).unwrap_or_default(),
        boot: shared.boot,
        nonce: shared.nonce,
        window: u32::try_from(shared.limits.requests_max).unwrap_or(u32::MAX),
        regressed,
        software: shared.software.clone(),
    };
    let welcome = Reply::Welcome(welcome).encode();
    if regressed {
        drop(hello::write(&mut stream, &welcome).await);
        drop(stream.shutdown().await);
        shared.meters.refused(Refusal::Regressed);
        let why = format!("the disk of node {} has gone back in time", hello.from);
        shared.turned_away(Refusal::Regressed, address, why);
        return;
    }
    let seat = Seat::take(shared, hello.from, hello.lane).await;
    if shared.banned.read().contains(&hello.from) {
        return;
    }
    if hello::write(&mut stream, &welcome).await.is_err() {
        return;
    }
    shared.heard(hello.from, hello.boot);
    let end = seat.serve(stream, shared).await;
    debug!(peer = %hello.from, lane = hello.lane.name(), reason = %end, "a peer's connection is over");
}

impl Shared {
    /// Logs who was turned away: what only a holder of the cluster's certificates can cause is a warning, once for each
    /// reason in a row; the rest is the noise of a network.
    fn turned_away(&self, refusal: Refusal, address: SocketAddr, why: String) {
        match refusal {
            Refusal::Identity
            | Refusal::Cluster
            | Refusal::Version
            | Refusal::Removed
            | Refusal::Regressed => {
                let words = (address.ip(), why);
                let mut told = self.turned.lock();
                if told.as_ref() != Some(&words) {
                    warn!(%address, reason = words.1, "a node is turned away");
                    *told = Some(words);
                }
            },
            Refusal::Tls
            | Refusal::Rubbish
            | Refusal::Timeout
            | Refusal::Limit
            | Refusal::Turned => noise(address, &why),
        }
    }
}

fn noise(address: SocketAddr, why: &str) {
    debug!(%address, reason = why, "a connection to the link came to nothing");
}
