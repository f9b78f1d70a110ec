//! What a client's message does: requests to shadows go to the fleet, and every message goes to its subscribers.

use std::{num::NonZeroU16, sync::Arc};

use umbel_core::{
    ids::DeviceId,
    message::Message,
    shadow::{Origin, Request},
    topic::aws::{self, AwsTopic},
};
use umbel_storage::{Table, Write};

use super::{
    Broker,
    durable::Patience,
    fleet::FleetError,
    mailbox::{Inbound, Mailbox},
    rows,
    ticket::{Outcome, Pending, Settler, start},
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
        id: NonZeroU16,
        durable: bool,
        effect: Pending,
        settler: Settler,
    ) {
        let broker = Arc::clone(self);
        let mailbox = Arc::clone(mailbox);
        drop(start(Box::pin(async move {
            let mut outcome = effect.outcome().await;
            if outcome.is_done()
                && durable
                && let Some(remembered) = broker.write_identifier(&mailbox, id)
            {
                let remembered = remembered.outcome().await;
                if !remembered.is_done() {
                    outcome = remembered;
                }
            }
            let mut state = mailbox.lock();
            if outcome.is_done() {
                if let Some(entry) = state.inbound.get_mut(&id) {
                    *entry = Inbound::Received;
                }
            } else {
                state.inbound.remove(&id);
            }
            state.tidy();
            drop(state);
            settler.settle(outcome);
            outcome
        })));
    }

    /// Not if the session is over, and under its lock: the row would come behind the deletions of the session's end, and
    /// after a restart a message of the client's next session would be taken for one that came before.
    fn write_identifier(&self, mailbox: &Mailbox, id: NonZeroU16) -> Option<Pending> {
        let state = mailbox.lock();
        if state.ended {
            return None;
        }
        let row = Write::put(
            Table::Inbound,
            rows::inbound_key(mailbox.client(), id),
            rows::encode_inbound(),
        );
        let written = self.write(mailbox.shard(), vec![row]);
        drop(state);
        Some(written)
    }

    /// PUBREL came: the identifier is free once its row is gone.
    pub(crate) fn free_identifier(&self, mailbox: &Arc<Mailbox>, id: NonZeroU16) -> Pending {
        let row = Write::delete(Table::Inbound, rows::inbound_key(mailbox.client(), id));
        let mailbox = Arc::clone(mailbox);
        self.write(mailbox.shard(), vec![row]).then(move |outcome| {
            if outcome.is_done() {
                let mut state = mailbox.lock();
                state.inbound.remove(&id);
                state.tidy();
            }
            outcome
        })
    }

    /// PUBREC came: the row says that only PUBREL is left.
    pub(crate) fn mark_released(&self, mailbox: &Mailbox, sequence: u64) -> Pending {
        let key = rows::queue_key(mailbox.client(), sequence);
        let row = Write::put(Table::Queue, key, rows::encode_released());
        self.write(mailbox.shard(), vec![row])
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
