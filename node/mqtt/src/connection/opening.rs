//! From an accepted stream to an open connection: one CONNECT, in time, small enough, acceptable.

use std::{future::poll_fn, num::NonZeroU32, pin::Pin, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::ReadBuf,
    time::{Instant, timeout_at},
};

use super::{Connection, Opened, Stream, closing::farewell, scratch::with_read};
use crate::{
    close::{Close, CloseCause},
    codec::{Decoded, Decoder, Malformed, encode},
    driver::{Gate, SessionDriver},
    edge::Edge,
    listener::Admitted,
    outgoing::Outgoing,
    packet::{ConnAck, Connect, Packet, PacketKind},
    peer::Peer,
    reason::{ProtocolVersion, ReasonCode},
    refusal::Refusal,
};

/// Characters of a refused client's name that are logged.
const CLAIM_CHARS_MAX: usize = 64;

/// Why no CONNECT came.
enum NoConnect {
    Malformed(Malformed),
    Abandoned,
    Evicted,
    TimedOut,
}

/// Opens a connection on `stream`, or refuses it, counts why, and returns nothing.
pub(crate) async fn open<S: Stream, G: Gate>(
    mut stream: S,
    peer: Peer,
    edge: Arc<Edge<G>>,
    mut admitted: Admitted,
) -> Option<Connection<S, G>> {
    let address = peer.address.ip();
    admitted.renew(edge.now());
    let mut received = Vec::new();
    let arrival = receive_connect(&mut stream, &mut received, &edge, &mut admitted).await;
    // From here on it is us the client waits for.
    drop(admitted);
    let connect = match arrival {
        Ok(connect) => connect,
        Err(why) => {
            refuse_unread(stream, why, &edge, &peer).await;
            return None;
        },
    };
    edge.counters.packet_in(PacketKind::Connect);
    let version = connect.version;
    let asked = Asked::of(&connect);
    let answer = if connect.authentication_method.is_some() {
        Err(ConnAck::refused(ReasonCode::BadAuthenticationMethod))
    } else {
        Arc::clone(&edge.gate).open(connect, peer.clone()).await
    };
    match answer {
        Ok((session, ack)) => {
            let mut out = asked.outgoing(&edge);
            let keep_alive_secs = ack.server_keep_alive.unwrap_or(asked.keep_alive);
            if out.push(&Packet::ConnAck(Box::new(ack))).is_err() {
                edge.refuse(
                    Refusal::Malformed,
                    address,
                    &"takes no packet as large as a connack",
                );
                session
                    .close(Close::silent(CloseCause::ProtocolError))
                    .await;
                return None;
            }
            let decoder = Decoder::opened(version, edge.limits.packet_bytes_max);
            let opened = Opened {
                session,
                decoder,
                partial: received,
                out,
                keep_alive_secs,
            };
            Some(Connection::new(stream, peer, edge, opened))
        },
        Err(ack) => {
            let reason = ack.reason;
            // The name is a stranger's: escaped, and not longer than a line bears.
            let claimed: String = asked.client_id.chars().take(CLAIM_CHARS_MAX).collect();
            let (why, door) = (reason.label(), &peer.listener);
            let detail = format_args!("{why}: {claimed:?} at listener {door}").to_string();
            edge.refuse(Refusal::of(reason), address, &detail);
            answer_and_leave(stream, &ack, version, &edge).await;
            None
        },
    }
}

/// What has to be remembered of a CONNECT that is given away.
struct Asked {
    client_id: String,
    version: ProtocolVersion,
    keep_alive: u16,
    maximum_packet_size: Option<NonZeroU32>,
    problem_information: bool,
}

impl Asked {
    fn of(connect: &Connect) -> Self {
        Self {
            client_id: connect.client_id.clone(),
            version: connect.version,
            keep_alive: connect.keep_alive,
            maximum_packet_size: connect.maximum_packet_size,
            problem_information: connect.request_problem_information,
        }
    }

    fn outgoing<G>(&self, edge: &Edge<G>) -> Outgoing {
        Outgoing::new(
            self.version,
            self.maximum_packet_size,
            self.problem_information,
        )
        .counted(Arc::clone(&edge.counters))
    }
}

/// Reads until a CONNECT is complete. What follows it stays in `received`; never more than the bound is read.
async fn receive_connect<S: Stream, G: Gate>(
    stream: &mut S,
    received: &mut Vec<u8>,
    edge: &Arc<Edge<G>>,
    admitted: &mut Admitted,
) -> Result<Box<Connect>, NoConnect> {
    let limit = edge.limits.connect_bytes_max;
    let decoder = Decoder::new(limit);
    let reading = async {
        loop {
            let room = (limit as usize).saturating_sub(received.len());
            let count = read_some(stream, received, room).await.unwrap_or_default();
            if count == 0 {
                return Err(NoConnect::Abandoned);
            }
            match decoder.decode(received) {
                Ok(Decoded::Packet(Packet::Connect(connect), len)) => {
                    received.drain(..len);
                    received.shrink_to_fit();
                    return Ok(connect);
                },
                Ok(Decoded::Packet(..) | Decoded::Incomplete { .. }) => {},
                Err(malformed) => return Err(NoConnect::Malformed(malformed)),
            }
        }
    };
    let deadline = Instant::now() + edge.limits.connect_timeout;
    tokio::select! {
        biased;
        result = timeout_at(deadline, reading) => result.unwrap_or(Err(NoConnect::TimedOut)),
        _ = &mut admitted.evicted => Err(NoConnect::Evicted),
    }
}

async fn read_some<S: Stream>(
    stream: &mut S,
    received: &mut Vec<u8>,
    room: usize,
) -> std::io::Result<usize> {
    poll_fn(|cx| {
        with_read(|bytes| {
            let mut buffer = ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
            Pin::new(&mut *stream)
                .poll_read(cx, &mut buffer)
                .map_ok(|()| {
                    received.extend_from_slice(buffer.filled());
                    buffer.filled().len()
                })
        })
    })
    .await
}

/// Refuses a stream that sent no acceptable CONNECT, with a CONNACK if the client is known to understand one.
async fn refuse_unread<S: Stream, G: Gate>(
    stream: S,
    why: NoConnect,
    edge: &Arc<Edge<G>>,
    peer: &Peer,
) {
    let address = peer.address.ip();
    match why {
        NoConnect::Abandoned => edge.refuse(Refusal::Abandoned, address, &"before connect"),
        NoConnect::Evicted => edge.refuse(Refusal::HalfOpenEvicted, address, &"before connect"),
        NoConnect::TimedOut => edge.refuse(Refusal::Timeout, address, &"before connect"),
        NoConnect::Malformed(malformed) => {
            edge.malformed(malformed, address);
            let reason = malformed.reason();
            let known = Refusal::of(reason);
            let refusal = if known == Refusal::Other {
                Refusal::Malformed
            } else {
                known
            };
            edge.refuse(refusal, address, &malformed);
            if let Some(version) = malformed
                .version
                .filter(|version| may_answer(*version, reason))
            {
                answer_and_leave(stream, &ConnAck::refused(reason), version, edge).await;
            }
        },
    }
}

/// Before MQTT 5 a malformed CONNECT is answered by closing only (3.1.1, 4.8).
const fn may_answer(version: ProtocolVersion, reason: ReasonCode) -> bool {
    version.is_v5()
        || matches!(
            reason,
            ReasonCode::UnsupportedProtocolVersion | ReasonCode::ClientIdentifierNotValid
        )
}

async fn answer_and_leave<S: Stream, G: Gate>(
    stream: S,
    ack: &ConnAck,
    version: ProtocolVersion,
    edge: &Arc<Edge<G>>,
) {
    let mut bytes = BytesMut::new();
    let packet = Packet::ConnAck(Box::new(ack.clone()));
    if encode(&packet, version, u32::MAX, &mut bytes).is_ok() {
        edge.counters.packet_out(PacketKind::ConnAck);
        farewell(stream, &bytes, true, edge).await;
    }
}
