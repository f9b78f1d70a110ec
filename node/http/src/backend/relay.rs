//! The events of all nodes as one feed of this node.
//!
//! Events happen where a device's owner is. While somebody listens here, the feeds of the other nodes are read as well, and
//! every event gets a number of *this* node in the order in which it arrived: `Last-Event-ID` goes on where it was on the
//! same node. On another node numbers mean something else; a reader that goes there is told that it may have missed
//! something. So is one that comes back after nobody had listened for a while, and everybody when a node's events were
//! lost on the way.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};
use umbel_core::time::Timestamp;

use crate::{
    model::{Change, Event},
    port::{EventStream, Feed},
};

/// Events that are kept for readers that come back.
const KEPT: usize = 4096;
/// How long the feeds of the others are read after the last reader left: it may come back.
const LINGER: Duration = Duration::from_mins(1);

/// An event on its way between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    at_ms: u64,
    client: String,
    /// JSON: what changed is told apart by its content.
    change: String,
}

impl From<&Event> for Carried {
    fn from(event: &Event) -> Self {
        Self {
            at_ms: event.at.0.millis(),
            client: event.client.clone(),
            change: serde_json::to_string(&event.change).unwrap_or_default(),
        }
    }
}

impl Carried {
    /// The event, unless it is of a kind that only a newer release knows.
    pub fn event(self, sequence: u64) -> Option<Event> {
        let change: Change = serde_json::from_str(&self.change).ok()?;
        Some(Event {
            sequence,
            at: Timestamp::from_millis(self.at_ms).into(),
            client: self.client,
            change,
        })
    }
}

/// What has a number.
enum Entry {
    Event(Box<Event>),
    /// Something was lost here.
    Gap,
}

struct Ring {
    entries: VecDeque<Entry>,
    next: u64,
    readers: usize,
    pump: Option<JoinHandle<()>>,
}

impl Ring {
    fn first(&self) -> u64 {
        self.next - self.entries.len() as u64
    }

    fn push(&mut self, entry: Entry) -> u64 {
        if self.entries.len() >= KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.next += 1;
        self.next
    }

    /// What happens from here on was not seen: older numbers lead nowhere.
    fn forget(&mut self) {
        self.entries.clear();
        self.next += 1;
    }
}

/// The feed.
pub(super) struct Relay {
    ring: Mutex<Ring>,
    latest: watch::Sender<u64>,
}

impl Relay {
    /// Numbers begin at the wall clock, so that they rise over restarts.
    pub(super) fn new(now: Timestamp) -> Arc<Self> {
        let next = now.millis().saturating_mul(1000);
        Arc::new(Self {
            ring: Mutex::new(Ring {
                entries: VecDeque::new(),
                next,
                readers: 0,
                pump: None,
            }),
            latest: watch::Sender::new(next),
        })
    }

    /// Reads after a number, or from now on. `sources` are read while there are readers.
    pub(super) fn events(
        self: &Arc<Self>,
        after: Option<u64>,
        sources: impl FnOnce() -> Vec<EventStream>,
    ) -> EventStream {
        let mut ring = self.ring.lock();
        ring.readers += 1;
        if ring.pump.as_ref().is_none_or(JoinHandle::is_finished) {
            ring.forget();
            let (relay, sources) = (Arc::downgrade(self), sources());
            ring.pump = Some(tokio::spawn(pump(relay, sources)));
        }
        let position = after.map_or(ring.next, |seen| seen.saturating_add(1));
        drop(ring);
        let reader = Reader {
            latest: self.latest.subscribe(),
            relay: Arc::clone(self),
            position,
        };
        Box::pin(stream::unfold(reader, async |mut reader| {
            reader.next().await.map(|feed| (feed, reader))
        }))
    }

    fn tell(&self, feed: Feed) {
        let mut ring = self.ring.lock();
        let next = match feed {
            Feed::Event(mut event) => {
                event.sequence = ring.next;
                ring.push(Entry::Event(Box::new(event)))
            },
            Feed::Lagged { .. } => ring.push(Entry::Gap),
        };
        drop(ring);
        self.latest.send_replace(next);
    }

    /// Whether nobody listens.
    fn is_idle(&self) -> bool {
        self.ring.lock().readers == 0
    }
}

async fn pump(relay: Weak<Relay>, sources: Vec<EventStream>) {
    let mut all = stream::select_all(sources);
    let mut idle_since: Option<Instant> = None;
    loop {
        let next = tokio::select! {
            next = all.next() => Some(next),
            () = sleep(LINGER / 4) => None,
        };
        let Some(relay) = relay.upgrade() else { return };
        match next {
            Some(Some(feed)) => relay.tell(feed),
            Some(None) => return,
            None => {},
        }
        if !relay.is_idle() {
            idle_since = None;
        } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= LINGER {
            return;
        }
    }
}

struct Reader {
    relay: Arc<Relay>,
    latest: watch::Receiver<u64>,
    position: u64,
}

impl Reader {
    async fn next(&mut self) -> Option<Feed> {
        loop {
            self.latest.borrow_and_update();
            if let Some(feed) = self.ready() {
                return Some(feed);
            }
            self.latest.changed().await.ok()?;
        }
    }

    fn ready(&mut self) -> Option<Feed> {
        let ring = self.relay.ring.lock();
        let first = ring.first();
        if self.position < first || self.position > ring.next {
            // Too old, or of another node whose clock is ahead.
            let next = if self.position < first {
                first
            } else {
                ring.next
            };
            self.position = next;
            return Some(Feed::Lagged { next });
        }
        let index = usize::try_from(self.position - first).unwrap_or(usize::MAX);
        let entry = ring.entries.get(index)?;
        self.position += 1;
        Some(match entry {
            Entry::Event(event) => Feed::Event(event.as_ref().clone()),
            Entry::Gap => Feed::Lagged {
                next: self.position,
            },
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.relay.ring.lock().readers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::time::Moment;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    fn event(client: &str) -> Event {
        Event {
            sequence: 7,
            at: Moment(NOW),
            client: client.to_owned(),
            change: Change::Attributes { revision: 3 },
        }
    }

    fn source() -> (mpsc::Sender<Feed>, EventStream) {
        let (sender, receiver) = mpsc::channel(8);
        let stream = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
            receiver.recv().await.map(|feed| (feed, receiver))
        });
        (sender, Box::pin(stream))
    }

    fn told(feed: Option<Feed>) -> (u64, String) {
        match feed.expect("a stream without end") {
            Feed::Event(event) => (event.sequence, event.client),
            Feed::Lagged { next } => (next, "lagged".to_owned()),
        }
    }

    #[tokio::test]
    async fn events_of_all_nodes_get_numbers_of_this_one() {
        let relay = Relay::new(NOW);
        let ((here, one), (there, other)) = (source(), source());
        let mut events = relay.events(None, || vec![one, other]);
        here.try_send(Feed::Event(event("a"))).expect("heard");
        let (first, client) = told(events.next().await);
        assert_eq!(client, "a");
        there.try_send(Feed::Event(event("b"))).expect("heard");
        assert_eq!(told(events.next().await), (first + 1, "b".to_owned()));
        there.try_send(Feed::Lagged { next: 0 }).expect("heard");
        assert_eq!(told(events.next().await).1, "lagged");
        // A reader that comes back goes on where it was.
        let mut again = relay.events(Some(first), Vec::new);
        assert_eq!(told(again.next().await), (first + 1, "b".to_owned()));
        // One that comes from elsewhere is told that it may have missed something.
        let mut foreign = relay.events(Some(5), Vec::new);
        assert_eq!(told(foreign.next().await).1, "lagged");
        let mut ahead = relay.events(Some(u64::MAX - 1), Vec::new);
        assert_eq!(told(ahead.next().await).1, "lagged");
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_read_when_nobody_listens() {
        let relay = Relay::new(NOW);
        let (here, one) = source();
        let events = relay.events(None, || vec![one]);
        drop(events);
        sleep(LINGER / 2).await;
        assert!(here.try_send(Feed::Event(event("a"))).is_ok(), "still read");
        sleep(LINGER * 2).await;
        assert!(here.is_closed());
        let (there, other) = source();
        let mut back = relay.events(Some(NOW.millis() * 1000), || vec![other]);
        assert_eq!(told(back.next().await).1, "lagged");
        there.try_send(Feed::Event(event("b"))).expect("heard");
        assert_eq!(told(back.next().await).1, "b");
    }

    #[test]
    fn an_event_survives_the_way_between_nodes() {
        let before = event("a");
        let carried = Carried::from(&before);
        assert_eq!(carried.event(7), Some(before));
        let newer = Carried {
            at_ms: 1,
            client: "a".to_owned(),
            change: r#"{"kind":"unheard"}"#.to_owned(),
        };
        assert_eq!(newer.event(1), None);
    }
}
