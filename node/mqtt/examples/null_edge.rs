//! What the edge alone costs: a server whose sessions acknowledge and do nothing else, and a client to drive it or
//! any other broker.
//!
//! ```text
//! null_edge serve                              prints its address and its process id, serves until killed
//! null_edge publish ADDRESS CLIENTS MESSAGES   QoS 1, 512 bytes, one at a time per client
//! null_edge idle ADDRESS CLIENTS SECONDS       connects and says nothing
//! null_edge cost PID                           CPU seconds and resident KiB of a process
//! ```
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::{
    fs, io,
    net::SocketAddr,
    num::NonZeroU16,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use umbel_actors::ports::{BoxFuture, Clock};
use umbel_core::time::{Tick, Timestamp};
use umbel_mqtt::{
    close::Close,
    driver::{Gate, SessionDriver},
    edge::Edge,
    limits::Limits,
    listener::{ListenerConfig, Listeners, Wire},
    outgoing::Outgoing,
    packet::{Ack, ConnAck, Connect, Packet},
    peer::{ListenerId, Peer},
    reason::ReasonCode,
};

/// Keep-alive 300 s: an idle connection has its timer.
const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\x01\x2C\0\x04";
const PAYLOAD_BYTES: usize = 512;

struct Null;

impl Gate for Null {
    type Session = NullSession;

    fn open(
        self: Arc<Self>,
        _connect: Box<Connect>,
        _peer: Peer,
    ) -> BoxFuture<'static, Result<(NullSession, ConnAck), ConnAck>> {
        Box::pin(std::future::ready(Ok((
            NullSession,
            ConnAck::accepted(false),
        ))))
    }
}

struct NullSession;

impl SessionDriver for NullSession {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else is asked")]
    fn handle(&mut self, packet: Packet, _now: Tick, out: &mut Outgoing) -> Result<(), Close> {
        let answer = match packet {
            Packet::Publish(publish) => match publish.packet_id {
                Some(id) => Packet::PubAck(Ack::new(id, ReasonCode::Success)),
                None => return Ok(()),
            },
            Packet::PingReq => Packet::PingResp,
            _ => return Err(Close::protocol_error()),
        };
        out.push(&answer)
            .map_err(|_too_large| Close::protocol_error())
    }

    fn poll_output(
        &mut self,
        _cx: &mut Context<'_>,
        _now: Tick,
        _out: &mut Outgoing,
    ) -> Poll<Result<(), Close>> {
        Poll::Pending
    }

    fn wants_input(&self) -> bool {
        true
    }

    fn close(self, _close: Close) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

struct Monotonic(Instant);

impl Clock for Monotonic {
    fn wall(&self) -> Timestamp {
        Timestamp::default()
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

async fn serve() -> io::Result<()> {
    let limits = Limits {
        connections_max: 19_000,
        ..Limits::default()
    };
    let edge = Edge::new(Arc::new(Null), Arc::new(Monotonic(Instant::now())), limits);
    let config = ListenerConfig {
        id: ListenerId::new("tcp"),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        wire: Wire::Tcp,
        proxy_protocol: false,
    };
    let listeners = Listeners::start(vec![config], &edge).map_err(io::Error::other)?;
    for (_, address) in listeners.addresses() {
        println!("{address} {}", std::process::id());
    }
    std::future::pending().await
}

async fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(2 + index % 100).unwrap_or(2);
    socket.bind(SocketAddr::from(([127, 0, 0, host], 0)))?;
    let mut stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    stream
        .write_all(&[CONNECT, format!("{index:04x}").as_bytes()].concat())
        .await?;
    stream.read_exact(&mut [0; 4]).await?;
    Ok(stream)
}

async fn publish(address: SocketAddr, clients: usize, messages: usize) -> io::Result<()> {
    let id = NonZeroU16::MIN.get().to_be_bytes();
    let length = [
        0x80 | u8::try_from((PAYLOAD_BYTES + 7) & 0x7F).unwrap_or(0),
        4,
    ];
    let packet = [
        &[0x32][..],
        &length,
        b"\0\x03a/b",
        &id,
        &[b'x'; PAYLOAD_BYTES],
    ]
    .concat();
    let packet: Arc<[u8]> = packet.into();
    let mut tasks = JoinSet::new();
    for index in 0..clients {
        let mut stream = connect(address, index).await?;
        let packet = Arc::clone(&packet);
        tasks.spawn(async move {
            for _ in 0..messages / clients {
                stream.write_all(&packet).await?;
                stream.read_exact(&mut [0; 4]).await?;
            }
            io::Result::Ok(())
        });
    }
    let start = Instant::now();
    while let Some(done) = tasks.join_next().await {
        done.map_err(io::Error::other)??;
    }
    println!(
        "{messages} messages in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn idle(address: SocketAddr, clients: usize, seconds: usize) -> io::Result<()> {
    let mut streams = Vec::with_capacity(clients);
    for index in 0..clients {
        streams.push(connect(address, index).await?);
    }
    println!("{} connected", streams.len());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    Ok(())
}

fn cost(pid: &str) -> io::Result<()> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap_or_default();
    println!("cpu {}.{:02} s, {resident}", ticks / 100, ticks % 100);
    Ok(())
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other);
    let number = |text: &str| text.parse::<usize>().map_err(io::Error::other);
    match words.as_slice() {
        ["serve"] => serve().await,
        ["publish", to, clients, messages] => {
            publish(address(to)?, number(clients)?.max(1), number(messages)?).await
        },
        ["idle", to, clients, seconds] => {
            idle(address(to)?, number(clients)?, number(seconds)?).await
        },
        ["cost", pid] => cost(pid),
        _ => Err(io::Error::other(
            "serve | publish | idle | cost, see the source",
        )),
    }
}
