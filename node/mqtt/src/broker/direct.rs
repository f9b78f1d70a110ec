//! A message to one client, whatever it subscribed to.

use std::sync::Arc;

use umbel_core::{
    ids::ClientId,
    message::{Message, Qos},
};

use super::{Broker, Queued, mailbox::Delivered};

impl Broker {
    /// Hands a message to a connected client, at most once. False if it is not connected, or if too much waits for
    /// it already. What the client may not receive is dropped when it would be sent, as with any delivery.
    pub fn send_direct(&self, client: &ClientId, message: Message) -> bool {
        let Some(mailbox) = self.sessions.get(client) else {
            return false;
        };
        let delivery = Queued {
            sequence: 0,
            message: Arc::new(message),
            qos: Qos::AtMostOnce,
            retain: false,
            subscription_ids: Vec::new(),
            released: false,
        };
        match mailbox.deliver(delivery, &self.bounds) {
            Delivered::Queued { .. } => true,
            Delivered::ToStore { .. } | Delivered::Full | Delivered::Absent => false,
        }
    }
}
