//! A broker that remembers what it was asked, for tests of the driver and the listeners.

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use umbel_actors::ports::{BoxFuture, Clock};
use umbel_core::{
    message::{Message, Qos},
    time::{Tick, Timestamp},
};

use crate::{
    close::{Close, CloseCause},
    codec::encode,
    driver::{Gate, SessionDriver},
    edge::Edge,
    limits::Limits,
    outgoing::{Delivery, Outgoing},
    packet::{Ack, ConnAck, Connect, Packet, PacketKind, SubAck},
    peer::Peer,
    reason::{ProtocolVersion, ReasonCode},
};

/// Follows tokio's clock, paused or not.
pub(crate) struct TestClock(Instant);

impl Clock for TestClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000)
    }

    fn tick(&self) -> Tick {
        Tick::from_millis(u64::try_from(self.0.elapsed().as_millis()).expect("short test"))
    }
}

/// What the broker was asked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    Opened(Box<Connect>),
    Packet(PacketKind),
    Closed(Close),
}

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) events: Vec<Event>,
    pub(crate) peers: Vec<Peer>,
    /// Waiting to be delivered to any session.
    pub(crate) deliveries: VecDeque<Message>,
    /// Ends the next session that is polled, however full its output.
    pub(crate) end: Option<Close>,
    /// Sessions do not want input.
    pub(crate) is_busy: bool,
    /// The answer to CONNECT, if not an acceptance.
    pub(crate) refusal: Option<ReasonCode>,
    pub(crate) server_keep_alive: Option<u16>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Default)]
pub(crate) struct TestGate(Arc<Mutex<Script>>);

impl TestGate {
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Script) -> R) -> R {
        let mut script = self.0.lock();
        let result = change(&mut script);
        let wakers = std::mem::take(&mut script.wakers);
        drop(script);
        for waker in wakers {
            waker.wake();
        }
        result
    }

    pub(crate) fn deliver(&self, payload: usize) {
        let payload = Bytes::from(vec![b'x'; payload]);
        let now = Timestamp::from_millis(0);
        let message = Message::from_cluster("t".to_owned(), payload, Qos::AtMostOnce, now);
        self.change(|script| script.deliveries.push_back(message));
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.change(|script| script.events.clone())
    }

    pub(crate) fn closed(&self) -> Vec<CloseCause> {
        let events = self.events();
        let closed = events.iter().filter_map(|event| match event {
            Event::Closed(close) => Some(close.cause),
            Event::Opened(_) | Event::Packet(_) => None,
        });
        closed.collect()
    }

    pub(crate) fn packets(&self) -> usize {
        self.events()
            .iter()
            .filter(|event| matches!(event, Event::Packet(_)))
            .count()
    }

    pub(crate) fn edge(&self, limits: Limits) -> Arc<Edge<Self>> {
        Edge::new(
            Arc::new(self.clone()),
            Arc::new(TestClock(Instant::now())),
            limits,
        )
    }
}

impl Gate for TestGate {
    type Session = TestSession;

    fn open(
        self: Arc<Self>,
        connect: Box<Connect>,
        peer: Peer,
    ) -> BoxFuture<'static, Result<(TestSession, ConnAck), ConnAck>> {
        Box::pin(async move {
            let gate = self.as_ref().clone();
            let refusal = self.change(|script| {
                script.events.push(Event::Opened(connect));
                script.peers.push(peer);
                script.refusal
            });
            if let Some(reason) = refusal {
                return Err(ConnAck::refused(reason));
            }
            let server_keep_alive = self.change(|script| script.server_keep_alive);
            Ok((
                TestSession { gate },
                ConnAck {
                    server_keep_alive,
                    ..ConnAck::accepted(false)
                },
            ))
        })
    }
}

pub(crate) struct TestSession {
    gate: TestGate,
}

impl SessionDriver for TestSession {
    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else may come")]
    fn handle(&mut self, packet: Packet, _now: Tick, out: &mut Outgoing) -> Result<(), Close> {
        self.gate.0.lock().events.push(Event::Packet(packet.kind()));
        match &packet {
            Packet::PingReq => {
                out.push(&Packet::PingResp).expect("small");
                Ok(())
            },
            Packet::Publish(publish) => {
                if let Some(id) = publish.packet_id {
                    let ack = Packet::PubAck(Ack::new(id, ReasonCode::Success));
                    out.push(&ack).expect("small");
                }
                Ok(())
            },
            Packet::Subscribe(subscribe) => {
                let ack = SubAck {
                    packet_id: subscribe.packet_id,
                    reasons: vec![ReasonCode::GRANTED_QOS0; subscribe.filters.len()],
                    properties: None,
                };
                out.push(&Packet::SubAck(Box::new(ack))).expect("small");
                Ok(())
            },
            Packet::Disconnect(words) if words.reason == ReasonCode::NORMAL_DISCONNECTION => {
                Err(Close::silent(CloseCause::ClientDisconnect))
            },
            Packet::Disconnect(_) => Err(Close::silent(CloseCause::ClientDisconnectWithWill)),
            _ => panic!("the driver let {packet:?} through"),
        }
    }

    fn poll_output(
        &mut self,
        cx: &mut Context<'_>,
        _now: Tick,
        out: &mut Outgoing,
    ) -> Poll<Result<(), Close>> {
        let mut script = self.gate.0.lock();
        script.wakers.push(cx.waker().clone());
        if let Some(close) = script.end.take() {
            return Poll::Ready(Err(close));
        }
        if out.is_full() {
            return Poll::Ready(Ok(()));
        }
        if let Some(message) = script.deliveries.pop_front() {
            out.deliver(&message, &Delivery::default()).expect("small");
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    fn wants_input(&self) -> bool {
        !self.gate.0.lock().is_busy
    }

    fn close(self, close: Close) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.gate
                .change(|script| script.events.push(Event::Closed(close)));
        })
    }
}

/// A CONNECT that is accepted.
pub(crate) fn connect(version: ProtocolVersion, keep_alive: u16) -> Vec<u8> {
    let mut bytes = match version {
        ProtocolVersion::V31 => b"\x10\x0F\0\x06MQIsdp\x03\x02\0\0\0\x01c".to_vec(),
        ProtocolVersion::V311 => b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01c".to_vec(),
        ProtocolVersion::V5 => b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01c".to_vec(),
    };
    let at = if version == ProtocolVersion::V31 {
        12
    } else {
        10
    };
    bytes[at..at + 2].copy_from_slice(&keep_alive.to_be_bytes());
    bytes
}

/// The CONNACK that accepts it.
pub(crate) const fn accepted(version: ProtocolVersion) -> &'static [u8] {
    match version {
        ProtocolVersion::V31 | ProtocolVersion::V311 => b"\x20\x02\0\0",
        ProtocolVersion::V5 => b"\x20\x03\0\0\0",
    }
}

/// A PUBLISH of QoS 1.
pub(crate) fn publish(version: ProtocolVersion, id: u16, payload: usize) -> Vec<u8> {
    let packet = crate::packet::Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic: "t".to_owned(),
        packet_id: NonZeroU16::new(id),
        payload: Bytes::from(vec![b'x'; payload]),
        properties: None,
    };
    let mut bytes = BytesMut::new();
    encode(&Packet::Publish(packet), version, u32::MAX, &mut bytes).expect("fits");
    bytes.to_vec()
}

/// Reads exactly these bytes.
pub(crate) async fn expect<S: AsyncRead + Unpin>(stream: &mut S, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    let read = tokio::time::timeout(Duration::from_mins(10), stream.read_exact(&mut bytes));
    read.await.expect("in time").expect("an answer");
    assert_eq!(bytes, expected);
}

/// Reads until the end and returns what came.
pub(crate) async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_mins(10), stream.read_to_end(&mut bytes));
    // A reset is an end, too.
    drop(read.await.expect("in time"));
    bytes
}

/// Opens a connection and reads its CONNACK.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    version: ProtocolVersion,
    keep_alive: u16,
) {
    stream
        .write_all(&connect(version, keep_alive))
        .await
        .expect("open");
    expect(stream, accepted(version)).await;
}

/// Waits until a condition holds.
pub(crate) async fn eventually(why: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {why}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
