//! How often a client may be taken over from one node to another (F24).
//!
//! Two programs with one client id on two nodes throw each other out, and each comes back at once: without a bound they
//! go on as fast as the log takes their epochs. Take-overs within one node are bounded by its broker.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use umbel_core::{ids::ClientId, time::Tick};

/// Take-overs in a row; one more is allowed each second. A few in a row is what a client on a bad network does.
const BURST: u8 = 20;
/// Clients that are remembered. Beyond, those that were calm for a while are forgotten, and if there are none, nobody
/// is refused: a bound on memory and not on strangers.
const CLIENTS_MAX: usize = 4_096;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    used: u8,
    at: Tick,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TakeOvers(Mutex<BTreeMap<ClientId, Bucket>>);

impl TakeOvers {
    /// Counts a take-over; false if it is one too many.
    pub(crate) fn admit(&self, client: &ClientId, now: Tick) -> bool {
        let mut buckets = self.0.lock();
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(client) {
            buckets.retain(|_, bucket| bucket.leak(now) > 0);
            if buckets.len() >= CLIENTS_MAX {
                return true;
            }
        }
        let bucket = buckets
            .entry(client.clone())
            .or_insert(Bucket { used: 0, at: now });
        if bucket.leak(now) >= BURST {
            return false;
        }
        bucket.used += 1;
        true
    }
}

impl Bucket {
    /// What is left of the take-overs after the time that went by.
    fn leak(&mut self, now: Tick) -> u8 {
        let seconds = (now - self.at).as_secs();
        if seconds > 0 {
            self.used = self
                .used
                .saturating_sub(u8::try_from(seconds).unwrap_or(u8::MAX));
            self.at = now;
        }
        self.used
    }
}
