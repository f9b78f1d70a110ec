//! Shared groups: one member in the whole cluster gets each message.
//!
//! A connected member of this node is picked first, then a node or shard that says it has a connected one, in turn, then a
//! durable session that waits for its client. Who was asked picks one of its members, or says that it has none; then the
//! next is asked.

use std::{sync::Arc, time::Duration};

use tokio::time::{self, Instant};
use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::NodeId,
    message::Qos,
    topic::{Filter, Limits},
};
use umbel_storage::PeerError;

use super::{
    Routes,
    forward::WITHIN,
    lanes::Letter,
    table::{Candidate, Found},
};
use crate::broker::{
    Broker,
    durable::{Batch, Patience},
    metrics::{self, Drop},
    peers::{
        Ask, Reply, Tell,
        routes::{self as words, Dest, Pick, Picked},
    },
    router::Receiver,
    ticket::{Outcome, Pending, start},
};

/// Before those who may have a member are asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What became of one attempt.
enum Attempt {
    /// A member has it, or it was refused for good.
    Over(Outcome),
    /// There is no such member any more.
    Nobody,
    /// Nothing was done.
    NotNow,
    /// It may have been done.
    Unknown,
}

/// Who may have a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// A durable session of this node, whose client is away.
    Here,
    Elsewhere(Dest),
}

impl Broker {
    /// Gives a message to one member of each group of `filters`, none of which has a connected member here. Everything
    /// takes its place before this returns.
    pub(super) fn share(
        self: &Arc<Self>,
        routes: &Routes,
        letter: &Letter,
        filters: Vec<Filter>,
    ) -> Pending {
        let mut all = Pending::Ready(Outcome::NoMatch);
        for filter in filters {
            let letter = Letter {
                id: routes.name(), // each group's message is one of its own
                ..letter.clone()
            };
            if letter.message.qos == Qos::AtMostOnce {
                self.share_at_most_once(routes, &letter, &filter);
                continue;
            }
            let broker = Arc::clone(self);
            all = all.and(start(Box::pin(async move {
                broker.find_member(letter, filter).await
            })));
        }
        all
    }

    fn share_at_most_once(&self, routes: &Routes, letter: &Letter, filter: &Filter) {
        for (holder, connected) in self.holders(routes, filter, letter) {
            let Some(node) = self.node_of(routes, holder).filter(|_| connected) else {
                continue;
            };
            let Holder::Elsewhere(dest) = holder else {
                continue;
            };
            let pick = letter.pick(filter, dest, true);
            if self
                .peers
                .tell(node, Tell::Routes(words::Tell::Pick(pick)))
                .is_ok()
            {
                return;
            }
            metrics::dropped(Drop::NodeUnreachable, 1);
        }
    }

    /// Gives a message to a connected member of this node that has a home here. If the home's shard goes before it is kept,
    /// another member is looked for, or the same one where it is then.
    pub(super) fn share_here(
        self: &Arc<Self>,
        routes: &Routes,
        letter: &Letter,
        filter: Filter,
        member: Receiver,
    ) -> Pending {
        let letter = Letter {
            id: routes.name(),
            ..letter.clone()
        };
        let taken = self.give_member(&letter, member);
        if letter.message.qos == Qos::AtMostOnce
            || matches!(taken, Pending::Ready(outcome) if outcome.is_done())
        {
            return taken;
        }
        let broker = Arc::clone(self);
        start(Box::pin(async move {
            match taken.outcome().await {
                Outcome::Unavailable => broker.find_member(letter, filter).await,
                taken @ (Outcome::Done
                | Outcome::NoMatch
                | Outcome::QuotaExceeded
                | Outcome::TooLarge) => taken,
            }
        }))
    }

    /// A message to one member. Unavailable, too, if its home has gone since it was picked.
    fn give_member(self: &Arc<Self>, letter: &Letter, member: Receiver) -> Pending {
        let mailbox = Arc::clone(&member.mailbox);
        let mut batch = Batch::new(letter.patience);
        self.give(&letter.message, member, &mut batch);
        if batch.is_empty() && mailbox.is_home() && mailbox.lock().ended {
            return Pending::Ready(Outcome::Unavailable);
        }
        batch.commit(self)
    }

    async fn find_member(self: Arc<Self>, letter: Letter, filter: Filter) -> Outcome {
        let until = Instant::now() + letter.patience.waits_for_owner();
        let mut changes = self.nodes.changes();
        // who may have taken it has to be asked again, and nobody else if it must not be taken twice
        let mut only = None;
        loop {
            let Some(routes) = &self.routes else {
                return Outcome::Unavailable;
            };
            changes.mark_unchanged();
            let mut is_undecided = false;
            for (holder, connected) in self.holders(routes, &filter, &letter) {
                if only.is_some_and(|only| only != holder) {
                    continue;
                }
                let attempt = self.attempt(routes, &letter, &filter, (holder, connected));
                match attempt.await {
                    Attempt::Over(outcome) => return outcome,
                    Attempt::Nobody => {},
                    Attempt::NotNow => is_undecided = true,
                    Attempt::Unknown => {
                        is_undecided = true;
                        if letter.message.qos == Qos::ExactlyOnce {
                            only = Some(holder);
                        }
                    },
                }
            }
            if !is_undecided && only.is_none() {
                return Outcome::NoMatch;
            }
            if Instant::now() >= until {
                return Outcome::Unavailable;
            }
            drop(time::timeout(AGAIN_AFTER, changes.changed()).await);
        }
    }

    /// Who may have a member, whoever has a connected one first, and whether it says so.
    fn holders(&self, routes: &Routes, filter: &Filter, letter: &Letter) -> Vec<(Holder, bool)> {
        let mut found = Found::default();
        routes.table.read().find(&letter.message.topic, &mut found);
        let of_group = |candidate: &Candidate| candidate.filter == *filter;
        let mut holders: Vec<_> = found
            .shared
            .into_iter()
            .filter(of_group)
            .map(|candidate| (Holder::Elsewhere(candidate.dest), candidate.connected))
            .collect();
        if self.router.has_member(filter) {
            holders.push((Holder::Here, false));
        }
        if !holders.is_empty() {
            let turn = self.router.next_turn() % holders.len() as u64;
            holders.rotate_left(usize::try_from(turn).unwrap_or_default());
        }
        holders.sort_by_key(|(_, connected)| !connected);
        holders
    }

    fn node_of(&self, routes: &Routes, holder: Holder) -> Option<NodeId> {
        match holder {
            Holder::Here => Some(routes.me),
            Holder::Elsewhere(Dest::Node(node)) => Some(node),
            Holder::Elsewhere(Dest::Shard(shard)) => {
                self.nodes.owner(shard).map(|owner| owner.node)
            },
        }
    }

    fn attempt(
        self: &Arc<Self>,
        routes: &Routes,
        letter: &Letter,
        filter: &Filter,
        (holder, connected): (Holder, bool),
    ) -> BoxFuture<'static, Attempt> {
        let dest = match holder {
            Holder::Here => {
                let taken = self.take_share(letter, filter, |_| true, true);
                return Box::pin(async move {
                    match taken {
                        Some(pending) => Attempt::Over(pending.outcome().await),
                        None => Attempt::Nobody,
                    }
                });
            },
            Holder::Elsewhere(dest) => dest,
        };
        let Some(node) = self.node_of(routes, holder) else {
            return Box::pin(std::future::ready(Attempt::NotNow));
        };
        let pick = letter.pick(filter, dest, !connected);
        if node == routes.me {
            let picked = self.pick_for(routes.me, pick);
            return Box::pin(async move { judge(&picked.await.map_err(|_why| None)) });
        }
        let asked = self
            .peers
            .ask(node, Ask::Routes(words::Ask::Pick(pick)), WITHIN);
        Box::pin(async move {
            judge(&match asked.await {
                Ok(Reply::Routes(reply)) => Ok(reply),
                Ok(Reply::Home(_)) => Err(None),
                Err(error) => Err(Some(error)),
            })
        })
    }

    /// Gives a message to a member on this node.
    fn take_share(
        self: &Arc<Self>,
        letter: &Letter,
        filter: &Filter,
        holds: impl FnMut(&crate::broker::Mailbox) -> bool,
        absent_too: bool,
    ) -> Option<Pending> {
        let wanted = |receiver: &Receiver| absent_too || receiver.mailbox.is_connected();
        let receiver = self.router.pick_of(filter, holds).filter(wanted)?;
        Some(self.give_member(letter, receiver))
    }

    /// Picks a member for another node.
    pub(in crate::broker) fn pick_for(
        self: &Arc<Self>,
        from: NodeId,
        pick: Pick,
    ) -> BoxFuture<'static, Result<words::Reply, String>> {
        let pending = match self.pick_here(from, pick) {
            Ok(pending) => pending,
            Err(why) => return Box::pin(std::future::ready(Err(why))),
        };
        Box::pin(async move {
            Ok(words::Reply::Picked(match pending {
                Some(pending) => Picked::Taken(pending.outcome().await.into()),
                None => Picked::Nobody,
            }))
        })
    }

    fn pick_here(self: &Arc<Self>, from: NodeId, pick: Pick) -> Result<Option<Pending>, String> {
        let Some(routes) = &self.routes else {
            return Err("this node is alone".to_owned());
        };
        let filter =
            Filter::parse(&pick.filter, &Limits::default()).map_err(|error| error.to_string())?;
        let letter = Letter {
            id: pick.id,
            message: pick.message,
            patience: Patience::of(pick.is_patient),
        };
        let shard = match pick.dest {
            Dest::Node(_) => {
                let clean = |mailbox: &crate::broker::Mailbox| !mailbox.is_home();
                return Ok(self.take_share(&letter, &filter, clean, pick.absent_too));
            },
            Dest::Shard(shard) => shard,
        };
        if !self.is_served(&routes.homes(), shard) {
            return Err("the shard is not here".to_owned());
        }
        let name = (from, pick.id, false);
        if let Some(known) = routes.recent.outcome(shard, &name) {
            return Ok(Some(known));
        }
        let of_shard =
            |mailbox: &crate::broker::Mailbox| mailbox.is_home() && mailbox.shard() == shard;
        let taken = self.take_share(&letter, &filter, of_shard, pick.absent_too);
        if let Some(taken) = &taken {
            routes.recent.remember(shard, name, taken.clone());
        }
        Ok(taken)
    }
}

/// What an answer means; an error of `None` is a refusal.
fn judge(answer: &Result<words::Reply, Option<PeerError>>) -> Attempt {
    match answer {
        Ok(words::Reply::Picked(Picked::Nobody)) => Attempt::Nobody,
        Ok(words::Reply::Picked(Picked::Taken(words::Delivered::Unavailable)))
        | Err(Some(PeerError::Unknown(_))) => Attempt::Unknown,
        Ok(words::Reply::Picked(Picked::Taken(delivered))) => Attempt::Over((*delivered).into()),
        Ok(
            words::Reply::Heard
            | words::Reply::Missed
            | words::Reply::Delivered { .. }
            | words::Reply::Kept(_)
            | words::Reply::RetainedPage(_),
        )
        | Err(
            None
            | Some(PeerError::NotConnected(_) | PeerError::Busy(_) | PeerError::Refused { .. }),
        ) => Attempt::NotNow,
    }
}

impl Letter {
    fn pick(&self, filter: &Filter, dest: Dest, absent_too: bool) -> Pick {
        Pick {
            id: self.id,
            message: Arc::clone(&self.message),
            filter: filter.as_str().to_owned(),
            dest,
            absent_too,
            is_patient: self.patience == Patience::WhileBusy,
        }
    }
}
