//! The devices of one node, in a process of their own: a process may have 20,000 open files, a fleet has more.
//!
//! It is asked on its standard input, a line each, and answers on its standard output: `state`, `mark` (now is when
//! the node dies; the state, too), `report`. It ends, and
//! all its connections with it, when its input does.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use rand::{Rng, seq::IndexedRandom};
use rumqttc::mqttbytes::{QoS, v4::LastWill};
use serde::{Deserialize, Serialize};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    backoff::Backoff,
    client::{Client, Target},
};

/// Different failure texts kept; the rest is counted together.
const FAILURES_MAX: usize = 20;
/// Where wills go: the device's name follows.
pub(super) const WILLS: &str = "reconnect/will";

/// `umbel-loadtest cluster devices`
#[derive(Args)]
pub(crate) struct DevicesArgs {
    /// Where the devices connect first.
    #[arg(long)]
    server: SocketAddr,
    /// Where they connect once they have lost a connection.
    #[arg(long, value_delimiter = ',')]
    others: Vec<SocketAddr>,
    /// How many.
    #[arg(long)]
    devices: usize,
    /// Beginning of their names.
    #[arg(long)]
    prefix: String,
    /// Connections opened each second at first.
    #[arg(long)]
    connect_rate: f64,
    /// Keep-alive in seconds.
    #[arg(long)]
    keep_alive: u64,
    /// Second part of the source addresses: 127.here.x.y.
    #[arg(long)]
    source: u8,
}

/// How it stands.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct State {
    /// Connections that are open.
    pub(super) open: u64,
    /// Connections that were lost.
    pub(super) lost: u64,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Report {
    /// When devices that had lost their connection were back, in milliseconds since the mark.
    pub(super) back: Vec<u64>,
    /// Failures to connect and losses, by their text.
    pub(super) failures: BTreeMap<String, u64>,
}

struct Fleet {
    args: DevicesArgs,
    open: AtomicU64,
    lost: AtomicU64,
    mark: Mutex<Instant>,
    back: Mutex<Vec<Instant>>,
    failures: Mutex<BTreeMap<String, u64>>,
}

/// Plays them.
pub(super) async fn run(args: DevicesArgs) -> Result<()> {
    let fleet = Arc::new(Fleet {
        args,
        open: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        mark: Mutex::new(Instant::now()),
        back: Mutex::default(),
        failures: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for n in 0..fleet.args.devices {
        let due = began + Duration::from_secs_f64(n as f64 / fleet.args.connect_rate);
        let fleet = Arc::clone(&fleet);
        tasks.spawn(async move {
            sleep_until(due).await;
            fleet.play(n).await;
        });
    }
    spawn_blocking(move || fleet.answer()).await?
}

impl Fleet {
    /// Answers questions until there are no more.
    fn answer(&self) -> Result<()> {
        let mut answers = io::stdout().lock();
        for question in io::stdin().lock().lines() {
            let question = question?;
            if question == "mark" {
                *self.mark.lock().expect("no one panics while marking") = Instant::now();
            }
            let answer = match question.as_str() {
                "report" => serde_json::to_string(&self.report())?,
                _ => serde_json::to_string(&State {
                    open: self.open.load(Ordering::Relaxed),
                    lost: self.lost.load(Ordering::Relaxed),
                })?,
            };
            writeln!(answers, "{answer}")?;
            answers.flush()?;
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let mark = *self.mark.lock().expect("no one panics while marking");
        let since = |at: &Instant| at.saturating_duration_since(mark).as_millis();
        let back = self.back.lock().expect("no one panics while counting");
        let failures = self.failures.lock().expect("no one panics while counting");
        Report {
            back: back
                .iter()
                .map(|at| u64::try_from(since(at)).unwrap_or(u64::MAX))
                .collect(),
            failures: failures.clone(),
        }
    }

    /// A device's life.
    async fn play(&self, n: usize) {
        let mut backoff = Backoff::new();
        let (mut server, mut was_lost) = (self.args.server, false);
        loop {
            match self.connect(n, server).await {
                Ok(client) => {
                    backoff.succeeded();
                    if was_lost {
                        let mut back = self.back.lock().expect("no one panics while counting");
                        back.push(Instant::now());
                    }
                    self.open.fetch_add(1, Ordering::Relaxed);
                    let ended = self.beat(client).await;
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    was_lost = true;
                    self.fail(&ended);
                },
                Err(error) => self.fail(&error),
            }
            sleep(backoff.after_failure()).await;
            if was_lost {
                let other = self.args.others.choose(&mut rand::rng());
                server = other.copied().unwrap_or(self.args.server);
            }
        }
    }

    async fn connect(&self, n: usize, server: SocketAddr) -> Result<Client> {
        let id = format!("{}{n:05}", self.args.prefix);
        let target = Target {
            address: server,
            tls: None,
        };
        // As devices have them: each its own. One address for all would meet the bound for one address.
        let [.., high, low] = u32::try_from(n).unwrap_or_default().to_be_bytes();
        let source = SocketAddr::from((Ipv4Addr::new(127, self.args.source, high, low), 0));
        let keep_alive = Duration::from_secs(self.args.keep_alive);
        let will = LastWill::new(format!("{WILLS}/{id}"), "gone", QoS::AtLeastOnce, false);
        Client::connect_with_will(&target, source, &id, keep_alive, Some(will)).await
    }

    /// Until the connection is lost; why it was.
    async fn beat(&self, mut client: Client) -> anyhow::Error {
        let every = Duration::from_secs(self.args.keep_alive).mul_f64(0.8);
        let mut next = Instant::now() + every.mul_f64(rand::rng().random_range(0.5..1.0));
        loop {
            let done = tokio::select! {
                packet = client.next() => packet.map(drop),
                () = sleep_until(next) => {
                    next += every;
                    client.ping().await
                },
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        let mut failures = self.failures.lock().expect("no one panics while counting");
        let text = error.root_cause().to_string();
        let known = failures.contains_key(&text) || failures.len() < FAILURES_MAX;
        let text = if known { text } else { "other".to_owned() };
        *failures.entry(text).or_default() += 1;
    }
}
