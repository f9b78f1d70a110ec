//! MQTT over WebSocket (MQTT 5.0, 6): a byte stream in binary messages, cut anywhere.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        self, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderMap, HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use crate::limits::Limits;

/// Subprotocols, in our order of preference. The second is what clients of 3.1 ask for.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Paths at which WebSocket is spoken: AWS's, and what others are used to.
const PATHS: [&str; 3] = ["/mqtt", "/ws", "/"];

/// Read buffer of one connection; the library allocates it at once.
const READ_BUFFER_BYTES: usize = 1_024;

/// Largest message written: one turn of output rarely is more.
const WRITE_MESSAGE_BYTES: usize = 64 * 1024;

/// Stands for every page of this machine.
const LOCAL: &str = "localhost";

/// Which web pages may connect. Programs that are no browser send no `Origin` and are not concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Allows pages of the same host and port, and of `allowed` (as `https://host:port`; `localhost`: those this machine
    /// serves itself, on any port; `*`: all).
    pub const fn new(allowed: Vec<String>) -> Self {
        Self(allowed)
    }

    fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return true;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let is_listed = self.0.iter().any(|allowed| match allowed.as_str() {
            "*" => true,
            LOCAL => authority.is_some_and(is_local),
            allowed => allowed.eq_ignore_ascii_case(origin),
        });
        if is_listed {
            return true;
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        matches!((host, authority), (Some(host), Some(origin)) if host.eq_ignore_ascii_case(origin))
    }
}

/// Whether a page comes from this machine: a name that only it can have.
fn is_local(authority: &str) -> bool {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    name.eq_ignore_ascii_case(LOCAL) || name == "127.0.0.1" || name == "[::1]"
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    #[error("websocket handshake failed: {0}")]
    Handshake(Box<tungstenite::Error>),
    #[error("websocket handshake took too long")]
    Timeout,
}

/// Answers an upgrade request.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    origins: &Origins,
    limits: &Limits,
) -> Result<WebSocketBytes<S>, UpgradeError> {
    let largest = limits.packet_bytes_max as usize;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * WRITE_MESSAGE_BYTES)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let judge = |request: &Request, response| judge(request, response, origins);
    let upgrade = accept_hdr_async_with_config(stream, judge, Some(config));
    match timeout(limits.handshake_timeout, upgrade).await {
        Ok(Ok(socket)) => Ok(WebSocketBytes {
            socket,
            received: Bytes::new(),
        }),
        Ok(Err(error)) => Err(UpgradeError::Handshake(Box::new(error))),
        Err(_) => Err(UpgradeError::Timeout),
    }
}

#[expect(clippy::result_large_err, reason = "the library's signature")]
fn judge(
    request: &Request,
    mut response: Response,
    origins: &Origins,
) -> Result<Response, ErrorResponse> {
    if !PATHS.contains(&request.uri().path()) {
        return Err(refusal(StatusCode::NOT_FOUND));
    }
    if !origins.allow(request.headers()) {
        return Err(refusal(StatusCode::FORBIDDEN));
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    // A client has to ask for it (MQTT-6.0.0-3), and is told which one it got (MQTT-6.0.0-4).
    let Some(chosen) = SUBPROTOCOLS.into_iter().find(|ours| offered.contains(ours)) else {
        return Err(refusal(StatusCode::BAD_REQUEST));
    };
    let chosen = HeaderValue::from_static(chosen);
    response
        .headers_mut()
        .insert(header::SEC_WEBSOCKET_PROTOCOL, chosen);
    Ok(response)
}

fn refusal(status: StatusCode) -> ErrorResponse {
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    response
}

/// A WebSocket as a stream of bytes. Where messages begin and end means nothing to MQTT (MQTT-6.0.0-2).
pub(crate) struct WebSocketBytes<S> {
    socket: WebSocketStream<S>,
    /// What is left of the message that is being read.
    received: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.received = bytes,
                // The library answers a ping itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {},
                // Text is an error (MQTT-6.0.0-1); a frame is never read as such.
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                },
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let count = this.received.len().min(buffer.remaining());
        buffer.put_slice(this.received.get(..count).unwrap_or_default());
        this.received.advance(count);
        if this.received.is_empty() {
            this.received = Bytes::new(); // lets go of the message
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut self.get_mut().socket;
        ready!(Pin::new(&mut *socket).poll_ready(cx)).map_err(into_io)?;
        let bytes = bytes.get(..WRITE_MESSAGE_BYTES).unwrap_or(bytes);
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(socket).start_send(message).map_err(into_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket)
            .poll_flush(cx)
            .map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().socket).poll_close(cx)) {
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    if let tungstenite::Error::Io(error) = error {
        error
    } else {
        io::Error::other(error)
    }
}
