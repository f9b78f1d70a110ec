//! TLS: certificates, tickets, names, patience, reload.

use std::{sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Running, Wire, run};
use crate::{
    limits::Limits,
    peer::Transport,
    reason::ProtocolVersion,
    testing::{expect, greet, publish, rest},
    transport::tls::{ClientCertificates, Inside, TlsHandle, server_config},
};

pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) roots: Arc<RootCertStore>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("an authority");
        Self {
            issuer: Issuer::new(params, key),
            roots: Arc::new(roots),
        }
    }

    fn issue(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (vec![certificate.der().clone()], key)
    }

    pub(super) fn handle(&self, clients: ClientCertificates, inside: Inside) -> TlsHandle {
        let (chain, key) = self.issue("localhost");
        TlsHandle::new(server_config(chain, key, clients, inside).expect("usable"))
    }

    pub(super) fn client(&self, name: Option<&str>, alpn: &[&[u8]]) -> TlsConnector {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match name {
            Some(name) => {
                let (chain, key) = self.issue(name);
                builder.with_client_auth_cert(chain, key).expect("usable")
            },
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

pub(super) async fn dial(
    running: &Running,
    connector: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(running.address)
        .await
        .expect("it listens");
    let name = ServerName::try_from("localhost").expect("a name");
    connector.connect(name, stream).await
}

/// A connection that asks for something and gets an answer.
async fn works(stream: &mut TlsStream<TcpStream>) {
    greet(stream, ProtocolVersion::V5, 0).await;
    stream
        .write_all(&publish(ProtocolVersion::V5, 1, 200_000))
        .await
        .expect("open");
    expect(stream, &[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn a_required_certificate_reaches_the_gate_also_when_the_session_resumes() {
    let authority = Authority::new();
    let clients = ClientCertificates::Required(Arc::clone(&authority.roots));
    let wire = Wire::Tls(authority.handle(clients, Inside::Mqtt));
    let running = run(wire, false, Limits::default());
    let connector = authority.client(Some("device-1"), &[]);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut stream = dial(&running, &connector).await.expect("trusted");
        works(&mut stream).await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        let peer = running
            .gate
            .change(|script| script.peers.pop())
            .expect("let in");
        assert_eq!(peer.transport, Transport::Tls);
        assert_eq!(peer.certificates.expect("shown").len(), 1);
    }
}

#[tokio::test]
async fn without_or_with_a_foreign_certificate_nobody_comes_in() {
    let authority = Authority::new();
    let clients = ClientCertificates::Required(Arc::clone(&authority.roots));
    let wire = Wire::Tls(authority.handle(clients, Inside::Mqtt));
    let running = run(wire, false, Limits::default());
    let foreign = Authority::new().issue("device-1");
    let foreign = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(Arc::clone(&authority.roots))
        .with_client_auth_cert(foreign.0, foreign.1)
        .expect("usable");
    for connector in [
        authority.client(None, &[]),
        TlsConnector::from(Arc::new(foreign)),
    ] {
        // In TLS 1.3 the client has finished before the server judges its certificate.
        if let Ok(mut stream) = dial(&running, &connector).await {
            drop(
                stream
                    .write_all(&crate::testing::connect(ProtocolVersion::V5, 0))
                    .await,
            );
            assert_eq!(rest(&mut stream).await, b"");
        }
    }
    assert_eq!(running.gate.change(|script| script.peers.len()), 0);
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing() {
    let authority = Authority::new();
    let clients = ClientCertificates::Optional(Arc::clone(&authority.roots));
    let wire = Wire::Tls(authority.handle(clients, Inside::Mqtt));
    let running = run(wire, false, Limits::default());
    for name in [None, Some("device-2")] {
        let mut stream = dial(&running, &authority.client(name, &[]))
            .await
            .expect("trusted");
        works(&mut stream).await;
        let peer = running
            .gate
            .change(|script| script.peers.pop())
            .expect("let in");
        assert_eq!(peer.certificates.is_some(), name.is_some());
    }
}

#[tokio::test]
async fn names_of_the_protocol_are_checked_if_sent() {
    let authority = Authority::new();
    let wire = Wire::Tls(authority.handle(ClientCertificates::None, Inside::Mqtt));
    let running = run(wire, false, Limits::default());
    for name in [&b"x-amzn-mqtt-ca"[..], b"mqtt"] {
        let connector = authority.client(None, &[b"h2", name]);
        let mut stream = dial(&running, &connector).await.expect("trusted");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(name));
        works(&mut stream).await;
    }
    assert!(
        dial(&running, &authority.client(None, &[b"h2"]))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_cut_and_plain_bytes_are_refused() {
    let authority = Authority::new();
    let wire = Wire::Tls(authority.handle(ClientCertificates::None, Inside::Mqtt));
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = run(wire, false, limits);
    let mut silent = TcpStream::connect(running.address)
        .await
        .expect("it listens");
    let mut plain = TcpStream::connect(running.address)
        .await
        .expect("it listens");
    plain
        .write_all(&crate::testing::connect(ProtocolVersion::V5, 0))
        .await
        .expect("open");
    assert_eq!(rest(&mut silent).await, b"");
    rest(&mut plain).await; // an alert, then the end
    assert_eq!(running.gate.change(|script| script.peers.len()), 0);
}

/// Half a handshake must not keep others from theirs: with one permit for all, it gives it back after a while.
#[tokio::test]
async fn a_permit_is_not_held_by_who_waits() {
    let authority = Authority::new();
    let wire = Wire::Tls(authority.handle(ClientCertificates::None, Inside::Mqtt));
    let limits = Limits {
        handshakes_max: 1,
        handshake_hold: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = run(wire, false, limits);
    let mut idle = Vec::new();
    for _ in 0..3 {
        let name = ServerName::try_from("localhost").expect("a name");
        let config = Arc::clone(authority.client(None, &[]).config());
        let mut hello = rustls::ClientConnection::new(config, name).expect("a client");
        let mut bytes = Vec::new();
        hello.write_tls(&mut bytes).expect("a hello");
        let mut stream = TcpStream::connect(running.address)
            .await
            .expect("it listens");
        stream.write_all(&bytes).await.expect("open");
        idle.push(stream);
    }
    assert_eq!(idle.len(), 3);
    let mut stream = dial(&running, &authority.client(None, &[]))
        .await
        .expect("trusted");
    works(&mut stream).await;
}

#[tokio::test]
async fn a_new_certificate_counts_from_the_next_handshake_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let handle = old.handle(ClientCertificates::None, Inside::Mqtt);
    let running = run(Wire::Tls(handle.clone()), false, Limits::default());
    let mut before = dial(&running, &old.client(None, &[]))
        .await
        .expect("trusted");
    works(&mut before).await;
    let (chain, key) = new.issue("localhost");
    let config = server_config(chain, key, ClientCertificates::None, Inside::Mqtt);
    handle.replace(config.expect("usable"));
    assert!(dial(&running, &old.client(None, &[])).await.is_err());
    let mut after = dial(&running, &new.client(None, &[]))
        .await
        .expect("trusted");
    works(&mut after).await;
    before.write_all(&[0xC0, 0]).await.expect("still open");
    expect(&mut before, &[0xD0, 0]).await;
}
