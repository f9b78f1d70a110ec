//! Random moves of owners, deaths of nodes, broken links and clients that come and go, by seed; then everything heals,
//! and what has to hold is looked at. `UMBEL_SCHEDULES=100` looks at more of them, `UMBEL_SEED=n` at one.

use std::{collections::BTreeMap, time::Duration};

use umbel_core::{
    device::{Connect, DisconnectReason, Presence},
    ids::{SessionEpoch, ShardId},
};
use umbel_storage::nodes::Reach;

use super::{
    super::{client, eventually, hello, will},
    net::{Net, SHARDS},
};

const NODES: u64 = 3;
const CLIENTS: u64 = 8;
const STEPS: u64 = 60;

/// Numbers that a seed gives.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// Splitmix64.
    pub(super) fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// One connection that a client was told of.
#[derive(Clone, Debug)]
struct Told {
    epoch: SessionEpoch,
    will: String,
    /// Its client said farewell; whether its owner had recorded that at once.
    farewell: Option<bool>,
}

struct Run {
    net: std::sync::Arc<Net>,
    dice: Dice,
    boots: BTreeMap<u64, u64>,
    dead: BTreeMap<u64, std::sync::Arc<super::net::Site>>,
    told: BTreeMap<String, Vec<Told>>,
    connects: u64,
    log: Vec<String>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        Self {
            net: Net::new(NODES).await,
            dice: Dice(seed),
            boots: (1..=NODES).map(|node| (node, 1)).collect(),
            dead: BTreeMap::new(),
            told: BTreeMap::new(),
            connects: 0,
            log: Vec::new(),
        }
    }

    fn alive(&mut self) -> u64 {
        loop {
            let node = 1 + self.dice.throw(NODES);
            if !self.dead.contains_key(&node) {
                return node;
            }
        }
    }

    async fn step(&mut self) {
        match self.dice.throw(20) {
            0..=7 => self.connect().await,
            8..=10 => self.end().await,
            11..=13 => {
                let shard = ShardId(u16::try_from(self.dice.throw(SHARDS.into())).expect("few"));
                let node = self.alive();
                self.log.push(format!("{shard} to {node}"));
                self.net.give(shard, Some(node));
            },
            14 => self.kill(),
            15 => self.revive().await,
            16 => self.link(true),
            17 => self.link(false),
            _ => {
                let seconds = self.dice.throw(8);
                self.log.push(format!("{seconds} s"));
                self.net.clock.advance(Duration::from_secs(seconds));
                tokio::time::sleep(Duration::from_millis(5)).await;
            },
        }
    }

    async fn connect(&mut self) {
        let node = self.alive();
        let id = format!("c{}", self.dice.throw(CLIENTS));
        self.connects += 1;
        let topic = format!("will/{id}/{}", self.connects);
        let hello = Connect {
            expiry: [0, 3600][usize::from(self.dice.throw(2) == 1)],
            ..hello(Some(will(&topic, 0)))
        };
        let opened = self.net.connect(node, &id, hello).await;
        self.log.push(format!("{id} at {node}: {opened:?}"));
        let Ok(epoch) = opened else { return };
        let told = self.told.entry(id).or_default();
        assert!(
            told.iter().all(|one| one.epoch < epoch),
            "an epoch came again"
        );
        told.push(Told {
            epoch,
            will: topic,
            farewell: None,
        });
    }

    async fn end(&mut self) {
        let node = self.alive();
        let open: Vec<_> = self
            .net
            .site(node)
            .open
            .lock()
            .clone()
            .into_iter()
            .collect();
        if open.is_empty() {
            return;
        }
        let index = self.dice.throw(open.len() as u64);
        let (id, epoch) = open[usize::try_from(index).expect("few")].clone();
        let is_farewell = self.dice.throw(2) == 0;
        let why = if is_farewell {
            DisconnectReason::ClientInitiated
        } else {
            DisconnectReason::ConnectionLost
        };
        let ended = self.net.leave(node, id.as_str(), epoch, why).await;
        self.log.push(format!(
            "{id} leaves {node} farewell {is_farewell}: {ended:?}"
        ));
        let told = self.told.get_mut(id.as_str()).expect("told");
        let told = told
            .iter_mut()
            .find(|one| one.epoch == epoch)
            .expect("told");
        told.farewell = is_farewell.then_some(ended.is_ok());
    }

    fn kill(&mut self) {
        if !self.dead.is_empty() {
            return;
        }
        let node = self.alive();
        self.log.push(format!("{node} dies"));
        let site = self.net.kill(node);
        self.dead.insert(node, site);
        for number in 0..SHARDS {
            if self.net.owner(ShardId(number)) == Some(node) {
                let heir = self.alive();
                self.net.give(ShardId(number), Some(heir));
            }
        }
        if self.dice.throw(2) == 0 {
            self.net.gone(&self.dead[&node]);
        }
    }

    async fn revive(&mut self) {
        let Some((node, site)) = self.dead.pop_first() else {
            return;
        };
        self.log.push(format!("{node} starts"));
        self.net.gone(&site);
        let boot = self.boots.get_mut(&node).expect("known");
        *boot += 1;
        self.net.start(node, *boot).await;
    }

    fn link(&mut self, is_cut: bool) {
        let (from, to) = (self.alive(), self.alive());
        if from == to {
            return;
        }
        self.log.push(format!("{from} to {to} cut {is_cut}"));
        for (one, other) in [(from, to), (to, from)] {
            self.net.cut(one, other, is_cut);
            let reach = match (is_cut, self.dice.throw(2)) {
                (false, _) => Reach::Connected,
                (true, 0) => Reach::Unreachable,
                (true, _) => Reach::Gone,
            };
            self.net.sees(one, other, reach);
        }
    }

    async fn heal(&mut self) {
        self.revive().await;
        for from in 1..=NODES {
            for to in (1..=NODES).filter(|to| *to != from) {
                self.net.cut(from, to, false);
                self.net.sees(from, to, Reach::Connected);
            }
        }
        self.net.settled().await;
    }

    fn holders(&self, id: &str) -> Vec<(u64, SessionEpoch)> {
        let open = |node| self.net.site(node).open.lock().get(&client(id)).copied();
        let holders = (1..=NODES).filter_map(|node| Some((node, open(node)?)));
        holders.collect()
    }

    /// What has to hold; gives back how many connections, open ones and wills were looked at.
    async fn judge(&mut self) -> (usize, usize, usize) {
        let mut looked = (0, 0, 0);
        for (id, told) in self.told.clone() {
            let last = told.last().expect("told once at least");
            eventually("no connection that is over is held", || {
                let holders = self.holders(&id);
                holders.len() <= 1 && holders.iter().all(|held| held.1 == last.epoch)
            })
            .await;
        }
        for _ in 0..3 {
            // Whoever is called gets the time to answer before its time is over.
            tokio::time::sleep(Duration::from_millis(400)).await;
            self.net.clock.advance(Duration::from_secs(12));
        }
        self.net.clock.advance(Duration::from_secs(40));
        for (id, told) in self.told.clone() {
            let last = told.last().expect("told once at least");
            let is_held = !self.holders(&id).is_empty();
            let wanted = if is_held {
                Presence::Online
            } else {
                Presence::Offline
            };
            self.net.becomes(1, &id, wanted).await;
            looked.1 += usize::from(is_held);
            for one in &told {
                let count = self.net.count(&one.will);
                looked.0 += 1;
                looked.2 += count;
                assert!(count <= 1, "{id}: {count} wills of {one:?}");
                let is_open = is_held && one.epoch == last.epoch;
                assert!(
                    !(is_open && count > 0),
                    "{id}: a will of who is there: {one:?}"
                );
                assert!(
                    !(one.farewell == Some(true) && count > 0),
                    "{id}: a will after a farewell: {one:?}"
                );
            }
            // A connect that nobody was told of may have come after it.
            let record = self.net.view(1, &id).await.expect("known").record;
            if !is_held && last.farewell.is_none() && record.epoch == last.epoch {
                assert_eq!(self.net.count(&last.will), 1, "{id}: no will of {last:?}");
            }
        }
        looked
    }
}

fn seeds() -> std::ops::Range<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a search for bugs may take is its caller's to say"
    )]
    let number = |name| std::env::var(name).ok()?.parse().ok();
    match number("UMBEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("UMBEL_SCHEDULES").unwrap_or(6),
    }
}

/// G6, G7, G8, F3, F4: epochs are unique, at most one connection is held, wills go out once and only where due, and
/// presence converges.
#[tokio::test]
async fn whatever_happens_presence_converges_and_wills_go_out_once() {
    let mut looked = (0, 0, 0);
    for seed in seeds() {
        let mut run = Run::new(seed).await;
        for _ in 0..STEPS {
            run.step().await;
        }
        run.heal().await;
        let log = std::mem::take(&mut run.log);
        let judged = tokio::spawn(async move { run.judge().await });
        match judged.await {
            Ok(of) => looked = (looked.0 + of.0, looked.1 + of.1, looked.2 + of.2),
            Err(why) => panic!("seed {seed}: {why}\n{}", log.join("\n")),
        }
    }
    let (connections, open, wills) = looked;
    tracing::info!(connections, open, wills, "looked at");
    assert!(
        open > 0 && wills > 0,
        "void: {connections} connections, {open} open, {wills} wills"
    );
}
