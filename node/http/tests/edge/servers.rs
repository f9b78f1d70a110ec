//! Real sockets, with and without TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use umbel_core::{
    ids::{ClientId, DeviceId},
    policy::{Context, Policy},
};
use umbel_http::{
    Access, Caller, Identify, Limits, aws_router,
    port::BoxFuture,
    router,
    serve::{self, Role, Server, TlsSwitch},
};
use umbel_pki::{Authority, Bearer};

use crate::memory::{Memory, NOW};

const PATIENCE: Duration = Duration::from_secs(20);

async fn plain(limits: &Limits) -> (Server, watch::Sender<bool>, Arc<Memory>) {
    let memory = Memory::new();
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let router = router(Arc::<Memory>::clone(&memory), limits, stopped);
    let server = Server::start(listener, router, Role::Api, None, limits).expect("a server");
    (server, stop, memory)
}

/// Sends and reads until the server closes.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    drop(
        timeout(PATIENCE, stream.read_to_end(&mut bytes))
            .await
            .expect("an end in time"),
    );
    String::from_utf8_lossy(&bytes).into_owned()
}

const LIVEZ: &str = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn a_plain_server_answers_and_stops() {
    let (server, _stop, _memory) = plain(&Limits::default()).await;
    let address = server.local_addr();
    let answer = exchange(address, LIVEZ).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"),
        "{answer}"
    );
    assert!(server.shutdown(PATIENCE).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_waits_for_idle_and_streaming_connections_to_end() {
    let (server, stop, _memory) = plain(&Limits::default()).await;
    let address = server.local_addr();
    let mut idle = TcpStream::connect(address).await.expect("connected");
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.expect("an answer");
    let mut streaming = TcpStream::connect(address).await.expect("connected");
    streaming
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    streaming.read_exact(&mut first).await.expect("an answer");
    stop.send_replace(true);
    assert!(server.shutdown(PATIENCE).await);
    read_to_end(&mut idle).await;
    read_to_end(&mut streaming).await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let (server, _stop, _memory) = plain(&limits).await;
    let mut first = TcpStream::connect(server.local_addr())
        .await
        .expect("connected");
    first
        .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut status = [0; 15];
    first.read_exact(&mut status).await.expect("an answer");
    let mut second = TcpStream::connect(server.local_addr())
        .await
        .expect("connected");
    assert_eq!(read_to_end(&mut second).await, "");
    drop(first);
    // The place comes back once the server has seen the end of the first.
    loop {
        if exchange(server.local_addr(), LIVEZ).await.ends_with("ok") {
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_drips_its_headers_is_closed() {
    let limits = Limits {
        header_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let (server, _stop, _memory) = plain(&limits).await;
    for beginning in ["", "GET /li", "GET /livez HTTP/1.1\r\nx: "] {
        let answer = exchange(server.local_addr(), beginning).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_client_that_drips_its_body_gets_408() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let (server, _stop, _memory) = plain(&limits).await;
    let head = "PUT /api/v1/devices/a HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    let answer = exchange(server.local_addr(), head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn headers_beyond_the_bound_are_431() {
    let (server, _stop, _memory) = plain(&Limits::default()).await;
    let request = format!(
        "GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    let answer = exchange(server.local_addr(), &request).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let limits = Limits {
        write_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (server, _stop, memory) = plain(&limits).await;
    for number in 0..200 {
        let long = format!(r#"{{"attributes":{{"a":"{}"}}}}"#, "x".repeat(700));
        memory.add_device(&format!("device-{number}"), &long);
    }
    let mut stream = TcpStream::connect(server.local_addr())
        .await
        .expect("connected");
    let request = b"GET /api/v1/devices?limit=1000 HTTP/1.1\r\nhost: x\r\n\r\n";
    let closed = async {
        // Pipelines requests without reading until the server has had enough.
        loop {
            if stream.write_all(request).await.is_err() {
                return;
            }
        }
    };
    timeout(PATIENCE, closed).await.expect("closed in time");
}

#[tokio::test]
async fn two_lengths_are_not_a_request() {
    let (server, _stop, _memory) = plain(&Limits::default()).await;
    let request =
        "POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    let answer = exchange(server.local_addr(), request).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

struct ByName;

impl Identify for ByName {
    fn identify<'a>(
        &'a self,
        certificates: &'a [CertificateDer<'static>],
    ) -> BoxFuture<'a, Option<Caller>> {
        let leaf = certificates.first().and_then(|leaf| Bearer::of(leaf).ok());
        Box::pin(async move {
            let client = ClientId::parse(&leaf?.common_name).ok()?;
            let mut context = Context::new(client.clone());
            context.thing = client.as_device();
            let policy = Policy::device_default().compile(&context);
            Some(Caller {
                principal: client.as_str().to_owned(),
                policy,
            })
        })
    }
}

struct Tls {
    server: Server,
    roots: RootCertStore,
    authority: Authority,
    folder: tempfile::TempDir,
}

async fn secured() -> Tls {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::create(folder.path(), "test", NOW).expect("an authority");
    let issued = authority
        .issue_server(&["localhost".to_owned()], NOW)
        .expect("a certificate");
    let (certificate, key) = issued.write(folder.path(), "server").expect("written");
    let mut roots = RootCertStore::empty();
    for root in umbel_pki::load_certificates(&folder.path().join("ca.pem")).expect("the root") {
        roots.add(root).expect("a root");
    }
    let config = serve::tls(
        umbel_pki::load_certificates(&certificate).expect("a chain"),
        umbel_pki::load_key(&key).expect("a key"),
        roots.clone(),
    );
    let limits = Limits {
        header_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let router = aws_router(
        Memory::new(),
        Access::Certificates(Arc::new(ByName)),
        &limits,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let tls = Some(TlsSwitch::new(config.expect("a configuration")));
    let server = Server::start(listener, router, Role::Aws, tls, &limits).expect("a server");
    Tls {
        server,
        roots,
        authority,
        folder,
    }
}

impl Tls {
    fn client(&self, device: Option<&str>, alpn: &[&[u8]]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match device {
            None => builder.with_no_client_auth(),
            Some(device) => {
                let id = DeviceId::parse(device).expect("an id");
                let issued = self
                    .authority
                    .issue_device(&id, NOW)
                    .expect("a certificate");
                let (certificate, key) = issued.write(self.folder.path(), device).expect("written");
                let chain = umbel_pki::load_certificates(&certificate).expect("a chain");
                let key = umbel_pki::load_key(&key).expect("a key");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("a client certificate")
            },
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    async fn connect(
        &self,
        config: ClientConfig,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.server.local_addr()).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    read_to_end(stream).await
}

#[tokio::test]
async fn a_client_certificate_speaks_for_its_device() {
    let tls = secured().await;
    let config = tls.client(Some("thing-1"), &[b"x-amzn-http-ca"]);
    let mut stream = tls.connect(config).await.expect("a handshake");
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(&b"x-amzn-http-ca"[..])
    );
    let own = get(&mut stream, "/things/thing-1/shadow").await;
    assert!(own.starts_with("HTTP/1.1 404"), "{own}");
    let config = tls.client(Some("thing-1"), &[]);
    let mut stream = tls.connect(config).await.expect("a handshake");
    let other = get(&mut stream, "/things/thing-2/shadow").await;
    assert!(
        other.starts_with("HTTP/1.1 403") && other.contains("ForbiddenException"),
        "{other}"
    );
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate() {
    let tls = secured().await;
    // With TLS 1.3 the client learns of it with the first read.
    if let Ok(mut stream) = tls.connect(tls.client(None, &[])).await {
        drop(stream.write_all(LIVEZ.as_bytes()).await);
        assert_eq!(read_to_end(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_closed() {
    let tls = secured().await;
    let mut stream = TcpStream::connect(tls.server.local_addr())
        .await
        .expect("connected");
    assert_eq!(read_to_end(&mut stream).await, "");
}
