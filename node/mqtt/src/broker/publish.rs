//! A message on its way to everybody who gets it.

use std::sync::Arc;

use umbel_core::message::Message;
use umbel_storage::Refusal;

use super::{
    Broker,
    delivery::Delivery,
    durable::{Batch, Patience},
    retained::Full,
    router::{Receiver, Scope},
    ticket::{Outcome, Pending, start},
};

impl Broker {
    /// Routes a message. Done when it is committed for every durable session that gets it and, if it is to be
    /// retained, in its topic's shard, and handed to the queue of every other receiver.
    ///
    /// Without a durable receiver this touches no log, starts no task and is done when it returns. Two messages of one
    /// caller reach each receiver in the order of the calls.
    pub(crate) fn route(self: &Arc<Self>, message: Message, patience: Patience) -> Pending {
        let message = match &self.routes {
            None => message,
            Some(routes) => match self.hold_back(routes, message, patience) {
                Ok(pending) => return pending,
                Err(message) => message,
            },
        };
        // retained before the receivers are looked up: who subscribes meanwhile gets it by the one or the other
        let retained = if message.retain && !message.topic.starts_with('$') {
            match self.retain(&message, patience) {
                Ok(pending) => self.or_elsewhere(pending, &message, patience),
                Err(Full) => return Pending::Ready(Outcome::QuotaExceeded),
            }
        } else {
            Pending::Ready(Outcome::NoMatch)
        };
        self.route_on(message, patience, retained)
    }

    /// A topic whose shard moved on while its message was being kept: what nobody says again follows it.
    fn or_elsewhere(
        self: &Arc<Self>,
        kept: Pending,
        message: &Message,
        patience: Patience,
    ) -> Pending {
        let is_kept = matches!(&kept, Pending::Ready(outcome) if outcome.is_done());
        if is_kept || patience == Patience::Never || self.routes.is_none() {
            return kept;
        }
        let (broker, message) = (Arc::clone(self), message.clone());
        start(Box::pin(async move {
            match kept.outcome().await {
                Outcome::Unavailable => broker.keep_there(message, patience).await,
                outcome @ (Outcome::Done
                | Outcome::NoMatch
                | Outcome::QuotaExceeded
                | Outcome::TooLarge) => outcome,
            }
        }))
    }

    /// Routes a message of which this became as a retained one.
    pub(crate) fn route_on(
        self: &Arc<Self>,
        message: Message,
        patience: Patience,
        retained: Pending,
    ) -> Pending {
        if let Some(routes) = &self.routes {
            return self.route_far(routes, message, patience, retained);
        }
        let receivers = self.router.receivers(
            &message.topic,
            message.publisher.as_ref(),
            &Scope::ALL,
            |group| self.router.pick(group),
        );
        if receivers.is_empty() {
            return match retained {
                Pending::Ready(Outcome::Done) => Pending::Ready(Outcome::NoMatch),
                other @ (Pending::Ready(_) | Pending::Waiting(_)) => other,
            };
        }
        let message = Arc::new(message);
        let mut batch = Batch::new(patience);
        for receiver in receivers {
            self.give(&message, receiver, &mut batch);
        }
        batch.commit(self).and(retained)
    }

    /// A message to one receiver: into its queue, or into the batch of rows to be committed.
    pub(crate) fn give(
        self: &Arc<Self>,
        message: &Arc<Message>,
        receiver: Receiver,
        batch: &mut Batch,
    ) {
        if message.retain {
            // older ones of its topic that are on their way to this session are left out
            let mut state = receiver.mailbox.lock();
            if let Some(owed) = &mut state.backfill {
                owed.overtake(&message.topic);
            }
        }
        let delivery = Delivery {
            sequence: 0,
            message: Arc::clone(message),
            qos: message.qos.min(receiver.qos),
            retain: message.retain && receiver.retain_as_published,
            subscription_ids: receiver.ids,
            released: false,
        };
        self.enqueue(&receiver.mailbox, delivery, batch);
    }

    pub(crate) fn retain(
        self: &Arc<Self>,
        message: &Message,
        patience: Patience,
    ) -> Result<Pending, Full> {
        let mut change = self.retained.change(message)?;
        let again = (patience == Patience::WhileBusy).then(|| message.clone());
        let broker = Arc::clone(self);
        Ok(start(Box::pin(async move {
            let mut tries = Patience::tries();
            loop {
                let (receipt, topic, version) = change.into_parts();
                let outcome = receipt.await;
                if outcome.is_ok() {
                    broker.retained.settle(&topic, version);
                    return Outcome::Done;
                }
                broker.retained.undo(&topic, version);
                let again = again
                    .as_ref()
                    .filter(|_| outcome == Err(Refusal::Busy) && tries.next().is_some());
                let Some(message) = again else {
                    return Outcome::from(outcome);
                };
                Patience::pause().await;
                change = match broker.retained.change(message) {
                    Ok(change) => change,
                    Err(Full) => return Outcome::QuotaExceeded,
                };
            }
        })))
    }
}
