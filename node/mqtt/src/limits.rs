//! Every bound of the edge, with its reason. The node's configuration fills them in.

use std::time::Duration;

/// Bounds on connections and on what one of them may hold or delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of this node, all listeners together. Below the file limit of the process, so that logs, Raft
    /// and the API always find a file.
    pub connections_max: usize,
    /// Connections that have not sent a CONNECT yet, all together: the room a slow-loris can take.
    pub half_open_max: usize,
    /// The same for one source address.
    pub half_open_per_address_max: usize,
    /// How long a half-open connection may keep its place when another one needs it.
    pub half_open_patience: Duration,
    /// Time from accept to a complete CONNECT, PROXY header, TLS and WebSocket handshake not counted.
    pub connect_timeout: Duration,
    /// Bytes a client may send before its CONNECT is complete.
    pub connect_bytes_max: u32,
    /// Time for each of PROXY header, TLS handshake and WebSocket handshake.
    pub handshake_timeout: Duration,
    /// TLS handshakes that compute at the same time: a reconnecting fleet must not starve those who are connected.
    pub handshakes_max: usize,
    /// How long one handshake may count against [`Limits::handshakes_max`] while it waits for its client.
    pub handshake_hold: Duration,
    /// Largest packet taken. Refused at its first bytes, before anything is allocated.
    pub packet_bytes_max: u32,
    /// How long a client may take nothing of what waits for it.
    pub write_stall: Duration,
    /// How long a goodbye may take to reach the client after the session is closed.
    pub linger: Duration,
    /// Packets handled for one connection before others have their turn.
    pub packets_per_turn: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            half_open_max: 4_096,
            half_open_per_address_max: 1_024,
            half_open_patience: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(10),
            connect_bytes_max: 8 * 1024,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 64,
            handshake_hold: Duration::from_secs(1),
            packet_bytes_max: 256 * 1024,
            write_stall: Duration::from_secs(20),
            linger: Duration::from_secs(2),
            packets_per_turn: 128,
        }
    }
}
