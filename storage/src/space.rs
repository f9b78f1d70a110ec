//! Free disk space, looked at before it is needed.
//!
//! An engine that meets a full disk in the middle of a write is hard to reason about. So proposals are refused while
//! free space is below a reserve, and what is under way (votes, purges, the last entries) has the reserve to itself.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Answers how many bytes are free. Tests bring their own.
pub type Probe = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Unless said otherwise, free space is asked for at most this often.
pub const PROBE_EVERY: Duration = Duration::from_millis(200);

/// Watches the free space of a file system.
pub struct Space {
    probe: Probe,
    reserve_bytes: u64,
    low: AtomicBool,
    looked_at: Mutex<Option<Instant>>,
    every: Duration,
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("reserve_bytes", &self.reserve_bytes)
            .field("low", &self.low)
            .finish_non_exhaustive()
    }
}

/// A probe of the file system that holds `path`: what a process without privileges may still write.
pub fn probe_of(path: &Path) -> Probe {
    let path = path.to_owned();
    Arc::new(move || {
        let status = rustix::fs::statvfs(&path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    })
}

impl Space {
    /// Watches through a probe, which is asked at most once in `every`.
    pub fn new(probe: Probe, reserve_bytes: u64, every: Duration) -> Self {
        Self {
            probe,
            reserve_bytes,
            low: AtomicBool::new(false),
            looked_at: Mutex::new(None),
            every,
        }
    }

    /// Whether free space is below the reserve. Looks again when the last look is old; an unanswered look counts as
    /// no news.
    pub fn is_low(&self) -> bool {
        let Some(mut looked_at) = self.looked_at.try_lock() else {
            return self.low.load(Ordering::Relaxed);
        };
        if looked_at.is_some_and(|at| at.elapsed() < self.every) {
            return self.low.load(Ordering::Relaxed);
        }
        *looked_at = Some(Instant::now());
        match (self.probe)() {
            Ok(free_bytes) => self.note(free_bytes),
            Err(error) => {
                tracing::warn!(%error, "free disk space is unknown");
                self.low.load(Ordering::Relaxed)
            },
        }
    }

    /// Notes that a write met a full disk, whatever the probe says.
    pub fn note_full(&self) {
        self.low.store(true, Ordering::Relaxed);
        *self.looked_at.lock() = Some(Instant::now());
    }

    fn note(&self, free_bytes: u64) -> bool {
        let low = free_bytes < self.reserve_bytes;
        let was_low = self.low.swap(low, Ordering::Relaxed);
        let reserve_bytes = self.reserve_bytes;
        if low && !was_low {
            tracing::error!(
                free_bytes,
                reserve_bytes,
                "disk is full: writes are refused"
            );
        } else if was_low && !low {
            tracing::info!(free_bytes, "disk has room again: writes are accepted");
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn low_below_the_reserve_and_well_again_above_it() {
        let free = Arc::new(AtomicU64::new(100));
        let probed = Arc::clone(&free);
        let probe: Probe = Arc::new(move || Ok(probed.load(Ordering::Relaxed)));
        let space = Space::new(probe, 50, Duration::ZERO);
        assert!(!space.is_low());
        free.store(49, Ordering::Relaxed);
        assert!(space.is_low());
        free.store(50, Ordering::Relaxed);
        assert!(!space.is_low());
    }

    #[test]
    fn the_real_probe_answers() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(probe_of(dir.path())().expect("a file system") > 0);
    }
}
