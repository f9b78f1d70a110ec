//! A message on its way to sessions of other nodes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use umbel_actors::ports::BoxFuture;
use umbel_core::{
    ids::{ClientId, NodeId, ShardId},
    message::{Message, Qos},
    topic::device_scope,
};
use umbel_storage::PeerError;

use super::{
    Routes,
    lanes::{Letter, Piece},
    table::Found,
};
use crate::broker::{
    Broker,
    durable::{Batch, Patience},
    metrics::{self, Drop, Forwarded},
    peers::{
        Ask, Reply, Tell,
        routes::{self as words, Delivered, Dest, Own},
    },
    router::{Scope, Shards},
    ticket::{Outcome, Pending, start},
};

/// How long a node may take to commit a message. Longer than a patient one waits for a busy shard.
pub(super) const WITHIN: Duration = Duration::from_secs(3);

/// What one node is to deliver to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) clean: bool,
    pub(super) shards: Vec<ShardId>,
    pub(super) own: Own,
}

/// Where a message goes.
#[derive(Debug, Default)]
struct Plan {
    parts: BTreeMap<NodeId, Part>,
    /// What has to wait for an owner.
    held_up: Vec<(ShardId, Piece)>,
    own_clean: bool,
    own_durable: bool,
}

/// A part that was handed over.
struct Flight {
    part: Part,
    answer: BoxFuture<'static, Result<Reply, PeerError>>,
}

impl Plan {
    fn part(&mut self, node: NodeId) -> &mut Part {
        self.parts.entry(node).or_default()
    }
}

impl Broker {
    /// As [`Broker::route`], in a cluster; `retained` is what became of the message as a retained one.
    pub(in crate::broker) fn route_far(
        self: &Arc<Self>,
        routes: &Routes,
        message: Message,
        patience: Patience,
        retained: Pending,
    ) -> Pending {
        let mut found = Found::default();
        let losses = {
            let table = routes.table.read();
            table.find(&message.topic, &mut found);
            table.losses()
        };
        let mut plan = self.plan(routes, &message, &found);
        let scope = Scope {
            clean: true,
            durable: Shards::All,
            own_clean: plan.own_clean,
            own_durable: plan.own_durable,
        };
        // groups that have a connected member here, and groups for whom one has to be found
        let (mut served_here, mut shared) = (Vec::new(), Vec::new());
        let receivers = self.router.receivers(
            &message.topic,
            message.publisher.as_ref(),
            &scope,
            |group| {
                let picked = self.router.pick_connected(group);
                let filter = group.iter().find_map(|(_, target)| target.shared());
                let served = if picked.is_some() {
                    &mut served_here
                } else {
                    &mut shared
                };
                served.extend(filter.cloned());
                picked
            },
        );
        for candidate in found.shared {
            if !served_here.contains(&candidate.filter) && !shared.contains(&candidate.filter) {
                shared.push(candidate.filter);
            }
        }
        self.follow_lost(routes, &message.topic, (&found.dests, losses), &mut plan);
        let is_for_nobody = plan.parts.is_empty() && plan.held_up.is_empty() && shared.is_empty();
        if is_for_nobody && receivers.is_empty() {
            return match retained {
                Pending::Ready(Outcome::Done) => Pending::Ready(Outcome::NoMatch),
                other @ (Pending::Ready(_) | Pending::Waiting(_)) => other,
            };
        }
        let letter = Letter {
            id: routes.name(),
            message: Arc::new(message),
            patience,
        };
        let is_matched = !receivers.is_empty();
        let mut batch = Batch::new(patience);
        for receiver in receivers {
            self.give(&letter.message, receiver, &mut batch);
        }
        // a home that went before this message had its place in it took nothing
        let topic = &letter.message.topic;
        self.follow_lost(routes, topic, (&found.dests, losses), &mut plan);
        let local = batch.commit_each(self);
        let shared = self.share(routes, &letter, shared);
        self.send(routes, letter, plan, local, is_matched)
            .and(shared)
            .and(retained)
    }

    /// Finds the nodes for everybody who wants a message.
    fn plan(&self, routes: &Routes, message: &Message, found: &Found) -> Plan {
        let mut plan = Plan::default();
        for dest in &found.dests {
            match dest {
                Dest::Node(node) => plan.part(*node).clean = true,
                Dest::Shard(shard) => match self.place(routes, *shard, message.qos) {
                    Place::Here => {}, // the local router has them
                    Place::At(node) => plan.part(node).shards.push(*shard),
                    Place::Nowhere => plan.held_up.push((*shard, Piece::Sessions)),
                },
            }
        }
        if let Some(device) = device_scope(&message.topic) {
            let client = ClientId::from(device);
            if message.publisher.as_ref() == Some(&client) && self.is_clean_here(&client) {
                // a device about itself, most of what there is: all it has of a session is on this node
                plan.own_clean = true;
                return plan;
            }
            let shard = self.shard_of(&client);
            match self.place(routes, shard, message.qos) {
                Place::Here => {
                    plan.own_durable = true;
                    match self.gateway_of(&client) {
                        Some(node) if node == routes.me => plan.own_clean = true,
                        Some(node) => plan.part(node).own = Own::Here,
                        None => {},
                    }
                },
                Place::At(node) => plan.part(node).own = Own::Everywhere,
                Place::Nowhere => plan.held_up.push((shard, Piece::Own)),
            }
        }
        plan
    }

    /// Shards that went to another node since it was looked who wants a message: neither the table of then nor the router
    /// of now need have their sessions, and a home that is not here any more takes nothing. The message follows them.
    fn follow_lost(
        &self,
        routes: &Routes,
        topic: &str,
        (seen, losses): (&[Dest], u64),
        plan: &mut Plan,
    ) {
        let mut found = Found::default();
        {
            let table = routes.table.read();
            if table.losses() == losses {
                return;
            }
            table.find(topic, &mut found);
        }
        let missed = found.dests.into_iter().filter_map(|dest| match dest {
            Dest::Shard(shard) if !seen.contains(&dest) => Some((shard, Piece::Sessions)),
            Dest::Shard(_) | Dest::Node(_) => None,
        });
        let own = device_scope(topic).filter(|_| plan.own_durable);
        let own = own.map(|device| self.shard_of(&ClientId::from(device)));
        let own = own.filter(|shard| !routes.is_home(*shard));
        for one in missed.chain(own.map(|shard| (shard, Piece::Own))) {
            if !plan.held_up.contains(&one) {
                plan.held_up.push(one);
            }
        }
    }

    fn place(&self, routes: &Routes, shard: ShardId, qos: Qos) -> Place {
        if qos > Qos::AtMostOnce && routes.lanes.holds(shard) {
            return Place::Nowhere; // not before those that wait already
        }
        match self.nodes.owner(shard) {
            Some(owner) if owner.node != routes.me => Place::At(owner.node),
            Some(_) if routes.is_home(shard) => Place::Here,
            Some(_) | None => Place::Nowhere,
        }
    }

    fn is_clean_here(&self, client: &ClientId) -> bool {
        let session = self.sessions.get(client);
        session.is_some_and(|session| !session.is_window() && session.is_connected())
    }

    pub(super) fn shard_of(&self, client: &ClientId) -> ShardId {
        ShardId::of(client.as_str(), self.ledger.shards())
    }

    pub(super) fn gateway_of(&self, client: &ClientId) -> Option<NodeId> {
        self.fleet.get().and_then(|fleet| fleet.gateway_of(client))
    }

    /// Hands the parts to their nodes. Everything takes its place before this returns.
    fn send(
        self: &Arc<Self>,
        routes: &Routes,
        letter: Letter,
        plan: Plan,
        local: Vec<(ShardId, Pending)>,
        is_matched: bool,
    ) -> Pending {
        if letter.message.qos == Qos::AtMostOnce {
            for (node, part) in plan.parts {
                let tell = Tell::Routes(words::Tell::Deliver(letter.deliver(&part)));
                if self.peers.tell(node, tell).is_err() {
                    metrics::dropped(Drop::NodeUnreachable, 1);
                } else {
                    metrics::forwarded(Forwarded::Untold);
                }
            }
            metrics::dropped(Drop::NodeUnreachable, plan.held_up.len());
            return Pending::Ready(Outcome::Done);
        }
        let mut known = Pending::Ready(if is_matched {
            Outcome::Done
        } else {
            Outcome::NoMatch
        });
        for (shard, piece) in plan.held_up {
            known = known.and(self.wait_for_owner(routes, shard, piece, &letter));
        }
        let mut local_waiting = Vec::new();
        for (shard, pending) in local {
            match pending {
                Pending::Ready(outcome) if outcome.is_done() => {},
                pending @ (Pending::Ready(_) | Pending::Waiting(_)) => {
                    local_waiting.push((shard, pending));
                },
            }
        }
        let flights: Vec<_> = plan
            .parts
            .into_iter()
            .map(|(node, part)| {
                let ask = Ask::Routes(words::Ask::Deliver(letter.deliver(&part)));
                let answer = self.peers.ask(node, ask, WITHIN);
                Flight { part, answer }
            })
            .collect();
        if flights.is_empty() && local_waiting.is_empty() {
            return known;
        }
        let broker = Arc::clone(self);
        known.and(start(Box::pin(async move {
            broker.settle_parts(&letter, local_waiting, flights).await
        })))
    }

    /// Waits until everybody has the message. What a shard's owner could not take goes where the shard goes.
    async fn settle_parts(
        self: Arc<Self>,
        letter: &Letter,
        local: Vec<(ShardId, Pending)>,
        flights: Vec<Flight>,
    ) -> Outcome {
        let mut outcome = Outcome::NoMatch;
        let mut failed = Vec::new();
        let device = device_scope(&letter.message.topic).map(ClientId::from);
        let own_shard = device.map(|client| self.shard_of(&client));
        for (shard, pending) in local {
            let committed = pending.outcome().await;
            if committed == Outcome::Unavailable {
                failed.push((shard, Piece::Sessions));
            } else {
                outcome = outcome.and(committed);
            }
        }
        for flight in flights {
            let answer = flight.answer.await;
            outcome = outcome.and(judge(&flight.part, answer, &mut failed, own_shard));
        }
        let Some(routes) = &self.routes else {
            return outcome;
        };
        // all of them first: each takes its place before those that come later
        let waiting: Vec<_> = failed
            .into_iter()
            .map(|(shard, piece)| self.wait_for_owner(routes, shard, piece, letter))
            .collect();
        for pending in waiting {
            outcome = outcome.and(pending.outcome().await);
        }
        outcome
    }

    /// A message of a device's topic to the node it is connected to.
    pub(super) fn pass_on(
        self: &Arc<Self>,
        routes: &Routes,
        node: NodeId,
        message: &Arc<Message>,
        patience: Patience,
    ) -> Pending {
        let letter = Letter {
            id: routes.name(),
            message: Arc::clone(message),
            patience,
        };
        let part = Part {
            own: Own::Here,
            ..Part::default()
        };
        let plan = Plan {
            parts: BTreeMap::from([(node, part)]),
            ..Plan::default()
        };
        self.send(routes, letter, plan, Vec::new(), false)
    }
}

/// Who takes messages for a shard.
enum Place {
    Here,
    At(NodeId),
    /// Nobody, now.
    Nowhere,
}

/// What an answer means; what has to be tried again is added to `failed`.
fn judge(
    part: &Part,
    answer: Result<Reply, PeerError>,
    failed: &mut Vec<(ShardId, Piece)>,
    own_shard: Option<ShardId>,
) -> Outcome {
    let mut outcome = Outcome::NoMatch;
    let before = failed.len();
    if let Ok(Reply::Routes(words::Reply::Delivered {
        others,
        own,
        shards,
    })) = answer
    {
        outcome = outcome.and(others.into());
        for (shard, delivered) in shards {
            if delivered == Delivered::Unavailable {
                failed.push((shard, Piece::Sessions));
            } else {
                outcome = outcome.and(delivered.into());
            }
        }
        match (own, own_shard) {
            (Delivered::Unavailable, Some(shard)) => failed.push((shard, Piece::Own)),
            (own, _) => outcome = outcome.and(own.into()),
        }
        metrics::forwarded(if failed.len() == before && outcome.is_done() {
            Forwarded::Done
        } else {
            Forwarded::Refused
        });
        return outcome;
    }
    metrics::forwarded(Forwarded::Lost);
    // sessions that end with their node get nothing any more; the durable ones are somebody's
    metrics::dropped(
        Drop::NodeUnreachable,
        usize::from(part.clean) + usize::from(part.own == Own::Here),
    );
    failed.extend(part.shards.iter().map(|shard| (*shard, Piece::Sessions)));
    if part.own == Own::Everywhere {
        failed.extend(own_shard.map(|shard| (shard, Piece::Own)));
    }
    outcome
}
