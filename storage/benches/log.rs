//! How many appends one log takes: 64 groups, each with one entry under way, as the cluster uses it.
//!
//! `cargo bench -p umbel-storage --bench log [-- groups entry_bytes seconds dir]`

#![expect(clippy::print_stdout, reason = "a benchmark talks to a person")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark may fail loudly"
)]
#![expect(clippy::indexing_slicing, reason = "a benchmark may fail loudly")]
#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use umbel_storage::log::{Fatal, GroupId, GroupLog, Log, LogOptions};

fn main() {
    let numbers: Vec<u64> = env::args().filter_map(|word| word.parse().ok()).collect();
    let number = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    let dir = env::args()
        .skip_while(|word| word != "--dir")
        .nth(1)
        .unwrap_or_else(|| ".".into());
    let (bytes, seconds) = (number(1, 500), number(2, 5));
    let groups: Vec<u64> = numbers
        .first()
        .map_or_else(|| vec![1, 8, 64, 256], |n| vec![*n]);
    println!("entry of {bytes} bytes, {seconds} s each, in {dir}");
    for groups in groups {
        measure(
            &dir,
            groups,
            usize::try_from(bytes).unwrap(),
            Duration::from_secs(seconds),
        );
    }
}

fn measure(dir: &str, groups: u64, bytes: usize, time: Duration) {
    let home = tempfile::tempdir_in(dir).unwrap();
    let fatal: Fatal = Arc::new(|reason| panic!("{reason}"));
    let log = Arc::new(Log::open(&LogOptions::new(home.path(), fatal)).unwrap());
    let (stop, appended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let data = Bytes::from(vec![0x5a; bytes]);
    let (sender, receiver) = mpsc::sync_channel::<(u64, u64, Instant)>(4096);
    for group in 0..groups {
        sender.send((group, 1, Instant::now())).unwrap();
    }
    let started = (Instant::now(), cpu());
    let mut latencies = Vec::new();
    let driver = {
        let (log, stop, appended) = (Arc::clone(&log), Arc::clone(&stop), Arc::clone(&appended));
        thread::spawn(move || {
            let mut under_way = groups;
            while let Ok((group, index, since)) = receiver.recv() {
                if index > 1 {
                    latencies.push(since.elapsed());
                    appended.fetch_add(1, Ordering::Relaxed);
                }
                if stop.load(Ordering::Relaxed) {
                    under_way -= 1;
                    if under_way == 0 {
                        return latencies;
                    }
                    continue;
                }
                let (sender, at) = (sender.clone(), Instant::now());
                let done = Box::new(move |outcome: Result<(), _>| {
                    outcome.unwrap();
                    sender.send((group, index + 1, at)).unwrap();
                });
                log.append(GroupId(group), vec![(index, data.clone())], done);
            }
            latencies
        })
    };
    thread::park_timeout(time);
    stop.store(true, Ordering::Relaxed);
    let mut latencies = driver.join().unwrap();
    let (wall, cpu) = (started.0.elapsed().as_secs_f64(), cpu() - started.1);
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100].as_secs_f64() * 1e3;
    let count = appended.load(Ordering::Relaxed) as f64;
    println!(
        "{groups:>4} groups: {:>8.0} appends/s, p50 {:.2} ms, p99 {:.2} ms, {:.1} us CPU each, {} KiB of log",
        count / wall,
        at(50),
        at(99),
        cpu * 1e6 / count,
        log.size_bytes() >> 10,
    );
    drop(log);
    let fatal: Fatal = Arc::new(|reason| panic!("{reason}"));
    let at = Instant::now();
    drop(Log::open(&LogOptions::new(home.path(), fatal)).unwrap());
    println!(
        "             opened again in {:.3} s",
        at.elapsed().as_secs_f64()
    );
}

/// Seconds of CPU this process used.
fn cpu() -> f64 {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = usage.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
