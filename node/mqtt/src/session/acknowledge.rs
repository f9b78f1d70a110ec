//! What the client acknowledges.

use umbel_core::message::Qos;

use super::{Session, reply::What};
use crate::{
    broker::{Acknowledged, Outcome, Pending},
    close::Close,
    outgoing::Outgoing,
    packet::{Ack, Packet},
    reason::ReasonCode,
};

impl Session {
    pub(super) fn on_puback(&mut self, ack: &Ack) -> Result<(), Close> {
        // an identifier nobody knows is no error: a message may have been dropped for its size meanwhile
        self.acknowledge(|outbound| outbound.finish(ack.packet_id, Qos::AtLeastOnce))
            .map(drop)
    }

    /// PUBREC: the message is the client's. A durable session remembers that before it says PUBREL, so that a restart
    /// goes on with PUBREL and not with the message.
    pub(super) fn on_pubrec(&mut self, ack: &Ack, out: &mut Outgoing) -> Result<(), Close> {
        let id = ack.packet_id;
        if ack.reason.is_error() {
            // the client does not want it: that is the end of it (MQTT-4.3.3-4)
            return self
                .acknowledge(|outbound| outbound.finish(id, Qos::ExactlyOnce))
                .map(drop);
        }
        match self.acknowledge(|outbound| outbound.receive(id))? {
            Acknowledged::Received(sequence) => {
                let remembered = if self.mailbox.is_window() {
                    self.broker
                        .ask_received(&self.mailbox, self.epoch, sequence)
                } else {
                    Pending::Ready(Outcome::Done)
                };
                self.reply(What::PubRel(id, sequence), remembered, out)
            },
            Acknowledged::Again | Acknowledged::Finished(_) => {
                self.reply_with(Packet::PubRel(Ack::new(id, ReasonCode::Success)), out);
                Ok(())
            },
            Acknowledged::Unknown => {
                let unknown = Ack::new(id, ReasonCode::PacketIdentifierNotFound);
                self.reply_with(Packet::PubRel(unknown), out);
                Ok(())
            },
        }
    }

    pub(super) fn on_pubcomp(&mut self, ack: &Ack) -> Result<(), Close> {
        self.acknowledge(|outbound| outbound.complete(ack.packet_id))
            .map(drop)
    }

    /// Notes an acknowledgement; the home of a durable session is told what is done.
    fn acknowledge(
        &self,
        note: impl FnOnce(&mut crate::broker::Outbound) -> Acknowledged,
    ) -> Result<Acknowledged, Close> {
        let mut state = self.state()?;
        let Some(outbound) = state.outbound_if_any() else {
            return Ok(Acknowledged::Unknown);
        };
        let acknowledged = note(outbound);
        state.tidy();
        drop(state);
        if let Acknowledged::Finished(sequence) = acknowledged
            && self.mailbox.is_window()
        {
            self.broker
                .acknowledged(&self.mailbox, self.epoch, sequence);
        }
        Ok(acknowledged)
    }
}
