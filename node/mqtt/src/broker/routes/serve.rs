//! A message that another node hands over for sessions of this one.

use std::sync::Arc;

use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{ClientId, NodeId, ShardId},
    message::{Message, Qos},
    topic::device_scope,
};

use super::{Homes, Routes, recent::Name};
use crate::broker::{
    Broker,
    durable::{Batch, Patience},
    peers::routes::{Deliver, Delivered, Own, Reply},
    router::{Choice, Scope, Shards},
    ticket::{Outcome, Pending},
};

/// What becomes of it.
struct Served {
    others: Pending,
    own: Pending,
    shards: Vec<(ShardId, Pending)>,
}

/// Which part of a shard a message is for, and whether it came before.
enum Part {
    /// Not yet: it is to be delivered.
    Fresh,
    /// It came before, or it cannot be delivered here.
    Known(Pending),
}

/// Where a device hears its own topics.
#[derive(Default)]
struct OwnPlace {
    /// Its shard, if this node delivers as its owner.
    shard: Option<ShardId>,
    /// A clean session of this node.
    is_here: bool,
    /// The node of its connection, if it is another.
    gateway: Option<NodeId>,
}

impl Broker {
    /// Delivers for another node. Everything has its place when this returns.
    pub(in crate::broker) fn deliver_for(
        self: &Arc<Self>,
        from: NodeId,
        deliver: &Deliver,
    ) -> BoxFuture<'static, Result<Reply, String>> {
        let Some(routes) = &self.routes else {
            let why = "this node is alone".to_owned();
            return Box::pin(std::future::ready(Err(why)));
        };
        let served = self.serve_delivery(routes, from, deliver);
        Box::pin(async move { Ok(served.reply().await) })
    }

    fn serve_delivery(
        self: &Arc<Self>,
        routes: &Routes,
        from: NodeId,
        deliver: &Deliver,
    ) -> Served {
        let is_named = deliver.message.qos > Qos::AtMostOnce;
        let sessions = (from, deliver.id, false);
        let device = (from, deliver.id, true);
        let (mut known, mut fresh) = (Vec::new(), Vec::new());
        let homes = routes.homes();
        for shard in &deliver.shards {
            match self.part(routes, &homes, *shard, (&sessions, is_named)) {
                Part::Fresh => fresh.push(*shard),
                Part::Known(pending) => known.push((*shard, pending)),
            }
        }
        let mut own = Pending::Ready(Outcome::NoMatch);
        let place = match self.own_place(routes, &homes, deliver, &device) {
            Ok(place) => place,
            Err(pending) => {
                own = pending;
                OwnPlace::default()
            },
        };
        let scope = Scope {
            clean: deliver.clean,
            durable: Shards::Of(&homes, Choice::Only(&fresh)),
            own_clean: place.is_here,
            own_durable: place.shard.is_some(),
        };
        let patience = Patience::of(deliver.is_patient);
        let (matched, committed) = self.deliver_here(&deliver.message, &scope, patience);
        // a node that does not own the shard any more, or has it anew, may not even say that nobody is there
        let of = |shard: ShardId| {
            if !self.is_served(&homes, shard) {
                return Pending::Ready(Outcome::Unavailable);
            }
            let rows = committed.iter().filter(|(other, _)| *other == shard);
            rows.fold(Pending::Ready(matched), |all, (_, one)| {
                all.and(one.clone())
            })
        };
        let remember = |shard: ShardId, name: Name, outcome: &Pending| {
            if is_named {
                routes.recent.remember(shard, name, outcome.clone());
            }
        };
        for shard in fresh {
            let outcome = of(shard);
            remember(shard, sessions, &outcome);
            known.push((shard, outcome));
        }
        if let Some(shard) = place.shard {
            own = of(shard);
            if let Some(node) = place.gateway {
                own = own.and(self.pass_on(routes, node, &deliver.message, patience));
            }
            remember(shard, device, &own);
        }
        Served {
            others: Pending::Ready(matched),
            own,
            shards: known,
        }
    }

    fn part(
        &self,
        routes: &Routes,
        homes: &Homes,
        shard: ShardId,
        (name, is_named): (&Name, bool),
    ) -> Part {
        if !self.is_served(homes, shard) {
            return Part::Known(Pending::Ready(Outcome::Unavailable));
        }
        match routes.recent.outcome(shard, name).filter(|_| is_named) {
            Some(known) => Part::Known(known),
            None => Part::Fresh,
        }
    }

    /// Where the device is that a topic belongs to, or what became of the message when it came before.
    fn own_place(
        &self,
        routes: &Routes,
        homes: &Homes,
        deliver: &Deliver,
        name: &Name,
    ) -> Result<OwnPlace, Pending> {
        match deliver.own {
            Own::None => return Ok(OwnPlace::default()),
            Own::Here => {
                return Ok(OwnPlace {
                    is_here: true,
                    ..OwnPlace::default()
                });
            },
            Own::Everywhere => {},
        }
        let Some(device) = device_scope(&deliver.message.topic) else {
            return Ok(OwnPlace::default());
        };
        let client = ClientId::from(device);
        let shard = self.shard_of(&client);
        let is_named = deliver.message.qos > Qos::AtMostOnce;
        if let Part::Known(pending) = self.part(routes, homes, shard, (name, is_named)) {
            return Err(pending);
        }
        let node = self.gateway_of(&client);
        Ok(OwnPlace {
            shard: Some(shard),
            is_here: node == Some(routes.me),
            gateway: node.filter(|node| *node != routes.me),
        })
    }

    /// A message to the sessions of this node that are meant: whether there are any, and the rows of the durable ones.
    fn deliver_here(
        self: &Arc<Self>,
        message: &Arc<Message>,
        scope: &Scope<'_>,
        patience: Patience,
    ) -> (Outcome, Vec<(ShardId, Pending)>) {
        let publisher = message.publisher.as_ref();
        let receivers = self
            .router
            .receivers(&message.topic, publisher, scope, |_| None);
        let matched = if receivers.is_empty() {
            Outcome::NoMatch
        } else {
            Outcome::Done
        };
        let mut batch = Batch::new(patience);
        for receiver in receivers {
            self.give(message, receiver, &mut batch);
        }
        (matched, batch.commit_each(self))
    }
}

impl Patience {
    /// What another node asks for.
    pub(super) const fn of(is_patient: bool) -> Self {
        if is_patient {
            Self::WhileBusy
        } else {
            Self::Never
        }
    }
}

impl Served {
    async fn reply(self) -> Reply {
        let mut shards = Vec::with_capacity(self.shards.len());
        for (shard, pending) in self.shards {
            shards.push((shard, pending.outcome().await.into()));
        }
        Reply::Delivered {
            others: self.others.outcome().await.into(),
            own: self.own.outcome().await.into(),
            shards,
        }
    }
}

impl From<Delivered> for Outcome {
    fn from(delivered: Delivered) -> Self {
        match delivered {
            Delivered::Done { matched: true } => Self::Done,
            Delivered::Done { matched: false } => Self::NoMatch,
            Delivered::QuotaExceeded => Self::QuotaExceeded,
            Delivered::TooLarge => Self::TooLarge,
            Delivered::Unavailable => Self::Unavailable,
        }
    }
}

impl From<Outcome> for Delivered {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done { matched: true },
            Outcome::NoMatch => Self::Done { matched: false },
            Outcome::QuotaExceeded => Self::QuotaExceeded,
            Outcome::TooLarge => Self::TooLarge,
            Outcome::Unavailable => Self::Unavailable,
        }
    }
}
