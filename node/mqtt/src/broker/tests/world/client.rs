//! A client that speaks packets and hears bytes.

use std::{
    num::{NonZeroU16, NonZeroU32},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use umbel_core::{message::Qos, time::Tick};

use super::said::{Got, Said, decode, messages};
use crate::{
    close::{Close, CloseCause},
    outgoing::Outgoing,
    packet::{
        Ack, ConnAck, Disconnect, Packet, Publish, PublishProperties, RetainHandling, Subscribe,
        SubscribeOptions, Subscription, Unsubscribe,
    },
    reason::{ProtocolVersion, ReasonCode},
    session::Session,
};

pub(in super::super) struct Client {
    pub(in super::super) session: Option<Session>,
    pub(in super::super) answer: ConnAck,
    pub(super) out: Outgoing,
    pub(super) version: ProtocolVersion,
    pub(super) next_id: u16,
}

impl Client {
    /// Sends a packet and hears everything said because of it, or why the connection ends.
    pub(in super::super) fn try_send(&mut self, packet: Packet) -> Result<Vec<Said>, Close> {
        let session = self.session.as_mut().expect("connected");
        session.handle(packet, Tick::default(), &mut self.out)?;
        self.try_hear()
    }

    pub(in super::super) fn send(&mut self, packet: Packet) -> Vec<Said> {
        self.try_send(packet).expect("the connection stays")
    }

    /// Hears everything there is to say now.
    pub(in super::super) fn try_hear(&mut self) -> Result<Vec<Said>, Close> {
        let mut heard = Vec::new();
        let session = self.session.as_mut().expect("connected");
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let polled = session.poll_output(&mut cx, Tick::default(), &mut self.out);
            heard.extend(decode(self.version, self.out.bytes()));
            self.out.buffer_mut().clear();
            match polled {
                Poll::Ready(Ok(())) => {},
                Poll::Ready(Err(close)) => return Err(close),
                Poll::Pending => return Ok(heard),
            }
        }
    }

    pub(in super::super) fn hear(&mut self) -> Vec<Said> {
        self.try_hear().expect("the connection stays")
    }

    /// The messages among what there is to hear.
    pub(in super::super) fn messages(&mut self) -> Vec<Got> {
        messages(self.hear())
    }

    pub(in super::super) fn payloads(&mut self) -> Vec<String> {
        self.messages().into_iter().map(|got| got.payload).collect()
    }

    pub(in super::super) fn id(&mut self) -> NonZeroU16 {
        self.next_id += 1;
        NonZeroU16::new(self.next_id).expect("not zero")
    }

    pub(in super::super) fn subscribe(&mut self, filter: &str, qos: Qos) -> Vec<Said> {
        self.subscribe_with(filter, None, |options| options.qos = qos)
    }

    pub(in super::super) fn subscribe_with(
        &mut self,
        filter: &str,
        id: Option<u32>,
        change: impl FnOnce(&mut SubscribeOptions),
    ) -> Vec<Said> {
        let packet = self.subscribe_packet(filter, id, change);
        self.send(packet)
    }

    pub(in super::super) fn subscribe_packet(
        &mut self,
        filter: &str,
        id: Option<u32>,
        change: impl FnOnce(&mut SubscribeOptions),
    ) -> Packet {
        let mut options = SubscribeOptions {
            qos: Qos::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        change(&mut options);
        Packet::Subscribe(Box::new(Subscribe {
            packet_id: self.id(),
            subscription_id: id.and_then(NonZeroU32::new),
            filters: vec![Subscription {
                filter: filter.to_owned(),
                options,
            }],
            user: Vec::new(),
        }))
    }

    pub(in super::super) fn unsubscribe(&mut self, filter: &str) -> Vec<Said> {
        let packet = Packet::Unsubscribe(Box::new(Unsubscribe {
            packet_id: self.id(),
            filters: vec![filter.to_owned()],
            user: Vec::new(),
        }));
        self.send(packet)
    }

    pub(in super::super) fn publish(&mut self, topic: &str, payload: &str, qos: Qos) -> Vec<Said> {
        let publish = self.message(topic, payload, qos);
        self.send(Packet::Publish(publish))
    }

    pub(in super::super) fn retain(&mut self, topic: &str, payload: &str) -> Vec<Said> {
        let mut publish = self.message(topic, payload, Qos::AtLeastOnce);
        publish.retain = true;
        self.send(Packet::Publish(publish))
    }

    pub(in super::super) fn message(&mut self, topic: &str, payload: &str, qos: Qos) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.to_owned(),
            packet_id: (qos > Qos::AtMostOnce).then(|| self.id()),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            properties: None,
        }
    }

    pub(in super::super) fn message_with(
        &mut self,
        topic: &str,
        payload: &str,
        qos: Qos,
        change: impl FnOnce(&mut PublishProperties),
    ) -> Publish {
        let mut publish = self.message(topic, payload, qos);
        let mut properties = PublishProperties::default();
        change(&mut properties);
        publish.properties = Some(Box::new(properties));
        publish
    }

    pub(in super::super) fn puback(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubAck(ack(id)))
    }

    pub(in super::super) fn pubrec(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubRec(ack(id)))
    }

    pub(in super::super) fn pubrel(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubRel(ack(id)))
    }

    pub(in super::super) fn pubcomp(&mut self, id: u16) -> Vec<Said> {
        self.send(Packet::PubComp(ack(id)))
    }

    /// Says goodbye.
    pub(in super::super) async fn disconnect(mut self) {
        let goodbye =
            Packet::Disconnect(Box::new(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
        let close = self.try_send(goodbye).expect_err("closes");
        self.session.take().expect("connected").close(close).await;
    }

    /// The socket breaks.
    pub(in super::super) async fn lose(mut self) {
        let close = Close::silent(CloseCause::ConnectionLost);
        self.session.take().expect("connected").close(close).await;
    }
}

pub(in super::super) fn ack(id: u16) -> Ack {
    Ack::new(NonZeroU16::new(id).expect("not zero"), ReasonCode::Success)
}
