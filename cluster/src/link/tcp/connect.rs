//! Making one connection to a peer: its addresses, TLS, and the first words.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::CertificateError;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    super::{metrics::Refusal, tls},
    hello::{self, Hello, Lane, Reply, Welcome},
    peer::Remote,
    shared::Shared,
    socket,
};

/// A resolver and a connection attempt take no longer; after a partition, this bounds how late its end is noticed.
const CONNECT: Duration = Duration::from_secs(1);

/// Why there is no connection.
pub(super) enum Failure {
    /// Nobody listens.
    Refused(String),
    /// Nobody answers, or the network says no.
    Unreachable(String),
    /// Somebody answers who should not, or not as agreed.
    Turned(Refusal, String),
}

pub(super) type Established = (TlsStream<TcpStream>, Welcome);

/// Makes one connection.
pub(super) async fn dial(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
) -> Result<Established, Failure> {
    let mut failure = Failure::Unreachable("it has no address".to_owned());
    for address in peer.addresses() {
        let found = match timeout(CONNECT, lookup_host(&address)).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => {
                failure = Failure::Unreachable(format!("{address}: {error}"));
                Vec::new()
            },
            Err(_) => {
                failure = Failure::Unreachable(format!("{address}: not resolved in time"));
                Vec::new()
            },
        };
        for socket in found {
            match timeout(CONNECT, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => return shake(shared, peer, lane, stream, socket).await,
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    failure = Failure::Refused(format!("{socket}: {error}"));
                },
                Ok(Err(error)) => failure = Failure::Unreachable(format!("{socket}: {error}")),
                Err(_) => failure = Failure::Unreachable(format!("{socket}: no answer")),
            }
        }
    }
    Err(failure)
}

/// TLS and the first words, within the time they may take.
async fn shake(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
    stream: TcpStream,
    socket: SocketAddr,
) -> Result<Established, Failure> {
    socket::prepare(&stream);
    let shaken = timeout(
        shared.handshake,
        Box::pin(greet(shared, peer, lane, stream)),
    )
    .await;
    shaken.unwrap_or_else(|_| {
        let why = format!("{socket}: no handshake within {:?}", shared.handshake);
        Err(Failure::Unreachable(why))
    })
}

async fn greet(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
    stream: TcpStream,
) -> Result<Established, Failure> {
    let name = tls::wanted(&shared.cluster_id, peer.node)
        .ok_or_else(|| Failure::Unreachable("its name is no DNS name".to_owned()))?;
    let connector = TlsConnector::from(Arc::clone(&shared.sides.client));
    let mut stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| mistrusted(&error))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    match tls::bearer(chain, &shared.cluster_id) {
        Ok(node) if node == peer.node => {},
        Ok(node) => {
            return Err(Failure::Turned(
                Refusal::Identity,
                format!("it is node {node}"),
            ));
        },
        Err(error) => return Err(Failure::Turned(Refusal::Identity, error.to_string())),
    }
    let hello = Hello {
        versions: shared.versions,
        cluster: shared.cluster_id.clone(),
        from: shared.me,
        to: peer.node,
        boot: shared.boot,
        nonce: shared.nonce,
        lane,
        software: shared.software.clone(),
    };
    let rubbish = || Failure::Turned(Refusal::Rubbish, "it does not speak the link".to_owned());
    hello::write(&mut stream, &hello.encode())
        .await
        .map_err(|error| mistrusted(&error))?;
    let reply = hello::read(&mut stream).await;
    let reply = reply.map_err(|error| mistrusted(&error))?;
    let reply = reply.and_then(Reply::decode).ok_or_else(rubbish)?;
    match reply {
        Reply::Welcome(welcome) => {
            let spoken = shared.versions.min..=shared.versions.max;
            if !spoken.contains(&welcome.version) {
                return Err(rubbish());
            }
            shared.told(peer.node, welcome.regressed);
            Ok((stream, welcome))
        },
        Reply::Refused(why) => Err(Failure::Turned(Refusal::Turned, why)),
    }
}

/// What an error of a TLS handshake means.
fn mistrusted(error: &io::Error) -> Failure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let refusal = match tls {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => Refusal::Identity,
        Some(_) => Refusal::Tls,
        None => return Failure::Unreachable(error.to_string()),
    };
    Failure::Turned(refusal, error.to_string())
}
