//! Bytes in any cut, writes in one piece, bounds that hold.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::TcpStream,
};

use super::{Serve, serve, served, served_with};
use crate::{
    gate::Door,
    limits::Limits,
    reason::ProtocolVersion,
    testing::{TestGate, TestSession, accepted, connect, eventually, expect, greet, publish, rest},
};

#[tokio::test(start_paused = true)]
async fn a_conversation_may_be_cut_at_any_byte() {
    let mut bytes = connect(ProtocolVersion::V5, 0);
    bytes.extend(publish(ProtocolVersion::V5, 1, 300));
    bytes.extend(publish(ProtocolVersion::V5, 2, 0));
    bytes.extend_from_slice(&[0xC0, 0]);
    let answers = [
        accepted(ProtocolVersion::V5),
        b"\x40\x02\0\x01",
        b"\x40\x02\0\x02",
        b"\xD0\0",
    ]
    .concat();
    for size in [1, 2, 3, 7, 64, 299] {
        let mut served = served();
        for part in bytes.chunks(size) {
            served.client.write_all(part).await.expect("open");
            tokio::task::yield_now().await;
        }
        expect(&mut served.client, &answers).await;
    }
}

/// Counts writes.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_one_turn_leave_in_one_write() {
    let gate = TestGate::default();
    let edge = gate.edge(Limits::default());
    let (mut client, stream) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let _task = serve(
        &edge,
        Counted {
            stream,
            writes: Arc::clone(&writes),
        },
    );
    greet(&mut client, ProtocolVersion::V311, 0).await;
    assert_eq!(writes.load(Ordering::Relaxed), 1);
    let (mut asked, mut answers) = (Vec::new(), Vec::new());
    for id in 1..=100_u16 {
        asked.extend(publish(ProtocolVersion::V311, id, 100));
        answers.extend_from_slice(&[0x40, 2, 0, u8::try_from(id).expect("small")]);
    }
    client.write_all(&asked).await.expect("open");
    expect(&mut client, &answers).await;
    assert_eq!(writes.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_client_does_not_delay_another() {
    const FLOOD: usize = 20_000;
    let gate = TestGate::default();
    let edge = gate.edge(Limits::default());
    let (mut loud, server) = tokio::io::duplex(1 << 20);
    let _loud_task = serve(&edge, server);
    let (mut calm, server) = tokio::io::duplex(1 << 20);
    let _calm_task = serve(&edge, server);
    greet(&mut loud, ProtocolVersion::V5, 0).await;
    greet(&mut calm, ProtocolVersion::V5, 0).await;
    // One thread serves both, and the calm client is a task like they are.
    loud.write_all(&publish(ProtocolVersion::V5, 1, 0).repeat(FLOOD))
        .await
        .expect("open");
    let watched = gate.clone();
    let calm = tokio::spawn(async move {
        calm.write_all(&[0xC0, 0]).await.expect("open");
        expect(&mut calm, &[0xD0, 0]).await;
        watched.packets()
    });
    let handled = calm.await.expect("no panic");
    assert!(handled < 1_000, "{handled} packets of the flood came first");
    expect(&mut loud, &b"\x40\x02\0\x01".repeat(FLOOD)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_while_the_client_does_not_read() {
    let mut served = served_with(Limits::default(), 64);
    greet(&mut served.client, ProtocolVersion::V311, 0).await;
    served.gate.deliver(1_000);
    tokio::task::yield_now().await;
    let mut sent = 0;
    let packet = publish(ProtocolVersion::V311, 1, 0);
    let write = async {
        loop {
            served.client.write_all(&packet).await.expect("open");
            sent += packet.len();
        }
    };
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(1), write).await;
    assert!(
        stopped.is_err() && sent <= 64 + packet.len(),
        "{sent} bytes were taken"
    );
    assert_eq!(served.gate.packets(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_wants_no_input_gets_none_and_loses_none() {
    let mut served = served();
    greet(&mut served.client, ProtocolVersion::V5, 0).await;
    served.gate.change(|script| script.is_busy = true);
    tokio::task::yield_now().await;
    served
        .client
        .write_all(&publish(ProtocolVersion::V5, 1, 0).repeat(1_000))
        .await
        .expect("open");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(served.gate.packets(), 0);
    served.gate.change(|script| script.is_busy = false);
    expect(&mut served.client, &b"\x40\x02\0\x01".repeat(1_000)).await;
}

#[tokio::test(start_paused = true)]
async fn large_packets_arrive_whole_and_leave_no_buffer() {
    let mut served = served_with(Limits::default(), 4_096);
    greet(&mut served.client, ProtocolVersion::V5, 0).await;
    for _ in 0..3 {
        served
            .client
            .write_all(&publish(ProtocolVersion::V5, 9, 250_000))
            .await
            .expect("open");
        expect(&mut served.client, b"\x40\x02\0\x09").await;
    }
    let above = publish(ProtocolVersion::V5, 9, 256 * 1024);
    // The refusal comes while we are still sending.
    drop(served.client.write_all(&above).await);
    assert_eq!(rest(&mut served.client).await, [0xE0, 2, 0x95, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_goodbye_to_everyone() {
    let gate = TestGate::default();
    let edge = gate.edge(Limits::default());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let (mut client, server) = tokio::io::duplex(1024);
        serve(&edge, server);
        greet(&mut client, ProtocolVersion::V5, 0).await;
        clients.push(client);
    }
    edge.registry.drain(std::time::Duration::from_secs(1)).await;
    for mut client in clients {
        assert_eq!(rest(&mut client).await, [0xE0, 2, 0x8B, 0]);
    }
    eventually("all sessions closed", || gate.closed().len() == 20).await;
    assert_eq!(edge.open_connections(), 0);
}

#[test]
fn an_open_connection_is_small() {
    // Without the session, which belongs to the broker; the whole of it beside.
    let size = size_of::<Serve<TcpStream, TestGate>>() - size_of::<TestSession>();
    assert!(size <= 320, "{size} bytes");
    let size = size_of::<Serve<TcpStream, Door>>();
    assert!(size <= 448, "{size} bytes with the broker's session");
}
