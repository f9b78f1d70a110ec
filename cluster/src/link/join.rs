//! The way in for who is not a node yet: one question and one answer, on the link's own port.
//!
//! The asker has no certificate and knows nothing of the cluster but the SHA-256 of its authority's certificate (it is part
//! of the token an operator hands over). With that it makes sure that it speaks to a node of that cluster before it says
//! anything. What is asked and granted is decided above.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::TLS13,
};
use thiserror::Error as ThisError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::{
    BoxFuture,
    tls::{self, ALPN_JOIN},
};

/// A token and a certificate request.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Certificates and the address book of a cluster.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A node that joins makes one request; it may have to wait for a commit.
const SERVE: Duration = Duration::from_secs(10);

/// Answers who wants to become a node. What it is asked was said by a stranger.
pub type Joins =
    Arc<dyn Fn(SocketAddr, Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// Why there is no answer.
#[derive(Debug, ThisError)]
pub enum JoinError {
    /// Nobody is there, or it was not in time.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        address: String,
        /// In words.
        why: String,
    },
    /// Somebody is there, and is not a node of that cluster. Nothing was said to it.
    #[error("{address} is not a node of the cluster of this token: {why}")]
    Mistrusted {
        /// Where.
        address: String,
        /// In words.
        why: String,
    },
    /// It said no.
    #[error("refused: {0}")]
    Refused(String),
}

/// Answers one question.
pub(super) async fn serve(
    joins: &Joins,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) {
    let served = timeout(SERVE, async {
        let question = read(&mut stream, REQUEST_BYTES_MAX).await?;
        let (granted, body) = match joins(address, question).await {
            Ok(body) => (1, body),
            Err(why) => (0, Bytes::from(why)),
        };
        stream.write_u8(granted).await?;
        write(&mut stream, &body).await?;
        stream.shutdown().await
    });
    match served.await {
        Ok(Ok(())) => {},
        Ok(Err(error)) => debug!(%address, %error, "who wanted to join went away"),
        Err(_) => debug!(%address, "who wanted to join took too long"),
    }
}

/// Asks a node at `host:port` of the cluster whose authority's certificate (DER) has this SHA-256.
pub async fn request(
    address: &str,
    ca_sha256: [u8; 32],
    body: Bytes,
    within: Duration,
) -> Result<Bytes, JoinError> {
    let asked = timeout(within, Box::pin(ask(address, ca_sha256, body))).await;
    asked.unwrap_or_else(|_| {
        Err(JoinError::Unreachable {
            address: address.to_owned(),
            why: format!("no answer within {within:?}"),
        })
    })
}

async fn ask(address: &str, ca_sha256: [u8; 32], body: Bytes) -> Result<Bytes, JoinError> {
    let unreachable = |why: &dyn fmt::Display| JoinError::Unreachable {
        address: address.to_owned(),
        why: why.to_string(),
    };
    let mistrusted = |why: &dyn fmt::Display| JoinError::Mistrusted {
        address: address.to_owned(),
        why: why.to_string(),
    };
    let config = pinned(ca_sha256).map_err(|error| mistrusted(&error))?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| unreachable(&error))?;
    // Which of the nodes answers does not matter, so any name does.
    let name = ServerName::try_from("join.umbel.internal").map_err(|error| unreachable(&error))?;
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let mut stream = connected.map_err(|error| match error.get_ref() {
        Some(inner) if inner.is::<Error>() => mistrusted(&error),
        _ => unreachable(&error),
    })?;
    let answered = async {
        write(&mut stream, &body).await?;
        let granted = stream.read_u8().await?;
        let body = read(&mut stream, ANSWER_BYTES_MAX).await?;
        Ok::<_, std::io::Error>((granted, body))
    };
    match answered.await.map_err(|error| unreachable(&error))? {
        (1, body) => Ok(body),
        (_, why) => Err(JoinError::Refused(
            String::from_utf8_lossy(&why).into_owned(),
        )),
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin), max: usize) -> std::io::Result<Bytes> {
    let length = from.read_u32_le().await?;
    let fits = usize::try_from(length).is_ok_and(|length| length <= max);
    if !fits {
        let long = format!("a message of {length} bytes is too long");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, long));
    }
    // Grows with what comes, not with what is claimed.
    let mut bytes = Vec::new();
    let read = from.take(length.into()).read_to_end(&mut bytes).await?;
    if u32::try_from(read) != Ok(length) {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.into())
}

async fn write(into: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    into.write_u32_le(length).await?;
    into.write_all(body).await?;
    into.flush().await
}

fn pinned(ca_sha256: [u8; 32]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned {
        ca_sha256,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Trusts the one authority whose certificate has this fingerprint and is shown in the chain; under it, nodes only.
#[derive(Debug)]
struct Pinned {
    ca_sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|shown| digest(&SHA256, shown).as_ref() == self.ca_sha256)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        if !tls::is_node(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
