//! Three nodes that subscribe, tell each other, miss things and take shards over, by chance: in the end their tables say
//! what a plain model says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What can happen to three nodes and what they tell each other.
#[derive(Clone, Debug)]
enum Step {
    Add(usize, u8),
    Remove(usize, u8),
    /// Messages from one to another, some of them lost with their answers.
    Tell(usize, usize, Vec<bool>),
    /// One sees another as gone, then as connected.
    TakeForGone(usize, usize),
    /// A shard goes to a node.
    Move(u8, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    prop_oneof![
        4 => (node.clone(), 0..12_u8).prop_map(|(node, filter)| Step::Add(node, filter)),
        3 => (node.clone(), 0..12_u8).prop_map(|(node, filter)| Step::Remove(node, filter)),
        4 => (node.clone(), node.clone(), prop::collection::vec(any::<bool>(), 1..4))
            .prop_map(|(from, to, lost)| Step::Tell(from, to, lost)),
        1 => (node.clone(), node.clone()).prop_map(|(from, to)| Step::TakeForGone(from, to)),
        1 => (0..2_u8, node).prop_map(|(shard, node)| Step::Move(shard, node)),
    ]
}

/// Three nodes, two shards, and the plain truth beside them.
struct Cluster {
    locals: Vec<Local>,
    tables: Vec<Table>,
    mouths: BTreeMap<(usize, usize), Mouth>,
    owners: [usize; 2],
    terms: [u64; 2],
    /// By whom, how often.
    wanted: BTreeMap<(Dest, u8), u32>,
}

const fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

/// Filters 0 to 5 are wanted by clean sessions of the node, 6 to 8 by durable ones of shard 0, the rest of shard 1.
fn dest_of(node: usize, number: u8) -> Dest {
    match number {
        0..=5 => Dest::Node(id(node)),
        6..=8 => Dest::Shard(ShardId(0)),
        _ => Dest::Shard(ShardId(1)),
    }
}

fn text(number: u8) -> String {
    match number % 3 {
        0 => format!("a/{}", number / 3),
        1 => format!("+/{}", number / 3),
        _ => format!("$share/g/a/{}", number / 3),
    }
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            locals: Vec::new(),
            tables: Vec::new(),
            mouths: BTreeMap::new(),
            owners: [0, 1],
            terms: [1, 1],
            wanted: BTreeMap::new(),
        };
        for node in 0..3 {
            let mut local = Local::default();
            local.claim(Dest::Node(id(node)), Term::default());
            cluster.locals.push(local);
            let mut table = Table::new(id(node), 2, 1_000);
            let others = (0..3).filter(|other| *other != node);
            let peers: Vec<_> = others
                .map(|other| peer(id(other), 1, Reach::Connected))
                .collect();
            table.peers(&peers);
            cluster.tables.push(table);
            for other in (0..3).filter(|other| *other != node) {
                cluster.mouths.insert((node, other), Mouth::new(Boot(1)));
            }
        }
        for (shard, owner) in [(0_u16, 0_usize), (1, 1)] {
            cluster.locals[owner].claim(Dest::Shard(ShardId(shard)), Term(1));
            cluster.tables[owner].gained(ShardId(shard), Term(1));
        }
        cluster
    }

    /// Who has the sessions: the node itself, or the shard's owner.
    fn holder(&self, node: usize, number: u8) -> usize {
        match dest_of(node, number) {
            Dest::Node(_) => node,
            Dest::Shard(shard) => self.owners[usize::from(shard.0)],
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Add(node, number) => {
                let (dest, holder) = (dest_of(*node, *number), self.holder(*node, *number));
                *self.wanted.entry((dest, *number)).or_default() += 1;
                self.locals[holder].add(dest, &filter(&text(*number)));
            },
            Step::Remove(node, number) => {
                let (dest, holder) = (dest_of(*node, *number), self.holder(*node, *number));
                if let Some(count) = self
                    .wanted
                    .get_mut(&(dest, *number))
                    .filter(|count| **count > 0)
                {
                    *count -= 1;
                    self.locals[holder].remove(dest, &filter(&text(*number)));
                }
            },
            Step::Tell(from, to, lost) => {
                for lost in lost {
                    self.tell(*from, *to, *lost);
                }
            },
            Step::TakeForGone(from, to) if from != to => {
                for reach in [Reach::Gone, Reach::Connected] {
                    let peers: Vec<_> = (0..3)
                        .filter(|other| other != from)
                        .map(|other| {
                            let reach = if other == *to {
                                reach
                            } else {
                                Reach::Connected
                            };
                            peer(id(other), 1, reach)
                        })
                        .collect();
                    self.tables[*from].peers(&peers);
                }
            },
            Step::TakeForGone(..) => {},
            Step::Move(shard, to) => self.move_shard(*shard, *to),
        }
    }

    fn tell(&mut self, from: usize, to: usize, is_answer_lost: bool) {
        let Some(mouth) = self.mouths.get_mut(&(from, to)) else {
            return;
        };
        if let Some(said) = mouth.next(&self.locals[from]) {
            let answer = self.tables[to].hear(id(from), &said);
            if !is_answer_lost {
                mouth.answered(answer);
            }
        }
    }

    fn move_shard(&mut self, number: u8, to: usize) {
        let (at, shard) = (usize::from(number), ShardId(u16::from(number)));
        let (from, dest) = (self.owners[at], Dest::Shard(shard));
        if from == to {
            return;
        }
        self.terms[at] += 1;
        self.owners[at] = to;
        let wanted: Vec<_> = self.locals[from]
            .wanted(dest)
            .map(|(filter, connected)| (filter.clone(), connected))
            .collect();
        let wanted_here = wanted
            .iter()
            .map(|(filter, connected)| (filter, *connected));
        self.tables[from].lost(shard, wanted_here);
        self.locals[from].renounce(dest);
        for ((of, number), count) in &self.wanted {
            for _ in 0..if *of == dest { *count } else { 0 } {
                self.locals[from].remove(dest, &filter(&text(*number)));
                self.locals[to].add(dest, &filter(&text(*number)));
            }
        }
        let term = Term(self.terms[at]);
        self.tables[to].gained(shard, term);
        self.locals[to].claim(dest, term);
    }

    /// Everybody hears everything.
    fn settle(&mut self) {
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                // as the reminder does: whoever was taken for gone notices
                let mouth = self.mouths.get_mut(&(from, to)).expect("a mouth");
                if mouth.next(&self.locals[from]).is_none() {
                    let reminder = Advertisement {
                        boot: Boot(1),
                        stream: mouth.stream,
                        sequence: mouth.sequence,
                        items: Vec::new(),
                    };
                    let answer = self.tables[to].hear(id(from), &reminder);
                    mouth.answered(answer);
                }
                mouth.tell(&self.locals[from], id(from), &mut self.tables[to]);
            }
        }
    }

    fn check(&self) {
        for node in 0..3 {
            let table = &self.tables[node];
            assert_eq!(table.blind(), 0, "node {node}");
            let mut entries = 0;
            for topic in ["a/0", "a/1", "a/2", "a/3", "b/0", "b/1", "b/2"] {
                let mut found = Found::default();
                table.find(topic, &mut found);
                let (mut dests, mut shared) = (BTreeSet::new(), BTreeSet::new());
                for ((dest, number), count) in &self.wanted {
                    let is_mine = match dest {
                        Dest::Node(of) => *of == id(node),
                        Dest::Shard(of) => self.owners[usize::from(of.0)] == node,
                    };
                    let wants = filter(&text(*number));
                    if *count == 0 || is_mine || !umbel_core::topic::matches(wants.pattern(), topic)
                    {
                        continue;
                    }
                    entries += 1;
                    if wants.group().is_some() {
                        shared.insert((*dest, wants));
                    } else {
                        dests.insert(*dest);
                    }
                }
                assert_eq!(
                    found.dests.iter().copied().collect::<BTreeSet<_>>(),
                    dests,
                    "{topic}"
                );
                let heard: BTreeSet<_> = found
                    .shared
                    .into_iter()
                    .map(|candidate| (candidate.dest, candidate.filter))
                    .collect();
                assert_eq!(heard, shared, "{topic}");
            }
            assert!(
                table.len() <= entries,
                "node {node}: {} of {entries}",
                table.len()
            );
        }
    }
}

proptest! {
    #[test]
    fn tables_come_to_say_what_is_wanted(steps in prop::collection::vec(step(), 0..120)) {
        let mut cluster = Cluster::new();
        for step in &steps {
            cluster.run(step);
        }
        cluster.settle();
        cluster.check();
    }
}
