//! Which nodes there are, which ways are cut, and what every node makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use umbel_core::ids::NodeId;
use umbel_storage::nodes::{Boot, Peer, Reach};

use super::{Life, Shared, line::Line};

/// From one node to another.
pub(super) type Way = (NodeId, NodeId);

#[derive(Default)]
pub(super) struct Net {
    /// Who runs.
    lives: BTreeMap<NodeId, Arc<Life>>,
    /// Who ever ran: the address book of all.
    pub(super) known: BTreeSet<NodeId>,
    /// Ways that let nothing pass.
    pub(super) cuts: BTreeSet<Way>,
    /// Of every way that is not in `delays`.
    pub(super) delay: Duration,
    pub(super) delays: BTreeMap<Way, Duration>,
    links: BTreeMap<Way, Link>,
}

/// What a node thinks of another.
struct Link {
    line: Option<Arc<Line>>,
    boot: Option<Boot>,
    reach: Reach,
    /// What is planned for it; a change of plan makes the old one harmless.
    plan: Option<Next>,
    plans: u64,
}

/// What happens to a link next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing was heard for too long.
    Silent,
    /// It is down for too long.
    Gone,
}

/// A plan and its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    way: Way,
    next: Next,
    plan: u64,
    pub(super) after: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            line: None,
            boot: None,
            reach: Reach::Unreachable,
            plan: None,
            plans: 0,
        }
    }
}

impl Link {
    /// Plans what comes next, unless it is planned already.
    fn plan(&mut self, way: Way, next: Next, after: Duration) -> Option<Due> {
        if self.plan == Some(next) {
            return None;
        }
        self.plan = Some(next);
        self.plans += 1;
        Some(Due {
            way,
            next,
            plan: self.plans,
            after,
        })
    }

    fn forget_plan(&mut self) {
        self.plan = None;
        self.plans += 1;
    }

    fn break_off(&mut self) {
        if let Some(line) = self.line.take() {
            line.break_off();
        }
        self.reach = self.reach.max(Reach::Unreachable);
    }
}

impl Net {
    pub(super) fn start(&mut self, life: Arc<Life>) {
        self.known.insert(life.node);
        self.links.retain(|way, _| way.0 != life.node);
        self.lives.insert(life.node, life);
    }

    pub(super) fn stop(&mut self, node: NodeId) {
        let Some(life) = self.lives.remove(&node) else {
            return;
        };
        life.over.send_replace(true);
        for (_, link) in self.links.iter_mut().filter(|(way, _)| touches(way, node)) {
            link.break_off();
        }
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.known.remove(&node);
        self.links.retain(|way, _| !touches(way, node));
    }

    /// The line to another node, while the link is up.
    pub(super) fn line(&self, from: NodeId, to: NodeId) -> Option<Arc<Line>> {
        self.links.get(&(from, to))?.line.clone()
    }

    /// How long a message takes now; `None` while nothing passes.
    pub(super) fn takes(&self, way: Way) -> Option<Duration> {
        let delay = self.delays.get(&way).copied().unwrap_or(self.delay);
        (!self.cuts.contains(&way)).then_some(delay)
    }

    /// Brings links up whose way is free, breaks those whose peer is dead, and says what happens to the others when.
    pub(super) fn settle(&mut self, shared: &Arc<Shared>) -> Vec<Due> {
        let mut due = Vec::new();
        for (from, me) in &self.lives {
            for to in self.known.iter().filter(|to| *to != from) {
                let way = (*from, *to);
                let free = !self.cuts.contains(&way) && !self.cuts.contains(&(*to, *from));
                let peer = self.lives.get(to);
                let link = self.links.entry(way).or_default();
                due.extend(match (peer, free) {
                    (Some(peer), true) => {
                        if link.line.is_none() {
                            link.line = Some(Line::new(shared, me, peer));
                            link.boot = Some(peer.boot);
                            link.reach = Reach::Connected;
                        }
                        link.forget_plan();
                        None
                    },
                    (Some(_), false) if link.line.is_some() => {
                        link.plan(way, Next::Silent, shared.timing.silence)
                    },
                    _ if link.reach == Reach::Gone => None,
                    (None, true) => link.plan(way, Next::Gone, shared.timing.gone_after_refused),
                    _ => link.plan(way, Next::Gone, shared.timing.gone_after),
                });
            }
        }
        due
    }

    /// The time of a plan has come; if it still is one, it happens.
    pub(super) fn pass(&mut self, due: &Due) {
        let link = self.links.get_mut(&due.way);
        let Some(link) = link.filter(|link| link.plan.is_some() && link.plans == due.plan) else {
            return;
        };
        link.forget_plan();
        match due.next {
            Next::Silent => link.break_off(),
            Next::Gone => link.reach = Reach::Gone,
        }
    }

    /// Tells every node what it sees, if that has changed.
    pub(super) fn publish(&self) {
        for (from, me) in &self.lives {
            let others = self.known.iter().filter(|to| *to != from);
            let peers: Vec<Peer> = others
                .map(|to| {
                    let link = self.links.get(&(*from, *to));
                    Peer {
                        node: *to,
                        boot: link.and_then(|link| link.boot),
                        reach: link.map_or(Reach::Unreachable, |link| link.reach),
                    }
                })
                .collect();
            me.peers.send_if_modified(|seen| {
                let changed = *seen != peers;
                *seen = peers;
                changed
            });
        }
    }
}

fn touches(way: &Way, node: NodeId) -> bool {
    way.0 == node || way.1 == node
}
