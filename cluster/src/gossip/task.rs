//! The shell: one socket, one clock, one task around [`Core`].

use std::{collections::BTreeSet, io, net::SocketAddr, time::Duration};

use tokio::{
    net::{UdpSocket, lookup_host},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{Member, Order, core::Core, metrics::Meters, notice::Noticed};

/// Larger than any packet of ours; what is longer is cut, and refused.
const RECEIVED_MAX: usize = 2048;
/// The clock is looked at at least so often: from longer gaps the core concludes that the process was asleep.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Names of seeds may get other addresses while we run.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How long one name may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// A socket that fails does so for a reason that lasts a moment.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Everything the task owns.
pub(super) struct Shell {
    socket: UdpSocket,
    core: Core,
    seeds: Vec<String>,
    orders: mpsc::Receiver<Order>,
    shown: watch::Sender<Vec<Member>>,
    meters: Meters,
    began: Instant,
    /// Addresses of the map.
    places: BTreeSet<SocketAddr>,
}

impl Shell {
    pub(super) fn new(
        socket: UdpSocket,
        core: Core,
        seeds: Vec<String>,
        orders: mpsc::Receiver<Order>,
        shown: watch::Sender<Vec<Member>>,
    ) -> Self {
        Self {
            socket,
            core,
            seeds,
            orders,
            shown,
            meters: Meters::new(),
            began: Instant::now(),
            places: BTreeSet::new(),
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Does what the core wants done.
    async fn settle(&mut self) {
        let effects = self.core.effects();
        for (to, packet) in effects.send {
            match self.socket.send_to(&packet, to).await {
                Ok(_) => self.meters.sent(),
                // The network may be gone for a moment; the protocol is made for lost packets.
                Err(error) => debug!(%to, %error, "gossip packet not sent"),
            }
        }
        if effects.noticed.is_empty() {
            return;
        }
        for (what, node) in effects.noticed {
            self.meters.noticed(what);
            match what {
                Noticed::Up => info!(node = node.0, "gossip: node is there"),
                Noticed::Down => warn!(node = node.0, "gossip: node is gone"),
                Noticed::Renewed => {
                    warn!("gossip: this node was taken for dead, and says it is not");
                },
                Noticed::Again | Noticed::Doubted => {
                    debug!(node = node.0, what = what.name(), "gossip");
                },
            }
        }
        let members = self.core.members();
        let alive = members.iter().filter(|member| member.alive).count();
        self.meters.members(alive, members.len() - alive);
        self.shown.send_if_modified(|shown| {
            let changed = *shown != members;
            *shown = members;
            changed
        });
    }

    async fn received(&mut self, packet: io::Result<(usize, SocketAddr)>, buffer: &mut [u8]) {
        let (length, from) = match packet {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "gossip socket");
                sleep(ERROR_PAUSE).await;
                return;
            },
        };
        let now = self.now();
        let packet = buffer.get_mut(..length).unwrap_or_default();
        let outcome = self.core.packet(from, packet, now);
        if let Err(why) = outcome {
            debug!(%from, reason = why.name(), "gossip packet refused");
        }
        self.meters.received(outcome);
    }

    fn resolved(&mut self, seeds: &BTreeSet<SocketAddr>) {
        let places = seeds.union(&self.places).copied().collect();
        self.core.set_places(places);
    }
}

/// Runs until told to leave, or until the handle is gone.
pub(super) async fn run(mut shell: Shell) {
    let (found, mut seeds) = watch::channel(BTreeSet::new());
    let resolving = tokio::spawn(resolve(std::mem::take(&mut shell.seeds), found));
    let mut buffer = vec![0; RECEIVED_MAX];
    loop {
        let now = shell.now();
        shell.core.advance(now);
        shell.settle().await;
        let due = shell.core.due().min(now + LOOK_EVERY);
        let wake = shell.began + due;
        tokio::select! {
            packet = shell.socket.recv_from(&mut buffer) => shell.received(packet, &mut buffer).await,
            () = sleep_until(wake) => {},
            Ok(()) = seeds.changed() => {
                let seeds = seeds.borrow_and_update().clone();
                shell.resolved(&seeds);
            },
            order = shell.orders.recv() => match order {
                Some(Order::Keys(keys)) => shell.core.set_keys(keys),
                Some(Order::Places(places)) => {
                    shell.places = places;
                    let seeds = seeds.borrow().clone();
                    shell.resolved(&seeds);
                },
                Some(Order::Leave) => {
                    shell.core.leave();
                    shell.settle().await;
                    break;
                },
                None => break,
            },
        }
    }
    resolving.abort();
}

/// Keeps the addresses of the seeds up to date. A name that does not resolve keeps its last addresses.
async fn resolve(seeds: Vec<String>, found: watch::Sender<BTreeSet<SocketAddr>>) {
    let mut known: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); seeds.len()];
    let mut failing = vec![false; seeds.len()];
    loop {
        for ((seed, known), failing) in seeds.iter().zip(&mut known).zip(&mut failing) {
            let looked_up = timeout(RESOLVE_WITHIN, lookup_host(seed.as_str())).await;
            match looked_up {
                Ok(Ok(addresses)) => {
                    *known = addresses.collect();
                    *failing = false;
                },
                Ok(Err(error)) if !*failing => {
                    warn!(seed, %error, "seed cannot be resolved");
                    *failing = true;
                },
                Ok(Err(_)) => {},
                Err(_elapsed) if !*failing => {
                    warn!(seed, "seed is not resolved in time");
                    *failing = true;
                },
                Err(_elapsed) => {},
            }
        }
        let all: BTreeSet<SocketAddr> = known.iter().flatten().copied().collect();
        found.send_if_modified(|shown| {
            let changed = *shown != all;
            *shown = all;
            changed
        });
        sleep(RESOLVE_EVERY).await;
    }
}
