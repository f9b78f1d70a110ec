//! The end of an open connection: the client is told if it can be, the session learns at once, the socket goes last.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};

use tokio::io::{AsyncWriteExt, ReadBuf};

use super::{Connection, Stream};
use crate::{
    close::{Close, CloseCause},
    driver::{Gate, SessionDriver},
    edge::Edge,
    packet::{Disconnect, Packet, PacketKind},
};

/// Most bytes read and thrown away after a goodbye.
const LINGER_BYTES: usize = 256 * 1024;

impl<S: Stream, G: Gate> Connection<S, G> {
    /// Ends the connection. Everything the client already earned an answer to is written before the goodbye.
    pub(super) async fn close(mut self, close: Close) {
        self.edge.closed(close, &self.peer);
        let is_told = close.send_disconnect && self.out.version().is_v5();
        if is_told && close.reason.may_stand_in(PacketKind::Disconnect) {
            let mut goodbye = Disconnect::new(close.reason);
            if close.cause == CloseCause::Moved {
                goodbye.server_reference = self.session.server_reference();
            }
            // A client that takes no packet of four bytes learns nothing.
            let _is_pushed = self.out.push(&Packet::Disconnect(Box::new(goodbye)));
        }
        let is_gone = matches!(
            close.cause,
            CloseCause::ConnectionLost | CloseCause::WriteStalled
        );
        if !is_gone {
            // Without waiting: a client that does not read must not delay what others learn about it.
            self.flush_once().await;
        }
        let Self {
            stream,
            session,
            entered,
            edge,
            out,
            written,
            ..
        } = self;
        session.close(close).await;
        drop(entered);
        if !is_gone {
            let rest = out.bytes().get(written..).unwrap_or_default();
            farewell(stream, rest, is_told, &edge).await;
        }
    }

    async fn flush_once(&mut self) {
        let now = self.edge.now();
        poll_fn(|cx| {
            // Whether it went or not is found out by `farewell`.
            let _is_flushed = self.poll_flush(cx, now);
            Poll::Ready(())
        })
        .await;
    }
}

/// Writes the rest, says that nothing follows, and waits a little for the other side to have read it: closing a socket
/// with unread bytes in it resets the connection, and the goodbye would be lost with it.
pub(super) async fn farewell<S: Stream, G>(
    mut stream: S,
    rest: &[u8],
    is_told: bool,
    edge: &Arc<Edge<G>>,
) {
    let goodbye = async {
        stream.write_all(rest).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        if is_told {
            discard(&mut stream).await?;
        }
        std::io::Result::Ok(())
    };
    // Whether the client took it is its own affair: it has been dealt with.
    drop(tokio::time::timeout(edge.limits.linger, goodbye).await);
}

/// Reads until the other side ends, or has sent more than we care to throw away.
async fn discard<S: Stream>(stream: &mut S) -> std::io::Result<()> {
    let mut left = LINGER_BYTES;
    while left > 0 {
        let count = poll_fn(|cx| {
            super::scratch::with_read(|bytes| {
                let mut buffer = ReadBuf::new(bytes);
                Pin::new(&mut *stream)
                    .poll_read(cx, &mut buffer)
                    .map_ok(|()| buffer.filled().len())
            })
        })
        .await?;
        if count == 0 {
            break;
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}
