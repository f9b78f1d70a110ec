//! Plain sockets: bounds, PROXY headers, draining.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{Running, Wire, run};
use crate::{
    limits::Limits,
    listener::{ListenerConfig, Listeners},
    peer::{ListenerId, Transport},
    reason::ProtocolVersion,
    testing::{TestGate, connect, eventually, expect, greet, publish, rest},
};

async fn client(running: &Running) -> TcpStream {
    TcpStream::connect(running.address)
        .await
        .expect("it listens")
}

#[tokio::test]
async fn a_client_is_served_and_its_address_known() {
    let running = run(Wire::Tcp, false, Limits::default());
    let mut stream = client(&running).await;
    greet(&mut stream, ProtocolVersion::V311, 60).await;
    stream
        .write_all(&publish(ProtocolVersion::V311, 5, 512))
        .await
        .expect("open");
    expect(&mut stream, &[0x40, 2, 0, 5]).await;
    let peer = running.gate.change(|script| script.peers[0].clone());
    assert_eq!(peer.address, stream.local_addr().expect("bound"));
    assert_eq!(
        (peer.listener.as_str(), peer.transport),
        ("test", Transport::Tcp)
    );
    drop(stream);
    eventually("closed", || running.gate.closed().len() == 1).await;
}

#[tokio::test]
async fn above_the_connection_limit_sockets_are_closed_at_once() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let running = run(Wire::Tcp, false, limits);
    let mut first = client(&running).await;
    greet(&mut first, ProtocolVersion::V5, 0).await;
    assert_eq!(rest(&mut client(&running).await).await, b"");
    first.write_all(&[0xE0, 0]).await.expect("open");
    assert_eq!(rest(&mut first).await, b"");
    // The place is free again once the connection's task has ended.
    loop {
        let mut next = client(&running).await;
        if next
            .write_all(&connect(ProtocolVersion::V5, 0))
            .await
            .is_ok()
            && rest_within(&mut next).await.starts_with(&[0x20])
        {
            break;
        }
    }
}

/// What comes within a moment.
async fn rest_within(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let read = tokio::io::AsyncReadExt::read(stream, &mut bytes);
    let count = timeout(Duration::from_secs(5), read)
        .await
        .expect("in time")
        .unwrap_or(0);
    bytes.truncate(count);
    bytes
}

#[tokio::test]
async fn half_open_connections_of_one_address_are_bounded() {
    let limits = Limits {
        half_open_per_address_max: 3,
        half_open_patience: Duration::from_millis(300),
        ..Limits::default()
    };
    let running = run(Wire::Tcp, false, limits);
    let mut dribblers = Vec::new();
    for _ in 0..3 {
        let mut stream = client(&running).await;
        stream.write_all(&[0x10]).await.expect("open");
        dribblers.push(stream);
    }
    let half_open = &running.listeners.edge.half_open;
    eventually("all are waiting", || half_open.len() == 3).await;
    assert_eq!(
        rest(&mut client(&running).await).await,
        b"",
        "no place, nobody idle for long"
    );
    // Only time makes them idle for long.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut honest = client(&running).await;
    greet(&mut honest, ProtocolVersion::V5, 0).await;
    assert_eq!(rest(&mut dribblers[0]).await, b"", "the oldest made room");
    eventually("two are left", || half_open.len() == 2).await;
}

#[tokio::test]
async fn a_proxy_header_tells_who_connects() {
    let running = run(Wire::Tcp, true, Limits::default());
    let mut stream = client(&running).await;
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C\xC0\0\x02\x07\x7F\0\0\x01\x30\x39\x07\x5B";
    // In one piece with CONNECT: not a byte of it may be lost.
    let bytes = [&header[..], &connect(ProtocolVersion::V311, 0)].concat();
    stream.write_all(&bytes).await.expect("open");
    expect(&mut stream, &[0x20, 2, 0, 0]).await;
    let peer = running.gate.change(|script| script.peers[0].clone());
    assert_eq!(peer.address.to_string(), "192.0.2.7:12345");

    let mut check = client(&running).await;
    check
        .write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")
        .await
        .expect("open");
    check.shutdown().await.expect("open");
    assert_eq!(rest(&mut check).await, b"", "a health check is no error");

    let mut bare = client(&running).await;
    bare.write_all(&connect(ProtocolVersion::V311, 0))
        .await
        .expect("open");
    assert_eq!(
        rest(&mut bare).await,
        b"",
        "without a header nobody comes in"
    );
    assert_eq!(running.gate.change(|script| script.peers.len()), 1);
}

#[tokio::test]
async fn a_proxy_header_has_to_come_in_time() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let running = run(Wire::Tcp, true, limits);
    let mut stream = client(&running).await;
    stream.write_all(b"\r\n\r\n").await.expect("open");
    assert_eq!(rest(&mut stream).await, b"");
}

#[tokio::test]
async fn a_drain_stops_accepting_and_says_goodbye_within_its_window() {
    let running = run(Wire::Tcp, false, Limits::default());
    let mut clients = Vec::new();
    for index in 0..20 {
        let version = if index % 2 == 0 {
            ProtocolVersion::V5
        } else {
            ProtocolVersion::V311
        };
        let mut stream = client(&running).await;
        greet(&mut stream, version, 0).await;
        clients.push((stream, version));
    }
    let mut half_open = client(&running).await;
    let readers: Vec<_> = clients
        .into_iter()
        .map(|(mut stream, version)| {
            tokio::spawn(async move { (rest(&mut stream).await, version) })
        })
        .collect();
    let start = Instant::now();
    let Running {
        listeners,
        gate,
        address,
    } = running;
    let drain = tokio::spawn(listeners.drain(Duration::from_secs(1), Duration::from_secs(20)));
    for reader in readers {
        let (bytes, version) = reader.await.expect("no panic");
        let expected: &[u8] = if version.is_v5() {
            &[0xE0, 2, 0x8B, 0]
        } else {
            b""
        };
        assert_eq!(bytes, expected);
    }
    assert_eq!(gate.closed().len(), 20);
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "spread over the window"
    );
    assert!(
        TcpStream::connect(address).await.is_err(),
        "nobody is accepted any more"
    );
    assert_eq!(
        rest(&mut half_open).await,
        b"",
        "who has not said hello goes, too"
    );
    drain.await.expect("no panic");
}

#[tokio::test]
async fn a_port_in_use_is_named_and_nothing_is_accepted() {
    let running = run(Wire::Tcp, false, Limits::default());
    let config = |bind| ListenerConfig {
        id: ListenerId::new("second"),
        bind,
        wire: Wire::Tcp,
        proxy_protocol: false,
    };
    let edge = TestGate::default().edge(Limits::default());
    let error = Listeners::start(vec![config(running.address)], &edge).expect_err("in use");
    assert_eq!(
        error.to_string(),
        format!("listener second cannot listen on {}", running.address)
    );
}

/// Limits of T1: a crowd that dribbles on sockets of one address, and an honest client of another.
#[tokio::test]
async fn a_crowd_of_dribblers_does_not_keep_an_honest_client_out() {
    let limits = Limits {
        half_open_per_address_max: 50,
        half_open_max: 100,
        ..Limits::default()
    };
    let running = run(Wire::Tcp, false, limits);
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut stream = client(&running).await;
        drop(stream.write_all(&[0x10]).await);
        crowd.push(stream);
    }
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.2:0".parse().expect("an address"))
        .expect("loopback");
    assert_eq!(crowd.len(), 200);
    let mut honest = socket.connect(running.address).await.expect("it listens");
    let start = Instant::now();
    greet(&mut honest, ProtocolVersion::V5, 0).await;
    assert!(start.elapsed() < Duration::from_secs(2));
}
