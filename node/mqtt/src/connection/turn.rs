//! One turn of an open connection: read, handle, gather answers, write once.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::ReadBuf;
use umbel_core::time::Tick;

use super::{
    Connection, Stream,
    scratch::{lend_write, reclaim_write, with_read},
    timer::Expired,
};
use crate::{
    close::{Close, CloseCause},
    codec::{Decoded, Malformed, MalformedCause},
    driver::{Gate, SessionDriver},
    packet::{Packet, PacketKind},
    reason::ReasonCode,
};

/// Most rounds of reading and writing before others have their turn.
const ROUNDS_PER_TURN: usize = 16;

/// The largest rest of a packet whose buffer is not cut to size when what came before it is gone.
const PARTIAL_SLACK_BYTES: usize = 512;

impl<S: Stream, G: Gate> Connection<S, G> {
    /// Goes on until there is nothing to do; ready when the connection has to end.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        let is_drained = self
            .entered
            .as_ref()
            .is_some_and(|entered| self.edge.registry.is_drained(entered.place));
        if is_drained {
            let reason = ReasonCode::ServerShuttingDown;
            return Poll::Ready(Close::because(reason, CloseCause::ServerShutdown));
        }
        let now = self.edge.now();
        lend_write(self.out.buffer_mut());
        let ended = with_read(|read| self.rounds(cx, now, read));
        reclaim_write(self.out.buffer_mut(), &mut self.written);
        match ended {
            Poll::Ready(Err(close)) => return Poll::Ready(close),
            Poll::Ready(Ok(())) => cx.waker().wake_by_ref(),
            Poll::Pending => {},
        }
        self.poll_timer(cx, now).map(|expired| match expired {
            Expired::KeepAlive => {
                Close::because(ReasonCode::KeepAliveTimeout, CloseCause::KeepAliveTimeout)
            },
            Expired::WriteStall => Close::silent(CloseCause::WriteStalled),
        })
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Expired> {
        if !self.session.wants_input() || self.has_packets {
            // It is us who do not listen.
            self.heard = now;
        }
        self.timer.poll(cx, now, self.heard, self.stalled)
    }

    /// `Ready(Ok)`: there may be more to do, but others come first.
    fn rounds(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        read: &mut [u8],
    ) -> Poll<Result<(), Close>> {
        let mut budget = self.edge.limits.packets_per_turn;
        for _ in 0..ROUNDS_PER_TURN {
            // What waits goes first. While the socket does not take it, nothing is read that would add to it.
            if self.poll_flush(cx, now)?.is_pending() {
                return self.poll_ended(cx, now);
            }
            let mut is_idle = true;
            if self.session.wants_input() {
                match self.poll_input(cx, now, read, &mut budget) {
                    Poll::Ready(result) => {
                        is_idle = false;
                        result?;
                    },
                    Poll::Pending => {},
                }
            }
            match self.session.poll_output(cx, now, &mut self.out) {
                Poll::Ready(result) => {
                    is_idle = false;
                    result?;
                },
                Poll::Pending => {},
            }
            if is_idle && self.out.is_empty() {
                return Poll::Pending;
            }
            if budget == 0 {
                break;
            }
        }
        if self.poll_flush(cx, now)?.is_pending() {
            return self.poll_ended(cx, now);
        }
        Poll::Ready(Ok(()))
    }

    /// Lets the session end a connection whose socket takes nothing, and lets it do nothing else.
    fn poll_ended(&mut self, cx: &mut Context<'_>, now: Tick) -> Poll<Result<(), Close>> {
        self.out.hold(true);
        let ended = self.session.poll_output(cx, now, &mut self.out);
        self.out.hold(false);
        match ended {
            Poll::Ready(Err(close)) => Poll::Ready(Err(close)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Ready when the socket has taken everything.
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
    ) -> Poll<Result<(), Close>> {
        let flushed = self.poll_write_out(cx);
        match &flushed {
            Poll::Pending if self.stalled.is_none() => self.stalled = Some(now),
            Poll::Ready(Ok(())) => self.stalled = None,
            Poll::Pending | Poll::Ready(Err(())) => {},
        }
        flushed.map_err(|()| Close::silent(CloseCause::ConnectionLost))
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while let Some(rest @ [_, ..]) = self.out.bytes().get(self.written..) {
            let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, rest));
            let taken = taken.ok().filter(|taken| *taken > 0).ok_or(())?;
            self.written += taken;
            self.stalled = None;
            self.needs_flush = true;
            self.edge.counters.bytes_out.increment(taken as u64);
        }
        self.out.buffer_mut().clear();
        self.written = 0;
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(drop)?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, or goes on with what had to wait, and handles the packets in it.
    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        now: Tick,
        read: &mut [u8],
        budget: &mut usize,
    ) -> Poll<Result<(), Close>> {
        if self.has_packets {
            return Poll::Ready(self.consume_partial(now, budget));
        }
        let mut buffer = ReadBuf::new(read);
        let received = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        let bytes = buffer.filled();
        if received.is_err() || bytes.is_empty() {
            return Poll::Ready(Err(Close::silent(CloseCause::ConnectionLost)));
        }
        self.edge.counters.bytes_in.increment(bytes.len() as u64);
        if self.partial.is_empty() {
            let used = self.consume(bytes, now, budget)?;
            self.partial
                .extend_from_slice(bytes.get(used..).unwrap_or_default());
            return Poll::Ready(Ok(()));
        }
        self.partial.extend_from_slice(bytes);
        Poll::Ready(self.consume_partial(now, budget))
    }

    fn consume_partial(&mut self, now: Tick, budget: &mut usize) -> Result<(), Close> {
        let mut partial = std::mem::take(&mut self.partial);
        let used = self.consume(&partial, now, budget)?;
        if used < partial.len() {
            partial.drain(..used);
            if used > 0 && partial.capacity() > partial.len() + PARTIAL_SLACK_BYTES {
                partial.shrink_to_fit();
            }
            self.partial = partial;
        }
        Ok(())
    }

    /// Handles packets from the start of `bytes` and says how many bytes they took.
    fn consume(&mut self, bytes: &[u8], now: Tick, budget: &mut usize) -> Result<usize, Close> {
        let mut used = 0;
        while let Some(rest @ [_, ..]) = bytes.get(used..) {
            self.has_packets = *budget == 0 || !self.session.wants_input() || self.out.is_full();
            if self.has_packets {
                return Ok(used);
            }
            match self.decoder.decode(rest) {
                Ok(Decoded::Packet(packet, len)) => {
                    used += len;
                    *budget -= 1;
                    self.heard = now;
                    self.handle(packet, now)?;
                },
                Ok(Decoded::Incomplete { .. }) => return Ok(used),
                Err(malformed) => return Err(self.refuse(malformed)),
            }
        }
        self.has_packets = false;
        Ok(used)
    }

    fn handle(&mut self, packet: Packet, now: Tick) -> Result<(), Close> {
        let kind = packet.kind();
        self.edge.counters.packet_in(kind);
        if kind == PacketKind::Auth {
            // A client that asked for extended authentication was refused, no other may send it (MQTT-4.12.0-6).
            return Err(Close::protocol_error());
        }
        let goodbye = if let Packet::Disconnect(words) = &packet {
            Some(words.reason)
        } else {
            None
        };
        self.session.handle(packet, now, &mut self.out)?;
        match goodbye {
            None => Ok(()),
            Some(ReasonCode::NORMAL_DISCONNECTION) => {
                Err(Close::silent(CloseCause::ClientDisconnect))
            },
            Some(_) => Err(Close::silent(CloseCause::ClientDisconnectWithWill)),
        }
    }

    fn refuse(&self, malformed: Malformed) -> Close {
        self.edge.malformed(malformed, self.peer.address.ip());
        let reason = malformed.reason();
        let cause = match (malformed.cause, reason) {
            (MalformedCause::TooLarge, _) => CloseCause::PacketTooLarge,
            (MalformedCause::TopicAlias, _) => CloseCause::TopicAliasInvalid,
            (_, ReasonCode::ProtocolError) => CloseCause::ProtocolError,
            _ => CloseCause::MalformedPacket,
        };
        Close::because(reason, cause)
    }
}
