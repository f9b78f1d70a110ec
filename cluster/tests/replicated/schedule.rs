//! Random schedules of faults, with a checker: what was acknowledged is there, an owner is the only one of its term, no
//! read is stale, and replicas that have caught up are equal.
//!
//! `UMBEL_SCHEDULES=100` runs more of them; each failure names its seed, and `UMBEL_SEED=n` runs that one alone.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use umbel_cluster::{Config, Shards};
use umbel_core::ids::{NodeId, ShardId, Term};
use umbel_storage::{Ledger, Refusal, Table, Write};

use crate::world::{World, node, set, within};

const NODES: u64 = 3;
const SHARDS: u16 = 2;
const WRITERS: u64 = 4;
const STEPS: usize = 14;
/// How long a writer waits for an answer before it takes the outcome for unknown.
const IMPATIENCE: Duration = Duration::from_millis(60);

fn quick(config: &mut Config) {
    config.heartbeat = Duration::from_millis(30);
    config.election_min = Duration::from_millis(100);
    config.election_max = Duration::from_millis(200);
    config.lease_margin = Duration::from_millis(30);
    config.snapshots.entries = 60;
    config.snapshots.every = Duration::from_millis(50);
    config.snapshots.peer_tail_entries = 8;
    config.changes.lag_entries = 8;
    config.changes.catch_up = Duration::from_secs(2);
    config.changes.transfer = Duration::from_millis(500);
    config.changes.step = Duration::from_millis(500);
}

/// What is known of one key: its writer counts.
#[derive(Default)]
struct Key {
    acknowledged: AtomicU64,
    proposed: AtomicU64,
}

/// What all tasks look at.
struct History {
    /// Nodes that run. Held for reading while a node is asked.
    running: RwLock<BTreeMap<NodeId, Arc<Shards>>>,
    keys: Vec<Key>,
    owners: Mutex<BTreeMap<(ShardId, Term), NodeId>>,
    stop: AtomicBool,
    reads: AtomicU64,
    /// A proposal was not answered at all.
    hung: AtomicBool,
}

fn shard_of(key: u64) -> ShardId {
    ShardId(u16::try_from(key % u64::from(SHARDS)).unwrap_or_default())
}

fn value_of(shards: &Shards, shard: ShardId, key: u64) -> Option<u64> {
    let name = format!("k{key}");
    let bytes = shards.get(shard, Table::Device, name.as_bytes()).ok()?;
    let Some(bytes) = bytes else { return Some(0) };
    String::from_utf8(bytes).ok()?.parse().ok()
}

impl History {
    fn owner(&self, shard: ShardId) -> Option<(Arc<Shards>, Term)> {
        let mut owners: Vec<_> = self
            .running
            .read()
            .iter()
            .filter_map(|(id, shards)| Some((*id, Arc::clone(shards), shards.term(shard)?)))
            .collect();
        // Were there two by a defect, some of the writers should find each.
        let which = rand::rng().random_range(0..owners.len().max(1));
        if owners.is_empty() {
            return None;
        }
        let (id, shards, term) = owners.swap_remove(which);
        let first = *self.owners.lock().entry((shard, term)).or_insert(id);
        assert_eq!(first, id, "G2: two owners of shard {shard} in {term:?}");
        Some((shards, term))
    }

    fn owner_id(&self, shard: ShardId) -> Option<u64> {
        let (owner, _) = self.owner(shard)?;
        let running = self.running.read();
        let found = running.iter().find(|(_, at)| Arc::ptr_eq(at, &owner))?;
        Some(found.0.0)
    }

    /// Writes its key, over and over, each time one more.
    async fn write(self: Arc<Self>, key: u64) {
        let (shard, known) = (shard_of(key), &self.keys[usize::try_from(key).unwrap_or(0)]);
        let mut next = 1;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((shards, term)) = self.owner(shard) else {
                sleep(Duration::from_millis(3)).await;
                continue;
            };
            known.proposed.store(next, Ordering::SeqCst);
            let writes = vec![Write::put(
                Table::Device,
                format!("k{key}"),
                next.to_string().into(),
            )];
            let receipt = shards.propose(shard, term, writes);
            let history = Arc::clone(&self);
            let mut receipt = tokio::spawn(async move {
                let answered = timeout(Duration::from_secs(8), receipt).await;
                answered.unwrap_or_else(|_| {
                    history.hung.store(true, Ordering::Relaxed);
                    Err(Refusal::Unknown)
                })
            });
            // Whoever waits for an owner that is cut off sees nothing of the next one.
            let answered = match timeout(IMPATIENCE, &mut receipt).await {
                Ok(answered) => answered.expect("answered"),
                Err(_) => Err(Refusal::Unknown),
            };
            match answered {
                Ok(()) => {
                    known.acknowledged.store(next, Ordering::SeqCst);
                    next += 1;
                },
                // It may happen yet: that number is spent.
                Err(Refusal::Unknown) => next += 1,
                Err(Refusal::NotOwner | Refusal::Busy | Refusal::Quarantined) => {
                    sleep(Duration::from_millis(2)).await;
                },
                Err(other) => panic!("refused: {other}"),
            }
        }
    }

    /// Reads keys where they may be read, and looks whether that was what was acknowledged before.
    async fn read(self: Arc<Self>, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        while !self.stop.load(Ordering::Relaxed) {
            let key = random.random_range(0..WRITERS);
            let (shard, known) = (shard_of(key), &self.keys[usize::try_from(key).unwrap_or(0)]);
            let least = known.acknowledged.load(Ordering::SeqCst);
            let all: Vec<Arc<Shards>> = self.running.read().values().cloned().collect();
            for shards in all {
                let Some(term) = shards.term(shard) else {
                    continue;
                };
                let found = value_of(&shards, shard, key);
                // The answer counts only if the term holds after it was made.
                if shards.term(shard) == Some(term)
                    && let Some(found) = found
                {
                    let most = known.proposed.load(Ordering::SeqCst);
                    assert!(
                        (least..=most).contains(&found),
                        "G4: k{key} is {found}, acknowledged {least}, proposed {most}"
                    );
                    self.reads.fetch_add(1, Ordering::Relaxed);
                }
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn fault(world: &mut World, history: &History, random: &mut StdRng) -> String {
    let one = random.random_range(1..=NODES);
    let other = one % NODES + 1;
    let third = other % NODES + 1;
    let cut_off = random.random_range(300..700);
    let shard = ShardId(random.random_range(0..SHARDS));
    match random.random_range(0..12_u32) {
        0..=2 => {
            if !world.running().contains(&one) {
                return "nothing".to_owned();
            }
            history.running.write().remove(&node(one));
            world.kill(one).await;
            format!("kill {one}")
        },
        3..=4 => {
            revive(world, history).await;
            "revive".to_owned()
        },
        5 | 11 => {
            // An owner, mostly: it is the one that could say something wrong.
            let alone = history.owner_id(shard).unwrap_or(one);
            let rest: Vec<NodeId> = (1..=NODES).filter(|id| *id != alone).map(node).collect();
            world.net.partition(&[&[node(alone)], &rest]);
            sleep(Duration::from_millis(cut_off)).await;
            format!("isolate {alone}")
        },
        6 => {
            world.net.cut(node(one), node(other));
            format!("cut {one} from {other}")
        },
        7 => {
            world
                .net
                .set_delay(Duration::from_millis(random.random_range(0..12)));
            "delay".to_owned()
        },
        8 => {
            world.net.heal();
            "heal".to_owned()
        },
        9 => {
            if let Some((shards, _)) = history.owner(shard) {
                drop(shards.transfer(shard, node(one)).await);
            }
            format!("transfer {shard} to {one}")
        },
        _ => {
            if let Some((shards, _)) = history.owner(shard) {
                let (voters, learners) = if random.random() {
                    (set(&[1, 2, 3]), set(&[]))
                } else {
                    (set(&[one, other]), set(&[third]))
                };
                drop(shards.change_members(shard, voters, learners).await);
            }
            format!("change members of {shard}")
        },
    }
}

async fn revive(world: &mut World, history: &History) {
    for id in 1..=NODES {
        if !world.running().contains(&id) {
            world.boot(id).await;
            let shards = Arc::clone(&world.at(id).shards);
            history.running.write().insert(node(id), shards);
        }
    }
}

async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::with(NODES, SHARDS, quick).await;
    let running = (1..=NODES).map(|id| (node(id), Arc::clone(&world.at(id).shards)));
    let history = Arc::new(History {
        running: RwLock::new(running.collect()),
        keys: (0..WRITERS).map(|_| Key::default()).collect(),
        owners: Mutex::default(),
        stop: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        hung: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for key in 0..WRITERS {
        tasks.spawn(Arc::clone(&history).write(key));
    }
    tasks.spawn(Arc::clone(&history).read(seed));
    let mut done = Vec::new();
    for _ in 0..STEPS {
        done.push(fault(&mut world, &history, &mut random).await);
        sleep(Duration::from_millis(random.random_range(20..400))).await;
        if let Some(ended) = tasks.try_join_next() {
            panic!("seed {seed}, after {done:?}: {ended:?}");
        }
    }
    // G12: faults gone, everything heals without help.
    world.net.heal();
    world.net.set_delay(Duration::ZERO);
    revive(&mut world, &history).await;
    for key in 0..WRITERS {
        let known = &history.keys[usize::try_from(key).unwrap_or(0)];
        let before = known.acknowledged.load(Ordering::SeqCst);
        let more = async {
            while known.acknowledged.load(Ordering::SeqCst) <= before {
                sleep(Duration::from_millis(5)).await;
            }
        };
        within(
            &format!("seed {seed}: k{key} is written again after {done:?}"),
            more,
        )
        .await;
    }
    history.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = within("tasks end", tasks.join_next()).await {
        ended.unwrap_or_else(|error| panic!("seed {seed}, after {done:?}: {error}"));
    }
    assert!(
        history.reads.load(Ordering::Relaxed) > 0,
        "reads were checked"
    );
    assert!(
        !history.hung.load(Ordering::Relaxed),
        "F9, seed {seed}: a proposal is answered, whatever happens"
    );
    settle(&world, &history, seed).await;
}

/// In the end every replica holds the same, and that is what was acknowledged or proposed later.
async fn settle(world: &World, history: &History, seed: u64) {
    for key in 0..WRITERS {
        let (shard, known) = (
            shard_of(key),
            &history.keys[usize::try_from(key).unwrap_or(0)],
        );
        let least = known.acknowledged.load(Ordering::SeqCst);
        let most = known.proposed.load(Ordering::SeqCst);
        let (owner, _) = world.served(shard).await;
        let found = value_of(&world.at(owner).shards, shard, key).expect("readable");
        assert!(
            (least..=most).contains(&found),
            "G1, seed {seed}: k{key} is {found}, acknowledged {least}, proposed {most}"
        );
        let members = world.at(owner).shards.members(shard).expect("members");
        for member in members.voters.iter().chain(&members.learners) {
            let equal = async {
                while value_of(&world.at(member.0).shards, shard, key) != Some(found) {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            within(
                &format!("seed {seed}: node {member} has k{key} = {found}"),
                equal,
            )
            .await;
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the node"
)]
#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_g4_g12_hold_through_random_faults() {
    if let Some(seed) = env::var("UMBEL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        return run(seed).await;
    }
    let count = env::var("UMBEL_SCHEDULES")
        .ok()
        .and_then(|count| count.parse().ok());
    for seed in 0..count.unwrap_or(3) {
        run(seed).await;
    }
}
