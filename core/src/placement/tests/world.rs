//! A small world that obeys steps, loses some of them, and stops changes half-way.
//!
//! Law: from any state that interruptions can leave, steps end, and end with every group where it should be. On the way no
//! group loses its majority, and nobody votes who has not learned.

use super::*;
use crate::placement::{GroupSeen, Limits, NodeSeen, Observed, Step, next_steps, target};

/// A group as it is.
#[derive(Clone, Debug)]
struct Group {
    leader: NodeId,
    /// One set; two during a change.
    old: BTreeSet<NodeId>,
    new: Option<BTreeSet<NodeId>>,
    learners: BTreeSet<NodeId>,
    /// Whose copy is complete.
    complete: BTreeSet<NodeId>,
}

impl Group {
    fn voters(&self) -> BTreeSet<NodeId> {
        let new = self.new.iter().flatten();
        self.old.iter().chain(new).copied().collect()
    }

    fn includes(&self, node: NodeId) -> bool {
        self.voters().contains(&node) || self.learners.contains(&node)
    }
}

#[derive(Clone, Debug)]
struct World {
    map: ClusterMap,
    hosted: BTreeMap<NodeId, BTreeSet<ShardId>>,
    groups: BTreeMap<ShardId, Group>,
    down: BTreeSet<NodeId>,
    unfit: BTreeSet<NodeId>,
}

impl World {
    /// A cluster of one node that holds all.
    fn new(shards: u16) -> Self {
        let map = made(shards);
        let one = BTreeSet::from([NodeId(1)]);
        let group = Group {
            leader: NodeId(1),
            old: one.clone(),
            new: None,
            learners: BTreeSet::new(),
            complete: one,
        };
        Self {
            hosted: BTreeMap::from([(NodeId(1), map.shards.keys().copied().collect())]),
            groups: map.shards.keys().map(|id| (*id, group.clone())).collect(),
            down: BTreeSet::new(),
            unfit: BTreeSet::new(),
            map,
        }
    }

    fn observe(&self) -> Observed {
        let mut observed = Observed::default();
        for (id, _) in self.map.members() {
            let up = !self.down.contains(&id);
            let hosted = self.hosted.get(&id).cloned().unwrap_or_default();
            let seen = NodeSeen {
                up,
                since: std::time::Duration::from_mins(1),
                hosted: up.then_some(hosted),
                unfit: self.unfit.contains(&id),
            };
            observed.nodes.insert(id, seen);
        }
        for (shard, group) in &self.groups {
            if self.down.contains(&group.leader) {
                continue;
            }
            let seen = GroupSeen {
                leader: group.leader,
                voters: group.voters(),
                learners: group.learners.clone(),
                joint: group.new.is_some(),
                caught_up: group.complete.clone(),
                stable: std::time::Duration::from_mins(1),
            };
            observed.groups.insert(*shard, seen);
        }
        observed
    }

    fn steps(&self) -> Vec<Step> {
        let observed = self.observe();
        let (down, lost) = (observed.down(&self.map), observed.lost(&self.map));
        let targets = target(&self.map, &down, &lost);
        next_steps(&self.map, &targets, &observed, &Limits::default())
    }

    /// Obeys a step, or the first half of it.
    fn obey(&mut self, step: Step, half: bool) {
        match step {
            Step::Assign {
                shard,
                replicas,
                learners,
                epoch,
            } => order(
                &mut self.map,
                Command::Assign {
                    shard,
                    replicas,
                    learners,
                    epoch,
                },
            ),
            Step::Drained { node } => order(&mut self.map, Command::Drained { node }),
            Step::Host { node, shard } => {
                assert!(!self.groups[&shard].includes(node), "an empty voter");
                self.hosted.entry(node).or_default().insert(shard);
            },
            Step::Retire { node, shard } => {
                assert!(!self.groups[&shard].includes(node), "a member was erased");
                self.hosted.entry(node).or_default().remove(&shard);
            },
            Step::Transfer { shard, to, .. } => {
                let group = self.groups.get_mut(&shard).expect("known");
                assert!(group.voters().contains(&to) && group.complete.contains(&to));
                group.leader = to;
            },
            Step::Change {
                shard,
                voters,
                learners,
                ..
            } => self.change(shard, voters, learners, half),
        }
    }

    fn change(
        &mut self,
        shard: ShardId,
        voters: BTreeSet<NodeId>,
        learners: BTreeSet<NodeId>,
        half: bool,
    ) {
        let up = |set: &BTreeSet<NodeId>| {
            set.iter().filter(|node| !self.down.contains(node)).count() * 2 > set.len()
        };
        assert!(up(&voters), "a majority was voted out of reach");
        let group = self.groups.get_mut(&shard).expect("known");
        assert!(
            voters.contains(&group.leader),
            "the leader votes itself out"
        );
        for node in &voters {
            let voted = group.voters().contains(node);
            assert!(
                voted || group.complete.contains(node),
                "a vote without a copy"
            );
        }
        for node in learners.iter().chain(&voters) {
            assert!(
                self.hosted[node].contains(&shard),
                "a member without a replica"
            );
        }
        if voters == group.old && group.new.is_none() {
            group.learners = learners;
        } else if half {
            group.learners.extend(learners.difference(&voters));
            group.new = Some(voters);
            return;
        } else {
            group.old = voters;
            group.new = None;
            group.learners = learners;
        }
        let members: BTreeSet<NodeId> = group.voters().union(&group.learners).copied().collect();
        group.complete.retain(|node| members.contains(node));
    }

    /// Copies are completed; groups whose leader is down elect another.
    fn passes(&mut self) {
        for group in self.groups.values_mut() {
            let alive = |node: &NodeId| !self.down.contains(node);
            let majority = |set: &BTreeSet<NodeId>| {
                set.iter().filter(|node| alive(node)).count() * 2 > set.len()
            };
            if !(majority(&group.old) && group.new.iter().all(majority)) {
                continue;
            }
            let voters = group.voters();
            if !alive(&group.leader) {
                let mut heirs = voters.iter().filter(|node| alive(node));
                let heir = heirs.find(|node| group.complete.contains(node));
                group.leader = heir.copied().unwrap_or(group.leader);
            }
            if alive(&group.leader) {
                let members = voters.iter().chain(&group.learners);
                group.complete.extend(members.copied().filter(alive));
            }
        }
    }

    /// Rounds of steps until there are none; some steps are lost or stop half-way in the first ones.
    fn settle(&mut self, mut chance: impl FnMut() -> u8, faults: usize) {
        for round in 0..4000 {
            let steps = self.steps();
            if steps.is_empty() {
                return;
            }
            for step in steps {
                let fate = if round < faults { chance() % 4 } else { 3 };
                if fate > 0 {
                    self.obey(step, fate == 1);
                }
            }
            self.passes();
        }
        panic!("no end: {:?}", self.steps());
    }

    fn is_as_it_should_be(&self) {
        let targets = target(&self.map, &self.down, &none());
        for (shard, target) in targets {
            let group = &self.groups[&shard];
            let wanted: BTreeSet<NodeId> = target.replicas.iter().copied().collect();
            assert_eq!(group.old, wanted, "{shard}");
            assert!(group.new.is_none());
            assert_eq!(Some(&group.leader), target.replicas.first(), "{shard}");
            for (node, hosted) in &self.hosted {
                let member = self.map.nodes[node].is_member();
                assert!(!member || hosted.contains(&shard) == group.includes(*node));
            }
        }
    }
}

/// What happens to the cluster, one thing after the other.
#[derive(Clone, Debug)]
enum Event {
    Join(usize),
    Drain(u64),
    Undrain(u64),
    Wipe(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0_usize..3).prop_map(Event::Join),
        2 => (1_u64..7).prop_map(Event::Drain),
        1 => (1_u64..7).prop_map(Event::Undrain),
        1 => (1_u64..7).prop_map(Event::Wipe),
    ];
    prop::collection::vec(event, 1..8)
}

fn happen(world: &mut World, event: &Event) {
    let request = |command| Request {
        id: RequestId(u128::from(world.map.counters.revision) + 1),
        command,
    };
    match event {
        Event::Join(zone) => drop(add(&mut world.map, ["a", "b", "c"][*zone])),
        Event::Drain(node) | Event::Undrain(node) => {
            let node = NodeId(*node);
            let command = if matches!(event, Event::Drain(_)) {
                Command::Drain { node }
            } else {
                Command::Undrain { node }
            };
            if let Ok(decision) = decide(&world.map, &request(command), NOW) {
                for row in decision.rows {
                    world.map.apply(row);
                }
            }
        },
        // A disk is lost where two other voters can make up for it.
        Event::Wipe(node) => {
            let node = NodeId(*node);
            let held = world.hosted.get(&node).cloned().unwrap_or_default();
            for shard in held {
                let group = &world.groups[&shard];
                let spare = group.new.is_none() && group.leader != node && group.old.len() >= 3;
                if spare || group.learners.contains(&node) {
                    world.hosted.entry(node).or_default().remove(&shard);
                    world
                        .groups
                        .get_mut(&shard)
                        .expect("known")
                        .complete
                        .remove(&node);
                }
            }
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn steps_converge_from_any_interrupted_state(
        shards in 1_u16..12,
        events in events(),
        fates in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let mut world = World::new(shards);
        let mut fates = fates.into_iter().cycle();
        for event in &events {
            happen(&mut world, event);
            // A few rounds only: the next thing happens in the middle of it.
            for _ in 0..3 {
                for step in world.steps() {
                    match fates.next().expect("endless") % 4 {
                        0 => {},
                        1 => world.obey(step, true),
                        _ => world.obey(step, false),
                    }
                }
                world.passes();
            }
        }
        world.settle(|| fates.next().expect("endless"), 20);
        world.is_as_it_should_be();
    }

    #[test]
    fn a_node_that_dies_leaves_its_replicas_until_it_is_removed(shards in 1_u16..12, who in 2_u64..5) {
        let mut world = World::new(shards);
        for _ in 0..3 {
            add(&mut world.map, "a");
        }
        world.settle(|| 3, 0);
        let before: Vec<_> = world.map.shards.values().map(Assignment::voters).collect();
        world.down.insert(NodeId(who));
        world.passes();
        world.settle(|| 3, 0);
        let after: Vec<_> = world.map.shards.values().map(Assignment::voters).collect();
        prop_assert_eq!(before, after);
        order(&mut world.map, Command::Remove { node: NodeId(who), force: true });
        world.settle(|| 3, 0);
        world.is_as_it_should_be();
        for row in world.map.shards.values() {
            prop_assert!(!row.includes(NodeId(who)) && row.replicas.len() == 3);
        }
    }
}

#[test]
fn few_shards_move_at_a_time() {
    let mut world = World::new(40);
    for _ in 0..2 {
        add(&mut world.map, "a");
    }
    let limits = Limits::default();
    for _ in 0..500 {
        let steps = world.steps();
        let starts = steps
            .iter()
            .filter(|step| matches!(step, Step::Assign { shard, .. } if *shard != ShardId::META));
        assert!(starts.count() <= limits.moving_max);
        let observed = world.observe();
        assert!(crate::placement::moving(&world.map, &observed) <= limits.moving_max);
        for step in steps {
            world.obey(step, false);
        }
        world.passes();
    }
    world.is_as_it_should_be();
}

fn three(shards: u16) -> World {
    let mut world = World::new(shards);
    for _ in 0..2 {
        add(&mut world.map, "a");
    }
    world.settle(|| 3, 0);
    world
}

/// F17, F12.
#[test]
fn an_unfit_node_owns_nothing_until_it_is_fit_again() {
    let mut world = three(24);
    let before = world.map.clone();
    world.unfit.insert(NodeId(1));
    let limits = Limits::default();
    let first = world.steps();
    assert_eq!(
        first.len(),
        limits.rescues_max.min(9),
        "8 shards and the map"
    );
    world.settle(|| 3, 0);
    let owns = |world: &World, node: u64| {
        let groups = world.groups.values();
        groups.filter(|group| group.leader == NodeId(node)).count()
    };
    assert_eq!(owns(&world, 1), 0);
    assert!(
        owns(&world, 2) > 8 && owns(&world, 3) > 8,
        "shared by the others"
    );
    assert_eq!(world.map.shards, before.shards, "its copies stay");
    world.unfit.clear();
    world.settle(|| 3, 0);
    world.is_as_it_should_be();
}

/// F17: a slow owner is better than none, and than one that is no faster.
#[test]
fn where_nobody_is_fit_everything_stays() {
    let mut world = three(12);
    world.unfit.extend([1, 2, 3].map(NodeId));
    assert_eq!(world.steps(), []);
}
