//! An MQTT client of a few lines, for what command line clients cannot show: what was said in which order on one
//! connection, wills, and where a connection ended.

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use crate::{Wire, framed};

/// A success with a remark.
const NO_SUBSCRIBERS: u8 = 0x10;

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: String,
    /// Its quality of service.
    pub qos: u8,
    /// Whether it was there before the subscription.
    pub retain: bool,
}

/// What is to be published when the session ends without farewell.
#[derive(Clone, Debug)]
pub struct Will {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: String,
}

/// A client. Speaks MQTT 5; acknowledges what it is sent.
pub struct Session {
    client: String,
    clean: bool,
    expiry: u32,
    keep_alive: u16,
    will: Option<Will>,
    wire: Option<Wire>,
    early: VecDeque<Message>,
    next_id: u16,
    /// Whether the server remembered the session.
    pub was_present: bool,
    /// Reason of the server's DISCONNECT, if it sent one.
    pub ended: Option<u8>,
}

impl Session {
    /// A client with a clean session.
    pub fn new(client: &str) -> Self {
        Self {
            client: client.to_owned(),
            clean: true,
            expiry: 0,
            keep_alive: 60,
            will: None,
            wire: None,
            early: VecDeque::new(),
            next_id: 0,
            was_present: false,
            ended: None,
        }
    }

    /// The session stays this many seconds after the connection.
    #[must_use]
    pub fn durable(mut self, expiry: u32) -> Self {
        (self.clean, self.expiry) = (false, expiry);
        self
    }

    /// Promises to be heard of so often, in seconds.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// With a will.
    #[must_use]
    pub fn with_will(mut self, topic: &str, payload: &str) -> Self {
        self.will = Some(Will {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
        });
        self
    }

    /// Connects; panics with the reason when refused.
    pub(crate) fn open(&mut self, server: SocketAddr) {
        let code = self.try_open(server);
        assert_eq!(code, Some(0), "CONNACK of {}", self.client);
    }

    /// Connects; the reason code of the CONNACK, if one came.
    pub fn try_open(&mut self, server: SocketAddr) -> Option<u8> {
        let mut wire = Wire::open(server);
        wire.send(&self.connect());
        let answer = wire.packet()?;
        let [0x20, _, present, code, ..] = answer[..] else {
            return None;
        };
        self.was_present = present & 1 == 1;
        self.wire = Some(wire);
        Some(code)
    }

    fn connect(&self) -> Vec<u8> {
        let mut flags = if self.clean { 0x02 } else { 0 };
        let mut body = Vec::new();
        text(&mut body, "MQTT");
        if self.will.is_some() {
            flags |= 0x04 | 0x08;
        }
        body.extend([5, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        let properties = if self.expiry > 0 {
            [&[0x11][..], &self.expiry.to_be_bytes()].concat()
        } else {
            Vec::new()
        };
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
        text(&mut body, &self.client);
        if let Some(will) = &self.will {
            body.push(0);
            text(&mut body, &will.topic);
            text(&mut body, &will.payload);
        }
        framed(0x10, &body)
    }

    fn wire(&mut self) -> &mut Wire {
        self.wire.as_mut().unwrap()
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    /// Subscribes and waits for the SUBACK; its reason code.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        let id = self.id();
        let mut body = id.to_be_bytes().to_vec();
        body.push(0);
        text(&mut body, filter);
        body.push(qos);
        self.wire().send(&framed(0x82, &body));
        let answer = self.answer(0x90, id);
        *answer.last().unwrap()
    }

    /// Publishes with QoS 1 and waits for the PUBACK; its reason code, 0 also where nobody listens.
    pub fn publish(&mut self, topic: &str, payload: &str) -> u8 {
        let id = self.id();
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend(id.to_be_bytes());
        body.push(0);
        body.extend(payload.as_bytes());
        self.wire().send(&framed(0x32, &body));
        let answer = self.answer(0x40, id);
        let code = answer.get(4).copied().unwrap_or(0);
        if code == NO_SUBSCRIBERS { 0 } else { code }
    }

    /// The answer to a packet of ours; messages that come before it are kept.
    fn answer(&mut self, first: u8, id: u16) -> Vec<u8> {
        loop {
            let packet = self.packet().unwrap_or_else(|| {
                panic!("{}: the connection ended: {:?}", self.client, self.ended)
            });
            if packet[0] == first && packet[2..4] == id.to_be_bytes() {
                return packet;
            }
            if let Some(message) = self.taken(&packet) {
                self.early.push_back(message);
            }
        }
    }

    /// The next message; none when nothing comes within `patience` or the connection ends.
    pub fn message(&mut self, patience: Duration) -> Option<Message> {
        if let Some(message) = self.early.pop_front() {
            return Some(message);
        }
        self.wire().patience(patience);
        let message = loop {
            let Some(packet) = self.packet() else {
                break None;
            };
            if let Some(message) = self.taken(&packet) {
                break Some(message);
            }
        };
        self.wire().patience(crate::PATIENCE);
        message
    }

    /// Waits until the server has heard everything that was said so far. A reset throws away what it has not read.
    pub fn ping(&mut self) {
        self.wire().send(&[0xc0, 0]);
        loop {
            let packet = self
                .packet()
                .unwrap_or_else(|| panic!("{}: the connection ended", self.client));
            if packet[0] == 0xd0 {
                return;
            }
            if let Some(message) = self.taken(&packet) {
                self.early.push_back(message);
            }
        }
    }

    /// Waits until the server ends the connection; the reason it gave.
    pub fn end(&mut self) -> Option<u8> {
        while self.packet().is_some() {}
        self.ended
    }

    /// The next packet, whatever it is.
    fn packet(&mut self) -> Option<Vec<u8>> {
        let packet = self.wire().packet()?;
        if packet[0] == 0xe0 {
            self.ended = Some(packet.get(2).copied().unwrap_or(0));
        }
        Some(packet)
    }

    /// A message in a packet, acknowledged.
    fn taken(&mut self, packet: &[u8]) -> Option<Message> {
        if packet[0] == 0x62 {
            // PUBREL: the sender may forget it.
            self.wire().send(&framed(0x70, &packet[2..4]));
            return None;
        }
        if packet[0] & 0xf0 != 0x30 {
            return None;
        }
        let head = 1 + packet[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let body = &packet[head..];
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
        let mut rest = &body[2 + length..];
        let qos = packet[0] >> 1 & 3;
        if qos > 0 {
            let answer = if qos == 1 { 0x40 } else { 0x50 };
            self.wire().send(&framed(answer, &rest[..2]));
            rest = &rest[2..];
        }
        let properties = usize::from(rest[0]);
        Some(Message {
            topic,
            payload: String::from_utf8(rest[1 + properties..].to_vec()).unwrap(),
            qos,
            retain: packet[0] & 1 == 1,
        })
    }

    /// Says farewell.
    pub fn disconnect(mut self) {
        self.wire().send(&[0xe0, 0]);
    }

    /// Ends the connection with a reset, without farewell.
    pub fn reset(mut self) {
        if let Some(wire) = self.wire.take() {
            wire.reset();
        }
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}
