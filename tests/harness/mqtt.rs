//! MQTT as bytes on a socket, for what well-behaved clients never send.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::PATIENCE;

/// A socket and the packets on it.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// Connects without sending anything.
    pub fn open(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Connects and completes an MQTT 3.1.1 CONNECT with a clean session.
    pub fn connected(server: SocketAddr, client: &str, keep_alive: u16) -> Self {
        let mut wire = Self::open(server);
        wire.send(&connect_packet(4, client, keep_alive, 0x02));
        assert_eq!(
            wire.packet().unwrap(),
            [0x20, 2, 0, 0],
            "CONNACK of {client}"
        );
        wire
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        // The other side may have closed already; what it answered is what a test looks at.
        drop(self.stream.write_all(bytes));
    }

    /// The next whole packet, fixed header included; `None` when the server closed.
    pub fn packet(&mut self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 1];
        self.stream.read_exact(&mut packet).ok()?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0; 1];
            self.stream.read_exact(&mut byte).ok()?;
            packet.extend(byte);
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        packet.extend(body);
        Some(packet)
    }

    /// Whether the server closes the connection; packets before the end are passed over.
    pub fn closes(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Shortens the wait for the next packet.
    pub fn patience(&self, span: Duration) {
        self.stream.set_read_timeout(Some(span)).unwrap();
    }

    /// Ends the connection with a reset: the other side learns of it at once, without a DISCONNECT.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
        drop(self.stream);
    }
}

/// A CONNECT packet without will, user or properties. Level 3, 4 or 5.
pub fn connect_packet(level: u8, client: &str, keep_alive: u16, flags: u8) -> Vec<u8> {
    let mut body = Vec::new();
    let name: &[u8] = if level == 3 { b"MQIsdp" } else { b"MQTT" };
    text(&mut body, name);
    body.extend([level, flags]);
    body.extend(keep_alive.to_be_bytes());
    if level == 5 {
        body.push(0);
    }
    text(&mut body, client.as_bytes());
    framed(0x10, &body)
}

/// A packet with this first byte and body.
pub fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let byte = u8::try_from(rest & 0x7f).unwrap();
        rest >>= 7;
        packet.push(if rest > 0 { byte | 0x80 } else { byte });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

fn text(body: &mut Vec<u8>, text: &[u8]) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text);
}
