//! What every socket of the link is told.

use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
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
