//! WebSocket, plain and over TLS.

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        http::{HeaderValue, Response},
    },
};

use super::{
    Running, Wire, run,
    tls::{Authority, dial},
};
use crate::{
    limits::Limits,
    peer::Transport,
    reason::ProtocolVersion,
    testing::{accepted, connect, eventually, publish},
    transport::{
        tls::{ClientCertificates, Inside},
        websocket::Origins,
    },
};

/// Asks for an upgrade with these headers.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<(WebSocketStream<S>, Response<Option<Vec<u8>>>), Error> {
    let url = format!("ws://localhost:8083{path}");
    let mut request = url.into_client_request().expect("a request");
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    client_async(request, stream).await
}

async fn stream(running: &Running) -> TcpStream {
    TcpStream::connect(running.address)
        .await
        .expect("it listens")
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

/// Reads binary messages until these bytes have come.
async fn expect<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    expected: &[u8],
) {
    let mut bytes = Vec::new();
    while bytes.len() < expected.len() {
        match socket.next().await.expect("open").expect("no error") {
            Message::Binary(part) => bytes.extend_from_slice(&part),
            Message::Pong(_) => {},
            other @ (Message::Text(_)
            | Message::Ping(_)
            | Message::Close(_)
            | Message::Frame(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn packets_may_be_cut_and_joined_by_messages() {
    let running = run(Wire::Ws(Origins::default()), false, Limits::default());
    let (mut socket, response) = upgrade(stream(&running).await, "/mqtt", &[MQTT])
        .await
        .expect("upgraded");
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    let mut bytes = connect(ProtocolVersion::V5, 0);
    bytes.extend(publish(ProtocolVersion::V5, 1, 300));
    bytes.extend(publish(ProtocolVersion::V5, 2, 0));
    for part in bytes.chunks(7) {
        socket
            .send(Message::binary(part.to_vec()))
            .await
            .expect("open");
        socket
            .send(Message::binary(Vec::new()))
            .await
            .expect("open");
    }
    socket.send(Message::Ping("x".into())).await.expect("open");
    expect(&mut socket, accepted(ProtocolVersion::V5)).await;
    expect(&mut socket, b"\x40\x02\0\x01\x40\x02\0\x02").await;
    running.gate.deliver(200_000);
    let mut delivered = 0;
    while delivered < 200_000 {
        if let Message::Binary(part) = socket.next().await.expect("open").expect("no error") {
            delivered += part.len();
        }
    }
    let peer = running.gate.change(|script| script.peers[0].clone());
    assert_eq!(peer.transport, Transport::Ws);
    socket.close(None).await.expect("open");
    eventually("closed", || running.gate.closed().len() == 1).await;
}

#[tokio::test]
async fn the_subprotocol_is_asked_for_and_answered() {
    let running = run(Wire::Ws(Origins::default()), false, Limits::default());
    let rows: [(&str, &str, Option<&str>); 5] = [
        ("/mqtt", "mqttv3.1", Some("mqttv3.1")),
        ("/", "chat, mqtt", Some("mqtt")),
        ("/ws?X-Amz-Algorithm=x", "mqttv3.1, mqtt", Some("mqtt")),
        ("/mqtt", "chat", None),
        ("/elsewhere", "mqtt", None),
    ];
    for (path, offered, chosen) in rows {
        let headers = [("sec-websocket-protocol", offered)];
        match (
            upgrade(stream(&running).await, path, &headers).await,
            chosen,
        ) {
            (Ok((_, response)), Some(chosen)) => {
                assert_eq!(response.headers()["sec-websocket-protocol"], chosen);
            },
            (Err(Error::Http(_)), None) => {},
            (result, _) => panic!("{path} {offered}: {:?}", result.map(|_| ())),
        }
    }
    assert!(upgrade(stream(&running).await, "/mqtt", &[]).await.is_err());
}

#[tokio::test]
async fn web_pages_need_to_be_allowed() {
    let run = |listed: &str| {
        let origins = Origins::new(vec![listed.to_owned()]);
        run(Wire::Ws(origins), false, Limits::default())
    };
    let (named, local) = (run("https://console.example"), run("localhost"));
    for (running, origin, is_allowed) in [
        (&named, "https://console.example", true),
        (&named, "http://localhost:8083", true),
        (&named, "http://localhost:9999", false),
        (&named, "https://evil.example", false),
        (&named, "null", false),
        (&local, "http://localhost:9999", true),
        (&local, "http://[::1]", true),
        (&local, "http://localhost.example:9999", false),
        (&local, "https://evil.example", false),
    ] {
        let headers = [MQTT, ("origin", origin)];
        let result = upgrade(stream(running).await, "/mqtt", &headers).await;
        assert_eq!(result.is_ok(), is_allowed, "{origin}");
    }
}

#[tokio::test]
async fn text_and_oversize_messages_end_the_connection() {
    let limits = Limits {
        packet_bytes_max: 1_000,
        ..Limits::default()
    };
    let running = run(Wire::Ws(Origins::default()), false, limits);
    for (index, bad) in [Message::text("hello"), Message::binary(vec![0x30; 1_001])]
        .into_iter()
        .enumerate()
    {
        let (mut socket, _) = upgrade(stream(&running).await, "/mqtt", &[MQTT])
            .await
            .expect("upgraded");
        socket
            .send(Message::binary(connect(ProtocolVersion::V5, 0)))
            .await
            .expect("open");
        expect(&mut socket, accepted(ProtocolVersion::V5)).await;
        socket.send(bad).await.expect("open");
        while let Some(Ok(_)) = socket.next().await {}
        eventually("closed", || running.gate.closed().len() == index + 1).await;
    }
}

#[tokio::test]
async fn what_is_no_upgrade_is_answered_or_cut() {
    let limits = Limits {
        handshake_timeout: std::time::Duration::from_millis(300),
        ..Limits::default()
    };
    let running = run(Wire::Ws(Origins::default()), false, limits);
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"GET /",
        b"\x10\x0D\0\x04MQTT",
        b"",
    ] {
        let mut stream = stream(&running).await;
        stream.write_all(bytes).await.expect("open");
        let answer = crate::testing::rest(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
    assert_eq!(running.gate.change(|script| script.peers.len()), 0);
}

#[tokio::test]
async fn websocket_runs_over_tls_with_a_certificate() {
    let authority = Authority::new();
    let clients = ClientCertificates::Optional(std::sync::Arc::clone(&authority.roots));
    let handle = authority.handle(clients, Inside::WebSocket);
    let running = run(
        Wire::Wss(handle, Origins::default()),
        false,
        Limits::default(),
    );
    let connector = authority.client(Some("device-1"), &[b"http/1.1"]);
    let stream = dial(&running, &connector).await.expect("trusted");
    let upgraded = Box::pin(upgrade(stream, "/mqtt", &[MQTT])).await;
    let (mut socket, _) = upgraded.expect("upgraded");
    socket
        .send(Message::binary(connect(ProtocolVersion::V311, 0)))
        .await
        .expect("open");
    expect(&mut socket, accepted(ProtocolVersion::V311)).await;
    let peer = running.gate.change(|script| script.peers[0].clone());
    assert_eq!(peer.transport, Transport::Wss);
    assert!(peer.certificates.is_some());
}
