//! Proposals per second through 64 shards over the real stores, sync on: 1, 64 and 1024 proposers, each waiting for
//! its receipt before the next; and what 64 idle groups cost.
//!
//! `cargo bench -p umbel-cluster --bench propose [-- --seconds 5 --dir PATH]`. The directory decides which disk is
//! measured; by default it is below the target directory, because `/tmp` may be in memory.

use std::{
    path::{Path, PathBuf},
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use umbel_cluster::{Config, Shards};
use umbel_core::ids::{NodeId, ShardId};
use umbel_storage::{
    Ledger, Table, Write,
    log::{Log, LogOptions},
    store::{StateOptions, StateStore},
};

const SHARDS: u16 = 64;
const VALUE_BYTES: usize = 500;
const PROPOSERS: [usize; 3] = [1, 64, 1024];
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let counters = Arc::new(Counters::default());
    metrics::set_global_recorder(Handle(Arc::clone(&counters)))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&options, &counters))
}

struct Options {
    seconds: u64,
    dir: PathBuf,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            seconds: 5,
            dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("propose"),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seconds" => {
                    let seconds = arguments.next().and_then(|text| text.parse().ok());
                    options.seconds = seconds.unwrap_or(options.seconds);
                },
                "--dir" => options.dir = arguments.next().unwrap_or_default().into(),
                // What cargo itself passes.
                _ => {},
            }
        }
        options
    }
}

async fn run(options: &Options, counters: &Counters) -> Result<(), Box<dyn std::error::Error>> {
    if options.dir.exists() {
        std::fs::remove_dir_all(&options.dir)?;
    }
    let begun = Instant::now();
    let shards = start(&options.dir).await?;
    print(&format!(
        "{SHARDS} new shards owned after {:.0?}",
        begun.elapsed()
    ));

    let cpu = cpu_time();
    tokio::time::sleep(IDLE).await;
    let idle = cpu_time().saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    print(&format!("{SHARDS} idle groups: {idle:.2} % of a core\n"));

    print("proposers  proposals/s  p50 ms  p99 ms  max ms  entries/s  per entry  syncs/s  cpu µs");
    for proposers in PROPOSERS {
        print(&measure(&shards, proposers, options.seconds, counters).await);
    }
    shards.shutdown().await;
    drop(shards);

    let begun = Instant::now();
    let shards = start(&options.dir).await?;
    print(&format!(
        "\n{SHARDS} old shards owned after {:.0?}",
        begun.elapsed()
    ));
    shards.shutdown().await;
    Ok(())
}

async fn start(dir: &Path) -> Result<Arc<Shards>, Box<dyn std::error::Error>> {
    let log = Log::open(&LogOptions::new(dir.join("log"), Arc::new(|_| exit(1))))?;
    let state = StateStore::open(&StateOptions::new(dir.join("state"), SHARDS))?;
    let shards = Shards::start(
        Config::new(NodeId(1), SHARDS),
        Arc::new(log),
        Arc::new(state),
        None,
        Arc::new(|_| exit(1)),
    )
    .await?;
    shards.settled().await;
    Ok(shards)
}

async fn measure(
    shards: &Arc<Shards>,
    proposers: usize,
    seconds: u64,
    counters: &Counters,
) -> String {
    let before = counters.read();
    let cpu = cpu_time();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for proposer in 0..proposers {
        tasks.spawn(propose(Arc::clone(shards), proposer, until));
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = cpu_time().saturating_sub(cpu).as_secs_f64();
    let after = counters.read();
    took.sort_unstable();
    let rate = |count: u64| float(count) / elapsed;
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = (part * (float(took.len() as u64) - 1.0)) as usize;
        took.get(index)
            .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    let (proposals, entries) = (took.len() as u64, after.entries - before.entries);
    format!(
        "{proposers:>9}  {:>11.0}  {:>6.2}  {:>6.2}  {:>6.1}  {:>9.0}  {:>9.1}  {:>7.0}  {:>6.1}",
        rate(proposals),
        at(0.5),
        at(0.99),
        at(1.0),
        rate(entries),
        float(proposals) / float(entries),
        rate(after.flushes - before.flushes),
        cpu / float(proposals) * 1e6,
    )
}

/// Writes keys of its own, spread over all shards, until the time is over.
async fn propose(shards: Arc<Shards>, proposer: usize, until: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let key = format!("device-{proposer}-{}", took.len() % 1000);
        let shard = ShardId::of(&key, SHARDS);
        let Some(term) = shards.term(shard) else {
            exit(2)
        };
        let write = Write::put(Table::Device, key, vec![b'v'; VALUE_BYTES]);
        let begun = Instant::now();
        if shards.propose(shard, term, vec![write]).await.is_err() {
            exit(2);
        }
        took.push(begun.elapsed());
    }
    took
}

/// What the log counts.
#[derive(Default)]
struct Counters {
    flushes: Arc<Count>,
    entries: Arc<Count>,
}

#[derive(Default)]
struct Count(AtomicU64);

#[derive(Clone, Copy)]
struct Reading {
    flushes: u64,
    entries: u64,
}

impl Counters {
    fn read(&self) -> Reading {
        Reading {
            flushes: self.flushes.0.load(Ordering::Relaxed),
            entries: self.entries.0.load(Ordering::Relaxed),
        }
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Records two counters and drops everything else.
struct Handle(Arc<Counters>);

impl Recorder for Handle {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            umbel_storage::metrics::log::FLUSHES => Counter::from_arc(Arc::clone(&self.0.flushes)),
            umbel_storage::metrics::log::ENTRIES => Counter::from_arc(Arc::clone(&self.0.entries)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// User and system time of this process, from the scheduler's clock ticks (100 per second on Linux).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its table")]
fn print(line: &str) {
    println!("{line}");
}
