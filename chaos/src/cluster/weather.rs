//! Bad weather on the wires between nodes: packets that are lost, late, out of order or sent twice, and thin wires.
//!
//! Kernels without `netem` are common in virtual machines, so packets go through a queue of the packet filter
//! (NFQUEUE) to a thread in the node's namespace, which drops them or lets them go on when their time has come. What is
//! sent twice is copied by the filter itself (TEE).

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::ErrorKind,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nfq::{Message, Queue, Verdict};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The queue's number, in a namespace of its own.
pub(super) const QUEUE: u16 = 7;
/// Packets that may wait in the kernel and here; more are lost, as in a router.
const WAITING_MAX: usize = 8192;
/// How finely time is kept.
const GRAIN: Duration = Duration::from_millis(1);
/// What a thin wire buffers before it loses packets.
const BUFFERED_MAX: Duration = Duration::from_secs(1);

/// What happens to packets that leave a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Weather {
    /// Part that is lost.
    pub(super) lost: f64,
    /// Part that is sent twice.
    pub(super) twice: f64,
    /// How late every packet is.
    pub(super) late: Duration,
    /// How much later at most, drawn for each: this also changes their order.
    pub(super) jitter: Duration,
    /// Bytes in a second, if the wire is thin.
    pub(super) rate: Option<u32>,
}

impl Weather {
    /// Up to 5 % lost and up to 100 ms late, by a number that was drawn.
    pub(super) fn mild(draw: usize) -> Self {
        Self {
            lost: part(1 + draw % 5),
            twice: 0.01,
            late: millis(20 + draw / 5 % 5 * 15),
            jitter: millis(20),
            rate: None,
        }
    }

    /// Worse, in one of three ways.
    pub(super) fn bad(draw: usize) -> Self {
        let more = draw / 3;
        let (lost, late, jitter, rate) = match draw % 3 {
            0 => (6 + more % 25, 50, 20, None),
            1 => (5, 150 + more % 8 * 50, 200, None),
            _ => (1, 50, 20, Some(125_000)),
        };
        Self {
            lost: part(lost),
            twice: 0.05,
            late: millis(late),
            jitter: millis(jitter),
            rate,
        }
    }
}

fn part(percent: usize) -> f64 {
    f64::from(u8::try_from(percent).unwrap_or(u8::MAX)) / 100.0
}

fn millis(ms: usize) -> Duration {
    Duration::from_millis(ms as u64)
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            lost,
            twice,
            late,
            jitter,
            rate,
        } = self;
        write!(
            f,
            "{:.0} % lost, {:.0} % twice, {late:?} late, up to {jitter:?} more",
            lost * 100.0,
            twice * 100.0
        )?;
        rate.map_or(Ok(()), |rate| write!(f, ", {rate} bytes/s"))
    }
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    pub(super) passed: u64,
    pub(super) lost: u64,
}

/// The thread that holds the packets of one node; ends when told, or when dropped.
pub(super) struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Passed>>>,
}

impl Relay {
    /// Starts, and waits until it listens.
    pub(super) fn start(namespace: &str, weather: Weather, seed: u64) -> Result<Self> {
        let file = File::open(format!("/var/run/netns/{namespace}")).context("namespace")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (listens, listening) = mpsc::channel();
        let thread = thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut queue = Queue::open()?;
            queue.bind(QUEUE)?;
            queue.set_queue_max_len(QUEUE, u32::try_from(WAITING_MAX)?)?;
            queue.set_nonblocking(true);
            if listens.send(()).is_err() {
                bail!("nobody waits for the packet queue any more");
            }
            Wire::new(queue, weather, seed).work(&stopped)
        });
        let this = Self {
            stop,
            thread: Some(thread),
        };
        if listening.recv().is_err() {
            this.end()?;
            bail!("the packet queue did not open");
        }
        Ok(this)
    }

    /// Lets go of what is held, and says what became of all packets.
    pub(super) fn end(mut self) -> Result<Passed> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("ended already")?;
        thread
            .join()
            .map_err(|_panic| anyhow!("the relay of packets panicked"))?
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Held {
    due: Instant,
    message: Message,
}

/// A wire out of a node.
struct Wire {
    queue: Queue,
    weather: Weather,
    rng: StdRng,
    held: VecDeque<Held>,
    /// When a thin wire has sent all that waits for it.
    free: Instant,
    counts: Passed,
}

impl Wire {
    fn new(queue: Queue, weather: Weather, seed: u64) -> Self {
        Self {
            queue,
            weather,
            rng: StdRng::seed_from_u64(seed),
            held: VecDeque::new(),
            free: Instant::now(),
            counts: Passed::default(),
        }
    }

    fn work(mut self, stop: &AtomicBool) -> Result<Passed> {
        while !stop.load(Ordering::Relaxed) {
            self.take()?;
            self.release(Instant::now())?;
            thread::park_timeout(GRAIN);
        }
        while let Some(held) = self.held.pop_front() {
            self.judge(held.message, Verdict::Accept)?;
        }
        Ok(self.counts)
    }

    /// Everything that waits in the kernel.
    fn take(&mut self) -> Result<()> {
        loop {
            let message = match self.queue.recv() {
                Ok(message) => message,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            match self.due(now, message.get_payload().len()) {
                Some(due) => {
                    let at = self.held.partition_point(|held| held.due <= due);
                    self.held.insert(at, Held { due, message });
                },
                None => self.judge(message, Verdict::Drop)?,
            }
        }
    }

    /// When a packet goes on; never, if it is lost.
    fn due(&mut self, now: Instant, length: usize) -> Option<Instant> {
        if self.rng.random_bool(self.weather.lost) || self.held.len() >= WAITING_MAX {
            return None;
        }
        let mut sent = now;
        if let Some(rate) = self.weather.rate {
            let begins = self.free.max(now);
            if begins.duration_since(now) > BUFFERED_MAX {
                return None;
            }
            let length = u32::try_from(length).ok()?;
            self.free = begins + Duration::from_secs(1) * length / rate;
            sent = self.free;
        }
        let more = self.rng.random_range(Duration::ZERO..=self.weather.jitter);
        Some(sent + self.weather.late + more)
    }

    fn release(&mut self, now: Instant) -> Result<()> {
        while self.held.front().is_some_and(|held| held.due <= now) {
            if let Some(held) = self.held.pop_front() {
                self.judge(held.message, Verdict::Accept)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self, mut message: Message, verdict: Verdict) -> Result<()> {
        match verdict {
            Verdict::Drop => self.counts.lost += 1,
            _ => self.counts.passed += 1,
        }
        message.set_verdict(verdict);
        self.queue.verdict(message)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mild_is_never_worse_than_five_in_a_hundred_and_a_tenth_of_a_second() {
        for draw in 0..1000 {
            let mild = Weather::mild(draw);
            assert!(mild.lost <= 0.05, "{mild}");
            assert!(
                mild.late + mild.jitter <= Duration::from_millis(100),
                "{mild}"
            );
            let bad = Weather::bad(draw);
            assert!(bad.lost <= 0.3, "{bad}");
            assert!(bad.late <= Duration::from_millis(500), "{bad}");
        }
    }
}
