//! The driver: on the node that leads the meta group, brings the groups to where the map says, and the map to say where
//! they should be.
//!
//! It looks, lets [`placement`](umbel_core::placement) say what to do now, has that done, and looks again. It remembers
//! nothing that matters: how long something has been as it is only decides when comfort is worth a move. Orders carry the
//! leader's term and the row's epoch, so that what an older leader wanted is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use metrics::{counter, gauge};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use umbel_core::{
    cluster::{ClusterMap, Command},
    ids::{NodeId, ShardId, Term},
    placement::{GroupSeen, Limits, NodeSeen, Observed, Step, moving, next_steps, target},
};
use umbel_storage::nodes::Reach;

use super::{
    service::Inner,
    words::{Answer, Ask, Fence, Holding, Led, Order},
};
use crate::metrics::{MOVING, NODES, ORDERS};

/// How often the driver looks. A failover does not wait for it; a newcomer and a drain do.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// How long a node may take to say what it holds: it looks into its memory.
const OBSERVE_WITHIN: Duration = Duration::from_secs(1);
/// How long an order may take. A change of members waits for a copy; what is not done then is ordered again.
const ORDER_WITHIN: Duration = Duration::from_secs(30);
/// Orders under way at once: each is a little work for one node, and a shard has one at a time.
const ORDERS_MAX: usize = 16;

/// A slow disk has to be slower than the others' by this factor for its shards to leave.
const MUCH_SLOWER: u64 = 3;

/// How long something has been as it is.
#[derive(Default)]
struct Memory {
    nodes: BTreeMap<NodeId, (bool, Instant)>,
    groups: BTreeMap<ShardId, (Shape, Instant)>,
}

/// What of a group has to stay for it to be called stable.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    leader: NodeId,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
}

impl Memory {
    fn node(&mut self, node: NodeId, up: bool, now: Instant) -> Duration {
        let known = self.nodes.entry(node).or_insert((up, now));
        if known.0 != up {
            *known = (up, now);
        }
        now.duration_since(known.1)
    }

    fn group(&mut self, shard: ShardId, shape: Shape, now: Instant) -> Duration {
        let known = self
            .groups
            .entry(shard)
            .or_insert_with(|| (shape.clone(), now));
        if known.0 != shape {
            *known = (shape, now);
        }
        now.duration_since(known.1)
    }
}

/// Drives while this node leads.
pub(super) async fn drive(inner: Arc<Inner>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut memory = Memory::default();
    let mut orders = Orders::default();
    loop {
        ticks.tick().await;
        orders.reap();
        let Some(term) = inner.groups.term(ShardId::META) else {
            memory = Memory::default();
            continue;
        };
        let map = inner.view.map();
        if map.identity.is_none() {
            continue;
        }
        let observed = observe(&inner, &map, &mut memory).await;
        let limits = Limits {
            moving_max: inner.config.moving_max,
            ..Limits::default()
        };
        let (down, lost) = (observed.down(&map), observed.lost(&map));
        let targets = target(&map, &down, &lost);
        let steps = next_steps(&map, &targets, &observed, &limits);
        record(&map, &observed);
        for step in steps {
            take(&inner, &map, term, &mut orders, step).await;
        }
    }
}

/// Orders under way, by their group and node.
#[derive(Default)]
struct Orders {
    tasks: JoinSet<(ShardId, NodeId)>,
    busy: BTreeSet<(ShardId, NodeId)>,
}

impl Orders {
    fn reap(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            match done {
                Ok(done) => drop(self.busy.remove(&done)),
                Err(panic) => tracing::error!(%panic, "an order ended"),
            }
        }
        if self.tasks.is_empty() {
            self.busy.clear();
        }
    }

    fn give(&mut self, inner: &Arc<Inner>, to: NodeId, shard: ShardId, fence: Fence, order: Order) {
        if self.tasks.len() >= ORDERS_MAX || !self.busy.insert((shard, to)) {
            return;
        }
        let inner = Arc::clone(inner);
        self.tasks.spawn(async move {
            carry_out(&inner, to, shard, fence, order).await;
            (shard, to)
        });
    }
}

async fn carry_out(inner: &Arc<Inner>, to: NodeId, shard: ShardId, fence: Fence, order: Order) {
    let kind = order.kind();
    tracing::debug!(%shard, node = to.0, kind, "an order is given");
    let answer = if to == inner.me {
        Ok(inner.obey(fence, shard, order).await)
    } else {
        let ask = Ask::Order {
            fence,
            shard,
            order,
        };
        inner.ask(to, &ask, ORDER_WITHIN).await
    };
    let outcome = match answer {
        Ok(Answer::Done) => "done",
        Ok(Answer::Failed(why)) => {
            tracing::debug!(%shard, node = to.0, kind, %why, "an order was not carried out");
            "failed"
        },
        Ok(_) => "odd",
        Err(error) => {
            tracing::debug!(%shard, node = to.0, kind, %error, "an order was not answered");
            "unknown"
        },
    };
    counter!(ORDERS, "order" => kind, "outcome" => outcome).increment(1);
}

/// Has one step done, or begun.
async fn take(inner: &Arc<Inner>, map: &ClusterMap, term: Term, orders: &mut Orders, step: Step) {
    let fence = |shard: &ShardId| Fence {
        term,
        epoch: map.shards.get(shard).map_or(0, |row| row.epoch),
    };
    match step {
        Step::Assign {
            shard,
            replicas,
            learners,
            epoch,
        } => {
            let command = Command::Assign {
                shard,
                replicas,
                learners,
                epoch,
            };
            decide(inner, command).await;
        },
        Step::Drained { node } => decide(inner, Command::Drained { node }).await,
        Step::Host { node, shard } => {
            orders.give(inner, node, shard, fence(&shard), Order::Host);
        },
        Step::Retire { node, shard } => {
            orders.give(inner, node, shard, fence(&shard), Order::Retire);
        },
        Step::Change {
            leader,
            shard,
            voters,
            learners,
        } => {
            let order = Order::Change { voters, learners };
            orders.give(inner, leader, shard, fence(&shard), order);
        },
        Step::Transfer { leader, shard, to } => {
            orders.give(inner, leader, shard, fence(&shard), Order::Transfer { to });
        },
    }
}

async fn decide(inner: &Arc<Inner>, command: Command) {
    // A row that changed meanwhile is looked at again in the next round.
    if let Err(error) = inner.submit(command).await {
        tracing::debug!(%error, "a step was not decided");
    }
}

/// Asks everybody what they hold.
async fn observe(inner: &Arc<Inner>, map: &ClusterMap, memory: &mut Memory) -> Observed {
    let peers = inner.transport.peers().borrow().clone();
    let up = |node: NodeId| {
        node == inner.me
            || peers
                .iter()
                .any(|peer| peer.node == node && peer.reach == Reach::Connected)
    };
    let members: Vec<NodeId> = map.members().map(|(id, _)| id).collect();
    let mut asking = JoinSet::new();
    for node in members.iter().copied().filter(|node| up(*node)) {
        let inner = Arc::clone(inner);
        asking.spawn(async move {
            if node == inner.me {
                return (node, Some(inner.holding()));
            }
            match inner.ask(node, &Ask::Observe, OBSERVE_WITHIN).await {
                Ok(Answer::Observed(holding)) => (node, Some(holding)),
                Ok(_) | Err(_) => (node, None),
            }
        });
    }
    let mut held = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok((node, Some(holding))) = asked {
            held.insert(node, holding);
        }
    }
    let now = Instant::now();
    let unfit = unfit(&held);
    let mut observed = Observed::default();
    for node in members {
        let (up, holding) = (up(node), held.get(&node));
        let seen = NodeSeen {
            up,
            since: memory.node(node, up, now),
            hosted: holding.map(|holding| holding.hosted.clone()),
            unfit: unfit.contains(&node),
        };
        observed.nodes.insert(node, seen);
    }
    for (shard, (leader, led)) in leaders(&held) {
        let shape = Shape {
            leader,
            voters: led.voters.clone(),
            learners: led.learners.clone(),
        };
        let seen = GroupSeen {
            leader,
            voters: led.voters.clone(),
            learners: led.learners.clone(),
            joint: led.joint,
            caught_up: led.caught_up.clone(),
            stable: memory.group(shard, shape, now),
        };
        observed.groups.insert(shard, seen);
    }
    observed
}

/// Who leads each group: of several who say so, the one with the highest term.
fn leaders(held: &BTreeMap<NodeId, Holding>) -> BTreeMap<ShardId, (NodeId, &Led)> {
    let mut leaders: BTreeMap<ShardId, (NodeId, &Led)> = BTreeMap::new();
    for (node, holding) in held {
        for led in &holding.led {
            let known = leaders.entry(led.shard).or_insert((*node, led));
            if led.term > known.1.term {
                *known = (*node, led);
            }
        }
    }
    leaders
}

/// Who had better own nothing: whose disk is full, or slow and much slower than the others'. Where all are on one slow
/// disk, or all have much to do, moving helps nobody.
fn unfit(held: &BTreeMap<NodeId, Holding>) -> BTreeSet<NodeId> {
    let is_unfit = |node: &NodeId, holding: &Holding| {
        let others = held.iter().filter(|(other, _)| *other != node);
        let mut others: Vec<u64> = others.map(|(_, other)| other.sync_ms).collect();
        others.sort_unstable();
        let middle = others.get(others.len() / 2).copied().unwrap_or_default();
        holding.full || (holding.slow && holding.sync_ms >= middle.saturating_mul(MUCH_SLOWER))
    };
    let unfit = held
        .iter()
        .filter(|(node, holding)| is_unfit(node, holding));
    unfit.map(|(node, _)| *node).collect()
}

fn record(map: &ClusterMap, observed: &Observed) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of nodes and shards are small"
    )]
    let number = |count: usize| count as f64;
    gauge!(MOVING).set(number(moving(map, observed)));
    let up = observed.nodes.values().filter(|seen| seen.up).count();
    gauge!(NODES, "state" => "up").set(number(up));
    gauge!(NODES, "state" => "down").set(number(observed.nodes.len() - up));
}

impl Order {
    fn kind(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Retire => "retire",
            Self::Change { .. } => "change",
            Self::Transfer { .. } => "transfer",
        }
    }
}

impl Inner {
    /// What this node holds.
    pub(super) fn holding(&self) -> Holding {
        let hosted: BTreeSet<ShardId> = self.groups.hosted().into_iter().collect();
        let led = hosted.iter().filter_map(|shard| {
            let term = self.groups.term(*shard)?;
            let members = self.groups.members(*shard)?;
            Some(Led {
                shard: *shard,
                term,
                voters: members.voters,
                learners: members.learners,
                joint: members.joint,
                caught_up: members.caught_up,
            })
        });
        let health = self.groups.health();
        Holding {
            led: led.collect(),
            hosted,
            full: health.full,
            sync_ms: u64::try_from(health.pace.usual.as_millis()).unwrap_or(u64::MAX),
            slow: health.pace.is_slow,
        }
    }

    /// Does what the driver wants, unless a newer one has spoken.
    pub(super) async fn obey(&self, fence: Fence, shard: ShardId, order: Order) -> Answer {
        {
            let mut fences = self.fences.lock();
            let newest = fences.entry(shard).or_insert(fence);
            if fence < *newest {
                return Answer::Failed("a newer order was given".to_owned());
            }
            *newest = fence;
        }
        // A replica is the one thing that cannot be had back: also the map of this node has a word.
        self.refresh();
        let row = self.view.map().shards.get(&shard).map(|row| row.epoch);
        if order == Order::Retire && row.is_some_and(|epoch| epoch > fence.epoch) {
            return Answer::Failed("the row has changed since".to_owned());
        }
        let groups = &self.groups;
        let done = match order {
            Order::Host => groups.host(shard).await,
            Order::Retire => groups.retire(shard).await,
            Order::Change { voters, learners } => {
                groups.change_members(shard, voters, learners).await
            },
            Order::Transfer { to } => groups.transfer(shard, to).await,
        };
        match done {
            Ok(()) => Answer::Done,
            Err(why) => Answer::Failed(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(shard: u16, term: u64) -> Led {
        Led {
            shard: ShardId(shard),
            term: Term(term),
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
            joint: false,
            caught_up: BTreeSet::new(),
        }
    }

    #[test]
    fn of_two_leaders_the_later_one_is_believed() {
        let holding = |led: Vec<Led>| Holding {
            led,
            ..Holding::default()
        };
        let held = BTreeMap::from([
            (NodeId(1), holding(vec![led(0, 5), led(1, 2)])),
            (NodeId(2), holding(vec![led(0, 4), led(1, 3)])),
        ]);
        let leaders = leaders(&held);
        assert_eq!(leaders[&ShardId(0)].0, NodeId(1));
        assert_eq!(leaders[&ShardId(1)].0, NodeId(2));
    }

    #[test]
    fn f17_unfit_is_who_is_full_or_slow_and_much_slower_than_the_others() {
        let disk = |slow, sync_ms| Holding {
            sync_ms,
            slow,
            ..Holding::default()
        };
        let among = |disks: [Holding; 3]| {
            let held = (1..).map(NodeId).zip(disks).collect();
            let unfit = unfit(&held).into_iter().map(|node| node.0);
            unfit.collect::<Vec<u64>>()
        };
        let nobody: [u64; 0] = [];
        assert_eq!(
            among([disk(true, 300), disk(false, 8), disk(false, 0)]),
            [1]
        );
        assert_eq!(
            among([disk(true, 300), disk(true, 400), disk(false, 8)]),
            nobody
        );
        assert_eq!(
            among([disk(true, 300), disk(false, 90), disk(false, 150)]),
            nobody
        );
        assert_eq!(
            among([disk(false, 300), disk(false, 8), disk(false, 8)]),
            nobody
        );
        let full = Holding {
            full: true,
            ..Holding::default()
        };
        assert_eq!(among([disk(false, 5), full, disk(false, 5)]), [2]);
    }

    #[test]
    fn what_stays_as_it_is_grows_old_and_what_changes_does_not() {
        let mut memory = Memory::default();
        let start = Instant::now();
        let later = start + Duration::from_secs(3);
        assert_eq!(memory.node(NodeId(1), true, start), Duration::ZERO);
        assert_eq!(memory.node(NodeId(1), true, later), Duration::from_secs(3));
        assert_eq!(memory.node(NodeId(1), false, later), Duration::ZERO);
        let shape = |leader| Shape {
            leader: NodeId(leader),
            voters: BTreeSet::new(),
            learners: BTreeSet::new(),
        };
        memory.group(ShardId(1), shape(1), start);
        assert_eq!(
            memory.group(ShardId(1), shape(1), later),
            Duration::from_secs(3)
        );
        assert_eq!(memory.group(ShardId(1), shape(2), later), Duration::ZERO);
    }
}
