//! A message on its way to sessions of other nodes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use umbel_core::{
    ids::{ClientId, NodeId, ShardId},
    message::{Message, Qos},
    topic::{Filter, device_scope},
};

use super::{
    Homes, Routes,
    lanes::{Letter, Pieces},
    settle::{Flight, Kept},
    table::Found,
};
use crate::broker::{
    Broker,
    durable::{Batch, Patience},
    metrics::{self, Drop, Forwarded},
    peers::{
        Ask, Tell,
        routes::{self as words, Dest, Own},
    },
    router::{Choice, Receiver, Scope, Shards},
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
    held_up: BTreeMap<ShardId, Pieces>,
    /// Shards of which the durable sessions are reached in another way than by the router of this node.
    elsewhere: Vec<ShardId>,
    own_clean: bool,
    own_durable: bool,
}

/// Who gets a message on this node.
#[derive(Default)]
struct Here {
    receivers: Vec<Receiver>,
    /// Members of shared groups whose homes may lose their shard before the message is kept.
    members: Vec<(Filter, Receiver)>,
    /// Groups that have a connected member here.
    served: Vec<Filter>,
    /// Groups for whom one has to be found.
    shared: Vec<Filter>,
}

impl Plan {
    fn part(&mut self, node: NodeId) -> &mut Part {
        self.parts.entry(node).or_default()
    }

    fn hold_up(&mut self, shard: ShardId, pieces: Pieces) {
        *self.held_up.entry(shard).or_default() |= pieces;
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
        // after the table was read: what has come here since then is in the one or the other, and may be in both
        let homes = routes.homes();
        let mut plan = self.plan(routes, &homes, &message, &found);
        let elsewhere = std::mem::take(&mut plan.elsewhere);
        let scope = Scope {
            clean: true,
            durable: Shards::Of(&homes, Choice::AllBut(&elsewhere)),
            own_clean: plan.own_clean,
            own_durable: plan.own_durable,
        };
        let Here {
            receivers,
            members,
            served,
            mut shared,
        } = self.receivers_here(&message, &scope);
        let seen = Seen {
            losses,
            dests: &found.dests,
            served: &served,
        };
        for candidate in found.shared {
            seen.add_shared(candidate.filter, &mut shared);
        }
        self.follow_lost(routes, &message.topic, &seen, (&mut plan, &mut shared));
        let is_for_nobody = plan.parts.is_empty()
            && plan.held_up.is_empty()
            && shared.is_empty()
            && members.is_empty();
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
        let is_matched = !(receivers.is_empty() && members.is_empty());
        let own = own_home(&letter.message, &receivers);
        let mut batch = Batch::new(patience);
        for receiver in receivers {
            self.give(&letter.message, receiver, &mut batch);
        }
        // a home that went before this message had its place in it took nothing
        let topic = &letter.message.topic;
        self.follow_lost(routes, topic, &seen, (&mut plan, &mut shared));
        let rows = batch.commit_each(self);
        let taken = members
            .into_iter()
            .map(|(filter, member)| self.share_here(routes, &letter, filter, member));
        let taken = taken.fold(Pending::Ready(Outcome::NoMatch), Pending::and);
        let shared = self.share(routes, &letter, shared).and(taken);
        self.send(routes, letter, plan, Kept { rows, own }, is_matched)
            .and(shared)
            .and(retained)
    }

    /// Who gets a message on this node.
    fn receivers_here(&self, message: &Message, scope: &Scope<'_>) -> Here {
        let mut here = Here::default();
        let (members, served, shared) = (&mut here.members, &mut here.served, &mut here.shared);
        here.receivers =
            self.router
                .receivers(&message.topic, message.publisher.as_ref(), scope, |group| {
                    let picked = self.router.pick_connected(group);
                    let filter = group.iter().find_map(|(_, target)| target.shared())?;
                    let Some(member) = picked else {
                        shared.push(filter.clone());
                        return None;
                    };
                    served.push(filter.clone());
                    if member.mailbox.is_home() {
                        members.push((filter.clone(), member));
                        return None;
                    }
                    Some(member)
                });
        here
    }

    /// Finds the nodes for everybody who wants a message.
    fn plan(&self, routes: &Routes, homes: &Homes, message: &Message, found: &Found) -> Plan {
        let mut plan = Plan::default();
        for dest in &found.dests {
            let shard = match dest {
                Dest::Node(node) => {
                    plan.part(*node).clean = true;
                    continue;
                },
                Dest::Shard(shard) => *shard,
            };
            match self.place(routes, homes, shard, message.qos) {
                Place::Here => continue, // the local router has them
                Place::At(node) => plan.part(node).shards.push(shard),
                Place::Nowhere => plan.hold_up(shard, Pieces::SESSIONS),
            }
            plan.elsewhere.push(shard);
        }
        if let Some(device) = device_scope(&message.topic) {
            let client = ClientId::from(device);
            if message.publisher.as_ref() == Some(&client) && self.is_clean_here(&client) {
                // a device about itself, most of what there is: all it has of a session is on this node
                plan.own_clean = true;
                return plan;
            }
            let shard = self.shard_of(&client);
            match self.place(routes, homes, shard, message.qos) {
                Place::Here => {
                    plan.own_durable = true;
                    match self.gateway_of(&client) {
                        Some(node) if node == routes.me => plan.own_clean = true,
                        Some(node) => plan.part(node).own = Own::Here,
                        None => {},
                    }
                },
                Place::At(node) => plan.part(node).own = Own::Everywhere,
                Place::Nowhere => plan.hold_up(shard, Pieces::OWN),
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
        seen: &Seen<'_>,
        (plan, shared): (&mut Plan, &mut Vec<Filter>),
    ) {
        let mut found = Found::default();
        {
            let table = routes.table.read();
            if table.losses() == seen.losses {
                return;
            }
            table.find(topic, &mut found);
        }
        for dest in &found.dests {
            match dest {
                Dest::Shard(gone) if !seen.dests.contains(dest) => {
                    plan.hold_up(*gone, Pieces::SESSIONS);
                },
                Dest::Shard(_) | Dest::Node(_) => {},
            }
        }
        for candidate in found.shared {
            seen.add_shared(candidate.filter, shared);
        }
        let own = device_scope(topic).filter(|_| plan.own_durable);
        let own = own.map(|device| self.shard_of(&ClientId::from(device)));
        if let Some(gone) = own.filter(|shard| !routes.is_home(*shard)) {
            plan.hold_up(gone, Pieces::OWN);
        }
    }

    fn place(&self, routes: &Routes, homes: &Homes, shard: ShardId, qos: Qos) -> Place {
        if qos > Qos::AtMostOnce && routes.lanes.holds(shard) {
            return Place::Nowhere; // not before those that wait already
        }
        match self.nodes.owner(shard) {
            Some(owner) if owner.node != routes.me => Place::At(owner.node),
            Some(_) if self.is_served(homes, shard) => Place::Here,
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
        kept: Kept,
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
        for (shard, pieces) in plan.held_up {
            known = known.and(self.wait_for_owner(routes, shard, pieces, &letter));
        }
        let Kept { mut rows, own } = kept;
        rows.retain(
            |(_, pending)| !matches!(pending, Pending::Ready(outcome) if outcome.is_done()),
        );
        let kept = Kept { rows, own };
        let flights: Vec<_> = plan
            .parts
            .into_iter()
            .map(|(node, part)| {
                let ask = Ask::Routes(words::Ask::Deliver(letter.deliver(&part)));
                let answer = self.peers.ask(node, ask, WITHIN);
                Flight { part, answer }
            })
            .collect();
        if flights.is_empty() && kept.rows.is_empty() {
            return known;
        }
        let broker = Arc::clone(self);
        known.and(start(Box::pin(async move {
            broker.settle_parts(&letter, kept, flights).await
        })))
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
        self.send(routes, letter, plan, Kept::default(), false)
    }
}

/// Who takes messages for a shard.
enum Place {
    Here,
    At(NodeId),
    /// Nobody, now.
    Nowhere,
}

/// Who was found when it was first looked.
struct Seen<'a> {
    losses: u64,
    dests: &'a [Dest],
    /// Groups that have a connected member here.
    served: &'a [Filter],
}

impl Seen<'_> {
    fn add_shared(&self, filter: Filter, shared: &mut Vec<Filter>) {
        if !self.served.contains(&filter) && !shared.contains(&filter) {
            shared.push(filter);
        }
    }
}

/// The shard of the device a message's topic belongs to, if its durable session is among those who get it here.
fn own_home(message: &Message, receivers: &[Receiver]) -> Option<ShardId> {
    let device = ClientId::from(device_scope(&message.topic)?);
    let own = receivers.iter().map(|receiver| &receiver.mailbox);
    let mut own = own.filter(|mailbox| mailbox.is_home() && *mailbox.client() == device);
    own.next().map(|home| home.shard())
}
