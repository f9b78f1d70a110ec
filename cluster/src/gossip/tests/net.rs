//! The simulated network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::super::{
    Member,
    core::Core,
    identity::Identity,
    keys::{Key, Keys},
    notice::Noticed,
    seal::{Rubbish, Seal},
    settings::Settings,
};

const STEP: Duration = Duration::from_millis(10);
const CLUSTER: &str = "simulated";

/// Where node `n` of the simulation listens; its id is `n + 1`.
pub(super) fn address(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7000 + u16::try_from(n).unwrap()))
}

fn keys() -> Keys {
    Keys::new(
        Key {
            id: 1,
            secret: [7; 32],
        },
        Vec::new(),
    )
}

fn core(n: usize, boot: u64, seed: u64) -> Core {
    let me = Identity {
        node: NodeId(n as u64 + 1),
        boot: Boot(boot),
        renewals: 0,
        link: SocketAddr::from(([10, 0, 0, 1], 1)),
        gossip: address(n),
        roles: 7,
        zone: format!("zone-{}", n + 1),
        version: [0, 1, 0],
    };
    let mut core = Core::new(me, CLUSTER, keys(), Settings::default(), seed).unwrap();
    core.set_places(BTreeSet::from([address(0)]));
    core
}

struct Host {
    core: Core,
    is_running: bool,
    is_paused: bool,
    began: Duration,
    queue: Vec<Vec<u8>>,
}

pub(super) struct Net {
    hosts: Vec<Host>,
    seed: u64,
    rng: StdRng,
    flying: BTreeMap<(Duration, u64), (usize, usize, Vec<u8>)>,
    count: u64,
    blocked: BTreeSet<(usize, usize)>,
    pub(super) now: Duration,
    pub(super) loss: f64,
    /// Packets that were not taken, of those that hosts sent.
    pub(super) refused: u32,
    pub(super) record: bool,
    pub(super) recorded: Vec<(usize, Vec<u8>)>,
    /// Who noticed what about whom.
    pub(super) notices: Vec<(usize, Noticed, NodeId)>,
}

impl Net {
    pub(super) fn new(nodes: usize, seed: u64) -> Self {
        let host = |n| Host {
            core: core(n, 1, seed * 1000 + n as u64),
            is_running: true,
            is_paused: false,
            began: Duration::ZERO,
            queue: Vec::new(),
        };
        Self {
            hosts: (0..nodes).map(host).collect(),
            seed,
            rng: StdRng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            count: 0,
            blocked: BTreeSet::new(),
            now: Duration::ZERO,
            loss: 0.0,
            refused: 0,
            record: false,
            recorded: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// A cluster in which all have seen all for a while.
    pub(super) fn formed(nodes: usize, seed: u64) -> Self {
        let mut net = Self::new(nodes, seed);
        net.until(Duration::from_secs(10), "formed", Self::all_see_all);
        net.run(Duration::from_secs(10));
        net
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.step();
        }
    }

    pub(super) fn until(&mut self, within: Duration, why: &str, state: impl Fn(&Self) -> bool) {
        let end = self.now + within;
        while !state(self) {
            assert!(
                self.now < end,
                "seed {}: not within {within:?}: {why}; {:?}",
                self.seed,
                self.notices
            );
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (from, to, packet) = entry.remove();
            self.arrive(from, to, packet);
        }
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.shuffle(&mut self.rng);
        for n in order {
            let host = &mut self.hosts[n];
            if host.is_running && !host.is_paused {
                let now = self.now.checked_sub(host.began).unwrap();
                host.core.advance(now);
                self.collect(n);
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, mut packet: Vec<u8>) {
        if self.record {
            self.recorded.push((to, packet.clone()));
        }
        let host = &mut self.hosts[to];
        if host.is_paused {
            host.queue.push(packet);
        } else if host.is_running {
            let now = self.now.checked_sub(host.began).unwrap();
            let outcome = host.core.packet(address(from), &mut packet, now);
            self.refused += u32::from(outcome.is_err());
            self.collect(to);
        }
    }

    fn collect(&mut self, n: usize) {
        let effects = self.hosts[n].core.effects();
        for (what, whom) in effects.noticed {
            self.notices.push((n, what, whom));
        }
        for (to, packet) in effects.send {
            let to = usize::from(to.port() - 7000);
            let is_lost = self.rng.random_bool(self.loss);
            if !is_lost && !self.blocked.contains(&(n, to)) && to < self.hosts.len() {
                let after = Duration::from_millis(self.rng.random_range(1..6));
                self.count += 1;
                self.flying
                    .insert((self.now + after, self.count), (n, to, packet));
            }
        }
    }

    pub(super) fn members(&self, n: usize) -> Vec<Member> {
        self.hosts[n].core.members()
    }

    pub(super) fn sees(&self, n: usize, other: usize) -> bool {
        let members = self.members(n);
        members
            .iter()
            .any(|m| m.node.0 == other as u64 + 1 && m.alive)
    }

    pub(super) fn all_see_all(&self) -> bool {
        let all = 0..self.hosts.len();
        all.clone()
            .all(|n| all.clone().all(|other| n == other || self.sees(n, other)))
    }

    pub(super) fn crash(&mut self, n: usize) {
        self.hosts[n].is_running = false;
    }

    pub(super) fn boot(&mut self, n: usize, boot: u64) {
        let began = self.now;
        self.hosts[n] = Host {
            core: core(n, boot, self.seed * 1000 + 77 + n as u64),
            is_running: true,
            is_paused: false,
            began,
            queue: Vec::new(),
        };
        // Only the first is a seed; a map would give the others.
        let places = (0..self.hosts.len()).map(address).collect();
        self.hosts[n].core.set_places(places);
    }

    pub(super) fn pause(&mut self, n: usize) {
        self.hosts[n].is_paused = true;
    }

    /// It goes on with its timers first, then with what waited on its socket: the worse order.
    pub(super) fn resume(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        host.is_paused = false;
        let now = self.now.checked_sub(host.began).unwrap();
        host.core.advance(now);
        for mut packet in std::mem::take(&mut host.queue) {
            let outcome = host.core.packet(address(0), &mut packet, now);
            self.refused += u32::from(outcome.is_err());
        }
        self.collect(n);
    }

    /// Cuts these off from the others.
    pub(super) fn partition(&mut self, alone: &BTreeSet<usize>) {
        for a in 0..self.hosts.len() {
            for b in 0..self.hosts.len() {
                if alone.contains(&a) != alone.contains(&b) {
                    self.blocked.insert((a, b));
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.blocked.clear();
    }

    pub(super) fn leave(&mut self, n: usize) {
        self.hosts[n].core.leave();
        self.collect(n);
        self.crash(n);
    }

    /// A packet from nowhere.
    pub(super) fn inject(&mut self, to: usize, packet: &[u8]) -> Result<(), Rubbish> {
        let mut packet = packet.to_vec();
        let host = &mut self.hosts[to];
        let now = self.now.checked_sub(host.began).unwrap();
        let from = SocketAddr::from(([192, 0, 2, 1], 9));
        let outcome = host.core.packet(from, &mut packet, now);
        self.collect_from_stranger(to);
        outcome
    }

    fn collect_from_stranger(&mut self, to: usize) {
        // Answers go to an address that is nobody's.
        let mut effects = self.hosts[to].core.effects();
        effects.send.retain(|(to, _)| to.port() >= 7000);
        for (what, whom) in effects.noticed {
            self.notices.push((to, what, whom));
        }
    }

    /// Bytes that begin more or less like a packet.
    pub(super) fn rubbish(&mut self, n: u64) -> Vec<u8> {
        let length = self.rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..length).map(|_| self.rng.random()).collect();
        let head = [
            vec![1, 0, 0, 0, 1],
            crc32fast::hash(CLUSTER.as_bytes()).to_be_bytes().to_vec(),
            (n % 6).to_be_bytes().to_vec(),
        ]
        .concat();
        let keep = usize::try_from(n % 18).unwrap().min(bytes.len());
        bytes[..keep].copy_from_slice(&head[..keep]);
        bytes
    }

    /// What a member whose memory is broken would send.
    pub(super) fn sealed_rubbish(&mut self, n: u64) -> Vec<u8> {
        let length = self.rng.random_range(0..120);
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                let byte: u8 = self.rng.random();
                if self.rng.random_bool(0.7) {
                    byte % 8
                } else {
                    byte
                }
            })
            .collect();
        // A life of its own each time: what is tested is the content.
        let mut seal = Seal::new(CLUSTER, NodeId(2), Boot(1_000 + n), keys()).unwrap();
        seal.seal(&bytes).unwrap()
    }

    /// A sender of another cluster with the same key.
    pub(super) fn stranger() -> Seal {
        Seal::new("another", NodeId(9), Boot(1), keys()).unwrap()
    }
}
