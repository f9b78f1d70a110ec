//! Making one connection to a peer: its addresses, TLS, and the first words.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::CertificateError;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    super::{metrics::Refusal, tls, vet::Introduction},
    hello::{self, Hello, Lane, Reply, Welcome},
    peer::Remote,
    shared::Shared,
    socket,
};

/// A connection attempt takes no longer; after a partition, this bounds how late its end is noticed.
const CONNECT: Duration = Duration::from_secs(1);
/// A resolver may have to ask a second server.
const RESOLVE: Duration = Duration::from_secs(3);

/// Why there is no connection. Of several addresses, the greatest reason is told: what somebody answered says more than
/// silence, and that nobody listens is said only if all say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody listens.
    Refused(String),
    /// Nobody answers, or the network says no.
    Unreachable(String),
    /// Somebody answers who should not, or not as agreed.
    Turned(Refusal, String),
}

impl Failure {
    fn rank(&self) -> u8 {
        match self {
            Self::Refused(_) => 0,
            Self::Unreachable(_) => 1,
            Self::Turned(..) => 2,
        }
    }

    /// Which of two is told.
    fn or(self, other: Self) -> Self {
        if other.rank() > self.rank() {
            other
        } else {
            self
        }
    }

    /// Says where.
    fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(format!("{place}: {why}")),
            Self::Unreachable(why) => Self::Unreachable(format!("{place}: {why}")),
            Self::Turned(refusal, why) => Self::Turned(refusal, format!("{place}: {why}")),
        }
    }
}

pub(super) type Established = (TlsStream<TcpStream>, Welcome);

/// Makes one connection: to the first address that leads to the peer.
pub(super) async fn dial(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
) -> Result<Established, Failure> {
    let mut told: Option<Failure> = None;
    for address in peer.addresses() {
        let failure = match resolve(&address).await {
            Ok(sockets) => match first(shared, peer, lane, sockets).await {
                Ok(established) => return Ok(established),
                Err(failure) => failure,
            },
            Err(failure) => failure.at(&address),
        };
        told = Some(match told {
            Some(told) => told.or(failure),
            None => failure,
        });
    }
    Err(told.unwrap_or_else(|| Failure::Unreachable("it has no address".to_owned())))
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, Failure> {
    match timeout(RESOLVE, lookup_host(address)).await {
        Ok(Ok(found)) => Ok(found.collect()),
        Ok(Err(error)) => Err(Failure::Unreachable(error.to_string())),
        Err(_) => Err(Failure::Unreachable("not resolved in time".to_owned())),
    }
}

/// The first socket of a name behind which the peer is.
async fn first(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
    sockets: Vec<SocketAddr>,
) -> Result<Established, Failure> {
    let mut told: Option<Failure> = None;
    for socket in sockets {
        let failure = match timeout(CONNECT, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => match shake(shared, peer, lane, stream).await {
                Ok(established) => return Ok(established),
                Err(failure) => failure,
            },
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Failure::Refused(error.to_string())
            },
            Ok(Err(error)) => Failure::Unreachable(error.to_string()),
            Err(_) => Failure::Unreachable("no answer".to_owned()),
        };
        let failure = failure.at(socket);
        told = Some(match told {
            Some(told) => told.or(failure),
            None => failure,
        });
    }
    Err(told.unwrap_or_else(|| Failure::Unreachable("the name has no address".to_owned())))
}

/// TLS and the first words, within the time they may take.
async fn shake(
    shared: &Shared,
    peer: &Remote,
    lane: Lane,
    stream: TcpStream,
) -> Result<Established, Failure> {
    socket::prepare(&stream);
    let greeted = Box::pin(greet(shared, peer, lane, stream));
    let shaken = timeout(shared.handshake, greeted).await;
    shaken.unwrap_or_else(|_| {
        let why = format!("no handshake within {:?}", shared.handshake);
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
            remembers(shared, peer, &welcome)?;
            Ok((stream, welcome))
        },
        Reply::Refused { why, is_removed } => {
            if is_removed {
                shared.told_removed(peer.node);
            }
            Err(Failure::Turned(Refusal::Turned, why))
        },
    }
}

/// Neither side may have met a later life of the other.
fn remembers(shared: &Shared, peer: &Remote, welcome: &Welcome) -> Result<(), Failure> {
    let regressed = |why: &str| Err(Failure::Turned(Refusal::Regressed, why.to_owned()));
    if welcome.regressed {
        shared.told_regressed(peer.node);
        return regressed("it has met a later life of this node");
    }
    let introduction = Introduction {
        node: peer.node,
        boot: welcome.boot,
        nonce: welcome.nonce,
    };
    if (shared.vet)(introduction) {
        return regressed("its disk has gone back in time");
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_listens_only_if_every_address_says_so() {
        let refused = || Failure::Refused("r".to_owned());
        let silent = || Failure::Unreachable("u".to_owned());
        let wrong = || Failure::Turned(Refusal::Identity, "w".to_owned());
        assert_eq!(refused().or(refused()), refused());
        assert_eq!(refused().or(silent()), silent());
        assert_eq!(silent().or(refused()), silent());
        assert_eq!(wrong().or(silent()), wrong());
        assert_eq!(silent().or(wrong()), wrong());
    }
}
