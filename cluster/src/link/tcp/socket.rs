//! The sockets of the link: what each is told, and the runtime that looks after it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tracing::debug;

/// Bytes that nobody acknowledges for so long break a connection, also one that is not pinged often.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);
/// A connection over which nothing is said is looked after so often.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// No delay for small writes, and an end for dead connections. What the system does not know, it does without.
pub(super) fn prepare(stream: &TcpStream) {
    let prepared = stream.set_nodelay(true).and_then(|()| {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
        let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(stream, millis)?;
        Ok(())
    });
    if let Err(error) = prepared {
        debug!(%error, "a socket of the link keeps the system's settings");
    }
}

/// A connection below its TLS. The door learns only from the first words, above TLS, whose work a connection is for; then
/// it can still be moved.
#[derive(Debug)]
pub(super) struct Socket(Option<TcpStream>);

impl Socket {
    /// Looked after by the runtime that accepted it.
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self(Some(stream))
    }

    /// From now on the runtime in which this is called is told when there is something to read, not the one before.
    pub(super) fn settle_here(&mut self) -> io::Result<()> {
        if let Some(stream) = self.0.take() {
            self.0 = Some(TcpStream::from_std(stream.into_std()?)?);
        }
        Ok(())
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.get_mut().0.as_mut();
        stream.map(Pin::new).ok_or_else(lost)
    }
}

/// A move that failed left nothing.
fn lost() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(TcpStream::is_write_vectored)
    }
}
