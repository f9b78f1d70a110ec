//! What happens in the fleet, as a bounded feed that can be read again from a sequence number.
//!
//! One ring holds the latest events for every reader; a reader is a number. So a thousand slow readers cost no
//! more memory than one, nobody holds the fleet up, and a reader that is overtaken is told how much it missed.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use umbel_core::{ids::ClientId, time::Timestamp};

/// Something that happened to a device or client, after it was made durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetEvent {
    /// Rises by one per event; larger after a restart than before it.
    pub seq: u64,
    /// When it happened.
    pub at: Timestamp,
    /// To whom.
    pub device: ClientId,
    /// What.
    #[serde(flatten)]
    pub kind: FleetEventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FleetEventKind {
    /// The answer to "is it there?" changed.
    Presence {
        /// The new answer.
        presence: &'static str,
        /// Why.
        reason: &'static str,
        /// The session it belongs to; consumers drop what is older than what they know.
        epoch: u64,
        /// Whether it comes and goes too often.
        flapping: bool,
    },
    /// A shadow was written or deleted.
    Shadow {
        /// Its name; nothing for the classic shadow.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// The version after the write.
        version: u64,
        /// Whether the shadow is gone.
        deleted: bool,
    },
    /// The device's record or attributes were changed by an operator or application.
    Attributes {
        /// The version after the change.
        version: u64,
    },
    /// The device was removed from the fleet.
    Deleted,
    /// The device's actor failed too often.
    Quarantined,
    /// An operator released the device from quarantine.
    Released,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The next event.
    Event(Arc<FleetEvent>),
    /// The reader was overtaken, or asked for events that are no longer kept: it should read the state anew.
    Lagged {
        /// How many events it missed, as far as that is known; at least one.
        missed: u64,
        /// The number of the event that is delivered next, once it happens.
        next: u64,
    },
    /// The fleet stopped; nothing follows.
    Closed,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<FleetEvent>>,
    next: u64,
    is_closed: bool,
}

/// The writing end. Cheap to share.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Mutex<Ring>,
    capacity: usize,
    latest: watch::Sender<u64>,
}

impl Feed {
    /// `first` must be larger than every number given before a restart: the wall clock in milliseconds times
    /// 1,000 is, as long as fewer than a million events happen per second.
    pub(crate) fn new(capacity: usize, started: Timestamp) -> Self {
        let next = started.millis().saturating_mul(1000);
        let ring = Ring {
            events: VecDeque::with_capacity(capacity.min(1024)),
            next,
            is_closed: false,
        };
        Self {
            ring: Mutex::new(ring),
            capacity: capacity.max(1),
            latest: watch::Sender::new(next),
        }
    }

    pub(crate) fn tell(&self, at: Timestamp, device: ClientId, kind: FleetEventKind) {
        let next = {
            let mut ring = self.ring.lock();
            let seq = ring.next;
            ring.next += 1;
            if ring.events.len() >= self.capacity {
                ring.events.pop_front();
            }
            ring.events.push_back(Arc::new(FleetEvent {
                seq,
                at,
                device,
                kind,
            }));
            ring.next
        };
        // Two tellers may arrive here in the other order; a reader looks into the ring anyway.
        self.latest.send_if_modified(|latest| {
            let rose = next > *latest;
            *latest = (*latest).max(next);
            rose
        });
    }

    /// Nothing follows: readers are told once they have read what is there.
    pub(crate) fn close(&self) {
        self.ring.lock().is_closed = true;
        self.latest.send_modify(|_| {});
    }

    fn at(&self, seq: u64) -> Option<Delivery> {
        let ring = self.ring.lock();
        let kept = u64::try_from(ring.events.len()).unwrap_or(u64::MAX);
        let oldest = ring.next.saturating_sub(kept);
        if seq < oldest {
            return Some(Delivery::Lagged {
                missed: oldest - seq,
                next: oldest,
            });
        }
        if seq > ring.next {
            // A number of the future: the reader remembers a clock that was ahead. It knows nothing of us.
            return Some(Delivery::Lagged {
                missed: kept.max(1),
                next: oldest,
            });
        }
        let index = usize::try_from(seq - oldest).unwrap_or(usize::MAX);
        match ring.events.get(index) {
            Some(event) => Some(Delivery::Event(Arc::clone(event))),
            None => ring.is_closed.then_some(Delivery::Closed),
        }
    }
}

/// A reader's place in the feed.
#[derive(Debug)]
pub struct Events {
    feed: Arc<Feed>,
    latest: watch::Receiver<u64>,
    next: u64,
}

impl Events {
    /// Starts after `after` (the last event the reader has seen), or with what happens from now on.
    pub(crate) fn new(feed: &Arc<Feed>, after: Option<u64>) -> Self {
        let latest = feed.latest.subscribe();
        let next = after.map_or_else(|| feed.ring.lock().next, |seen| seen.saturating_add(1));
        Self {
            feed: Arc::clone(feed),
            latest,
            next,
        }
    }

    /// The number of the event that comes next, if none is lost.
    pub fn position(&self) -> u64 {
        self.next
    }

    /// The next event, once there is one. Cancel safe.
    pub async fn next(&mut self) -> Delivery {
        loop {
            self.latest.borrow_and_update();
            match self.feed.at(self.next) {
                Some(Delivery::Event(event)) => {
                    self.next = event.seq + 1;
                    return Delivery::Event(event);
                },
                Some(Delivery::Lagged { missed, next }) => {
                    self.next = next;
                    return Delivery::Lagged { missed, next };
                },
                Some(Delivery::Closed) => return Delivery::Closed,
                None => {},
            }
            if self.latest.changed().await.is_err() {
                return Delivery::Closed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(capacity: usize) -> Arc<Feed> {
        Arc::new(Feed::new(capacity, Timestamp::from_millis(1)))
    }

    fn tell(feed: &Feed, count: usize) {
        for _ in 0..count {
            let device = ClientId::parse("a").expect("id");
            feed.tell(Timestamp::from_millis(1), device, FleetEventKind::Deleted);
        }
    }

    async fn sequence(events: &mut Events, count: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        for _ in 0..count {
            match events.next().await {
                Delivery::Event(event) => seen.push(event.seq),
                other @ (Delivery::Lagged { .. } | Delivery::Closed) => {
                    panic!("expected an event, got {other:?}")
                },
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_continues_after_the_last_event_it_saw() {
        let feed = feed(8);
        tell(&feed, 5);
        let mut events = Events::new(&feed, Some(1001));
        assert_eq!(sequence(&mut events, 3).await, [1002, 1003, 1004]);
        tell(&feed, 1);
        assert_eq!(sequence(&mut events, 1).await, [1005]);
    }

    #[tokio::test]
    async fn a_reader_without_a_past_starts_now() {
        let feed = feed(8);
        tell(&feed, 5);
        let mut events = Events::new(&feed, None);
        tell(&feed, 1);
        assert_eq!(sequence(&mut events, 1).await, [1005]);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_missed_and_goes_on() {
        let feed = feed(4);
        let mut events = Events::new(&feed, None);
        tell(&feed, 10);
        assert_eq!(
            events.next().await,
            Delivery::Lagged {
                missed: 6,
                next: 1006
            }
        );
        assert_eq!(sequence(&mut events, 4).await, [1006, 1007, 1008, 1009]);
    }

    #[tokio::test]
    async fn a_number_of_the_future_is_answered_with_lagged() {
        let feed = feed(4);
        tell(&feed, 2);
        let mut events = Events::new(&feed, Some(9_999_999));
        assert_eq!(
            events.next().await,
            Delivery::Lagged {
                missed: 2,
                next: 1000
            }
        );
        assert_eq!(sequence(&mut events, 2).await, [1000, 1001]);
    }

    #[tokio::test]
    async fn numbers_after_a_restart_are_larger() {
        let before = feed(4);
        tell(&before, 3);
        let after = Arc::new(Feed::new(4, Timestamp::from_millis(2)));
        let mut events = Events::new(&after, Some(1002));
        tell(&after, 1);
        assert!(matches!(events.next().await, Delivery::Lagged { .. }));
        assert_eq!(sequence(&mut events, 1).await, [2000]);
    }
}
