//! Who is connected: enough to count them, and to wake them when the node stops.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;

/// How often a drain sends the next few away.
const STEP: Duration = Duration::from_millis(50);

/// A place for each open connection: 16 bytes a connection. A connection looks at one number in each turn and needs
/// no channel of its own to be told to go.
#[derive(Debug)]
pub(crate) struct Registry {
    places: Mutex<Places>,
    /// Connections with a place below this one have to go.
    drained: AtomicU32,
}

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// The number of a connection's place.
pub(crate) type Place = u32;

impl Registry {
    pub(crate) const fn new() -> Self {
        let places = Places {
            wakers: Vec::new(),
            free: Vec::new(),
        };
        Self {
            places: Mutex::new(places),
            drained: AtomicU32::new(0),
        }
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        let places = self.places.lock();
        places.wakers.len() - places.free.len()
    }

    /// Takes a place. `waker` is that of the connection's task, which never changes.
    pub(crate) fn enter(&self, waker: Waker) -> Place {
        let mut places = self.places.lock();
        if let Some(place) = places.free.pop() {
            if let Some(slot) = places.wakers.get_mut(place as usize) {
                *slot = Some(waker);
            }
            return place;
        }
        places.wakers.push(Some(waker));
        u32::try_from(places.wakers.len() - 1).unwrap_or(u32::MAX)
    }

    pub(crate) fn leave(&self, place: Place) {
        let mut places = self.places.lock();
        if let Some(slot) = places.wakers.get_mut(place as usize) {
            *slot = None;
            places.free.push(place);
        }
    }

    /// Whether the connection at this place has to go.
    pub(crate) fn is_drained(&self, place: Place) -> bool {
        place < self.drained.load(Ordering::Relaxed)
    }

    /// Tells every connection to go, spread evenly over `window`: a fleet that comes back at once is a storm.
    pub(crate) async fn drain(&self, window: Duration) {
        let total = self.places.lock().wakers.len();
        let steps = usize::try_from(window.as_millis() / STEP.as_millis())
            .unwrap_or(1)
            .max(1);
        let stride = total.div_ceil(steps).max(1);
        let mut from = 0;
        // Places are as many as there ever were connections at once; where nobody is left, nobody is waited for.
        while from < total && self.len() > 0 {
            let to = (from + stride).min(total);
            self.drained
                .store(u32::try_from(to).unwrap_or(u32::MAX), Ordering::Relaxed);
            self.wake(from, to);
            from = to;
            if from < total {
                tokio::time::sleep(STEP).await;
            }
        }
        // Whoever opens from now on goes at once.
        self.drained.store(u32::MAX, Ordering::Relaxed);
        self.wake(0, usize::MAX);
    }

    fn wake(&self, from: usize, to: usize) {
        let wakers: Vec<Waker> = {
            let places = self.places.lock();
            let to = to.min(places.wakers.len());
            let range = places.wakers.get(from.min(to)..to).unwrap_or_default();
            range.iter().flatten().cloned().collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_reaches_every_place_within_its_window() {
        let registry = Registry::new();
        for place in 0..100 {
            assert_eq!(registry.enter(Waker::noop().clone()), place);
        }
        registry.leave(7);
        assert_eq!(registry.enter(Waker::noop().clone()), 7);
        assert_eq!(registry.len(), 100);
        let start = tokio::time::Instant::now();
        registry.drain(Duration::from_secs(2)).await;
        assert!(start.elapsed() <= Duration::from_secs(2));
        assert!((0..101).all(|place| registry.is_drained(place)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_does_not_wait_for_those_who_left_before() {
        let registry = Registry::new();
        for _ in 0..100 {
            registry.enter(Waker::noop().clone());
        }
        for place in 0..100 {
            registry.leave(place);
        }
        let start = tokio::time::Instant::now();
        registry.drain(Duration::from_secs(15)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(registry.is_drained(u32::MAX - 1));
    }
}
