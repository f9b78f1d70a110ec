//! What a client's message does: requests to shadows go to the fleet, and every message goes to its subscribers.

use std::{num::NonZeroU16, sync::Arc};

use super::{
    Broker,
    durable::Patience,
    fleet::FleetError,
    mailbox::{Inbound, Mailbox},
    ticket::{Outcome, Pending, Settler, start},
};
use umbel_core::{
    ids::{DeviceId, SessionEpoch},
    message::Message,
    shadow::{Origin, Request},
    topic::aws::{self, AwsTopic},
};

impl Broker {
    /// A message of a client, its rights judged. As AWS does, a request to a shadow is also seen by those who subscribe
    /// to its topic.
    pub(crate) fn accept(self: &Arc<Self>, message: Message) -> Pending {
        let request = shadow_request(&message);
        let routed = self.route(message, Patience::Never);
        match request {
            Some((device, request)) => routed.and(self.ask(device, request)),
            None => routed,
        }
    }

    fn ask(self: &Arc<Self>, device: DeviceId, request: Request) -> Pending {
        let Some(fleet) = self.fleet.get() else {
            return Pending::Ready(Outcome::Unavailable);
        };
        let asked = fleet.shadow(device, request);
        start(Box::pin(async move {
            match asked.await {
                Ok(()) | Err(FleetError::Rejected) => Outcome::Done,
                Err(FleetError::Busy) => Outcome::QuotaExceeded,
                Err(FleetError::NotListed | FleetError::Unavailable) => Outcome::Unavailable,
            }
        }))
    }

    /// When the effect of a QoS 2 message is done, remembers its identifier, durably if the session is durable, and then
    /// says so. The effect is committed first: a crash between the two repeats it, one before it would lose it.
    pub(crate) fn remember_identifier(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        epoch: SessionEpoch,
        id: NonZeroU16,
        effect: Pending,
        settler: Settler,
    ) {
        let broker = Arc::clone(self);
        let mailbox = Arc::clone(mailbox);
        drop(start(Box::pin(async move {
            let mut outcome = effect.outcome().await;
            if outcome.is_done() && mailbox.is_window() {
                let remembered = broker.ask_remember(&mailbox, epoch, id).await;
                if !remembered.is_done() {
                    outcome = remembered;
                }
            }
            // first: whoever took the session over holds a ticket, and this entry stands for the ticket
            settler.settle(outcome);
            let mut state = mailbox.lock();
            drop(state.inbound(id));
            state.tidy();
            drop(state);
            outcome
        })));
    }

    /// The home of a window of this node learns what is under way, for the next connection of the client.
    pub(crate) fn receiving(mailbox: &Mailbox, id: NonZeroU16, effect: &Pending) {
        let home = mailbox
            .lock()
            .link
            .as_ref()
            .and_then(|link| link.here().cloned());
        if let Some(home) = home {
            let entry = Inbound::Committing(effect.clone());
            home.lock().inbound.insert(id, entry);
        }
    }
}

fn shadow_request(message: &Message) -> Option<(DeviceId, Request)> {
    let AwsTopic::Shadow(topic) = aws::parse(&message.topic)? else {
        return None;
    };
    let verb = topic.request()?;
    let origin = match &message.publisher {
        Some(client) => Origin::Mqtt {
            client: client.clone(),
        },
        None => return None, // what the cluster says asks nothing of a shadow
    };
    let request = Request {
        shadow: topic.shadow,
        verb,
        payload: message.payload.clone(),
        origin,
    };
    Some((topic.device, request))
}
