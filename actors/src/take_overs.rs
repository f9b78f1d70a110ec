//! How often a client may be taken over (F24).
//!
//! Two programs with one client id throw each other out, and each comes back at once: without a bound they go on as fast
//! as the log takes their epochs. The broker bounds take-overs within its node, the owner of a record those between
//! nodes.

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

/// Counts the take-overs of each client: a few in a row are let in, then one a second.
#[derive(Debug, Default)]
pub struct TakeOvers(Mutex<BTreeMap<ClientId, Bucket>>);

impl TakeOvers {
    /// Counts a take-over; false if it is one too many.
    pub fn admit(&self, client: &ClientId, now: Tick) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_over_again_and_again_is_left_alone_for_a_while_and_others_are_not_concerned() {
        let (noisy, calm) = (ClientId::parse("noisy"), ClientId::parse("calm"));
        let (noisy, calm) = (noisy.expect("an id"), calm.expect("an id"));
        let limit = TakeOvers::default();
        let at = Tick::from_millis;
        assert!((0..u64::from(BURST)).all(|n| limit.admit(&noisy, at(n))));
        assert!(!limit.admit(&noisy, at(900)));
        assert!(limit.admit(&calm, at(900)));
        assert!(limit.admit(&noisy, at(1_000)), "one a second");
        assert!(!limit.admit(&noisy, at(1_999)));
        assert!((0..u64::from(BURST)).all(|n| limit.admit(&noisy, at(60_000 + n))));
    }

    #[test]
    fn only_so_many_clients_are_remembered() {
        let limit = TakeOvers::default();
        for number in 0..CLIENTS_MAX * 2 {
            let client = ClientId::parse(&format!("c{number}")).expect("an id");
            assert!(limit.admit(&client, Tick::from_millis(number as u64)));
        }
        assert!(limit.0.lock().len() <= CLIENTS_MAX);
    }
}
