//! What this node holds as a gateway: its connections, those being opened, those given up, and ends that no owner has
//! recorded yet.
//!
//! One entry per client that is connected here. An end replaces the connection's entry, so the table never holds more
//! than the node has had connections at once since their owners were last reachable. Those given up have a bound.

use std::{
    collections::{HashMap, hash_map::Entry as Place},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use umbel_core::{
    device::Disconnect,
    ids::{ClientId, SessionEpoch, ShardId},
    time::Tick,
};

use crate::remote::Hold;

/// Connects of one shard that were given up and are remembered one by one. Beyond, the whole shard is compared instead.
const DOUBTS_MAX: usize = 4_096;

/// The last sign of life of one connection.
#[derive(Debug, Default)]
pub(crate) struct Beat {
    heard: AtomicU64,
    told: AtomicU64,
}

impl Beat {
    pub(crate) fn touch(&self, now: Tick) {
        self.heard.store(now.millis().max(1), Ordering::Relaxed);
    }

    /// The last sign of life, if it was not asked for before.
    fn take(&self) -> Option<Tick> {
        let heard = self.heard.load(Ordering::Relaxed);
        let told = self.told.swap(heard, Ordering::Relaxed);
        (heard > told).then(|| Tick::from_millis(heard))
    }
}

#[derive(Default)]
struct Entry {
    open: Option<(SessionEpoch, Arc<Beat>)>,
    opening: u32,
    /// Up to this one, no connection that is being opened will be held: an owner was told so.
    disclaimed: SessionEpoch,
    /// A connect was given up whose outcome is not known.
    doubt: Option<Doubt>,
    ended: Option<Box<Disconnect>>,
}

/// A connect that may be recorded although nobody holds it.
struct Doubt {
    since: Instant,
    /// An owner has looked.
    is_told: bool,
}

impl Entry {
    const fn is_empty(&self) -> bool {
        self.open.is_none() && self.opening == 0 && self.doubt.is_none() && self.ended.is_none()
    }
}

type Clients = HashMap<ClientId, Entry>;

/// The table, by shard.
pub(super) struct Gateway(Vec<Mutex<Clients>>);

/// What the gateway holds of one shard.
#[derive(Default)]
pub(super) struct Held {
    pub(super) connected: Vec<(ClientId, SessionEpoch)>,
    pub(super) opening: Vec<ClientId>,
    pub(super) ended: Vec<(ClientId, Disconnect)>,
}

/// How much of it there is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Open connections.
    pub(crate) open: usize,
    /// Ends that wait.
    pub(crate) ends: usize,
    /// Connects that were given up and may be recorded.
    pub(crate) doubts: usize,
}

/// A connection is being opened, until this is dropped.
pub(super) struct Opening<'a> {
    clients: &'a Mutex<Clients>,
    client: &'a ClientId,
}

/// An owner was told that the connection is not held: its client has to be told, too.
#[derive(Debug)]
pub(super) struct Disclaimed;

impl Gateway {
    pub(super) fn new(shards: usize) -> Self {
        Self((0..shards.max(1)).map(|_| Mutex::default()).collect())
    }

    fn clients(&self, shard: ShardId) -> &Mutex<Clients> {
        self.0
            .get(usize::from(shard.0))
            .expect("the id is taken modulo the number of shards")
    }

    /// A client is about to be given a session. From now on no owner may call it unknown here.
    pub(super) fn opening<'a>(&'a self, shard: ShardId, client: &'a ClientId) -> Opening<'a> {
        let clients = self.clients(shard);
        clients.lock().entry(client.clone()).or_default().opening += 1;
        Opening { clients, client }
    }

    /// A connection ended. False: a newer one of the client is here, so the end means nothing any more.
    pub(super) fn end(&self, shard: ShardId, client: &ClientId, end: Disconnect) -> bool {
        let mut clients = self.clients(shard).lock();
        let entry = clients.entry(client.clone()).or_default();
        let is_newer = |epoch: SessionEpoch| epoch > end.epoch;
        let is_superseded = entry.open.as_ref().is_some_and(|open| is_newer(open.0))
            || entry
                .ended
                .as_ref()
                .is_some_and(|known| is_newer(known.epoch));
        if is_superseded {
            return false;
        }
        entry.open = None;
        entry.ended = Some(Box::new(end));
        true
    }

    /// The owner has recorded the end of this connection, or knows a newer one.
    pub(super) fn recorded(&self, shard: ShardId, client: &ClientId, epoch: SessionEpoch) {
        let mut clients = self.clients(shard).lock();
        if let Place::Occupied(mut place) = clients.entry(client.clone()) {
            let entry = place.get_mut();
            if entry.ended.as_ref().is_some_and(|end| end.epoch <= epoch) {
                entry.ended = None;
            }
            if entry.is_empty() {
                place.remove();
            }
        }
    }

    /// A connection is given up without an end.
    pub(super) fn forget(&self, shard: ShardId, client: &ClientId, epoch: SessionEpoch) {
        let mut clients = self.clients(shard).lock();
        if let Place::Occupied(mut place) = clients.entry(client.clone()) {
            let entry = place.get_mut();
            if entry.open.as_ref().is_some_and(|open| open.0 <= epoch) {
                entry.open = None;
            }
            if entry.is_empty() {
                place.remove();
            }
        }
    }

    /// Whether this very connection is held.
    pub(super) fn holds(&self, shard: ShardId, client: &ClientId, epoch: SessionEpoch) -> bool {
        let clients = self.clients(shard).lock();
        let open = clients.get(client).and_then(|entry| entry.open.as_ref());
        open.is_some_and(|open| open.0 == epoch)
    }

    /// What is to be said to an owner that asks for this very connection. Whoever is not told that it is held may give
    /// it to somebody else: one that is being opened, and whose epoch is still on its way here, is not opened any more.
    pub(super) fn hold(&self, shard: ShardId, client: &ClientId, epoch: SessionEpoch) -> Hold {
        let mut clients = self.clients(shard).lock();
        let Some(entry) = clients.get_mut(client) else {
            return Hold::Not;
        };
        if entry.open.as_ref().is_some_and(|open| open.0 == epoch) {
            return Hold::Held;
        }
        if let Some(end) = entry.ended.as_ref().filter(|end| end.epoch == epoch) {
            return Hold::Ended(**end);
        }
        if entry.opening > 0 {
            entry.disclaimed = entry.disclaimed.max(epoch);
        }
        Hold::Not
    }

    /// Connects that were given up and that no owner has looked at since, or not since `sure_after` later: until then a
    /// command may be on its way.
    pub(super) fn doubts(
        &self,
        shard: ShardId,
        (now, sure_after): (Instant, Duration),
        max: usize,
    ) -> Vec<ClientId> {
        let clients = self.clients(shard).lock();
        let due = clients.iter().filter(|(_, entry)| {
            let is_due = |doubt: &Doubt| !doubt.is_told || doubt.is_sure(now, sure_after);
            // The next connect settles it if it succeeds.
            entry.opening == 0 && entry.doubt.as_ref().is_some_and(is_due)
        });
        due.map(|(client, _)| client.clone()).take(max).collect()
    }

    /// An owner has looked at what became of a connect that was given up. It was asked at this time.
    pub(super) fn reviewed(
        &self,
        shard: ShardId,
        client: &ClientId,
        (asked, sure_after): (Instant, Duration),
    ) {
        let mut clients = self.clients(shard).lock();
        if let Place::Occupied(mut place) = clients.entry(client.clone()) {
            let entry = place.get_mut();
            if let Some(doubt) = entry.doubt.as_mut().filter(|doubt| doubt.since <= asked) {
                doubt.is_told = true;
                if doubt.is_sure(asked, sure_after) {
                    entry.doubt = None;
                }
            }
            if entry.is_empty() {
                place.remove();
            }
        }
    }

    /// Whether a connection of the client is held or being opened.
    pub(super) fn knows(&self, shard: ShardId, client: &ClientId) -> bool {
        self.clients(shard).lock().contains_key(client)
    }

    pub(super) fn held(&self, shard: ShardId) -> Held {
        let mut held = Held::default();
        for (client, entry) in self.clients(shard).lock().iter() {
            if let Some((epoch, _)) = &entry.open {
                held.connected.push((client.clone(), *epoch));
            }
            if entry.opening > 0 {
                held.opening.push(client.clone());
            }
            if let Some(end) = &entry.ended {
                held.ended.push((client.clone(), **end));
            }
        }
        held
    }

    /// Ends that no owner has recorded yet.
    pub(super) fn ends(&self, shard: ShardId, max: usize) -> Vec<(ClientId, Disconnect)> {
        let clients = self.clients(shard).lock();
        let ends = clients.iter().filter_map(|(client, entry)| {
            let end = entry.ended.as_ref()?;
            Some((client.clone(), **end))
        });
        ends.take(max).collect()
    }

    /// Who was heard of since this was last asked, and how many milliseconds ago.
    pub(super) fn touched(&self, shard: ShardId, now: Tick) -> Vec<(ClientId, u32)> {
        let clients = self.clients(shard).lock();
        let touched = clients.iter().filter_map(|(client, entry)| {
            let heard = entry.open.as_ref()?.1.take()?;
            let ago = (now - heard).as_millis();
            Some((client.clone(), u32::try_from(ago).unwrap_or(u32::MAX)))
        });
        touched.collect()
    }

    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for clients in &self.0 {
            for entry in clients.lock().values() {
                totals.open += usize::from(entry.open.is_some());
                totals.ends += usize::from(entry.ended.is_some());
                totals.doubts += usize::from(entry.doubt.is_some());
            }
        }
        totals
    }
}

impl Opening<'_> {
    /// The end of the client's connection before, which the owner may not have heard of.
    pub(super) fn ended(&self) -> Option<Disconnect> {
        let clients = self.clients.lock();
        let ended = clients.get(self.client)?.ended.as_ref()?;
        Some(**ended)
    }

    /// The session is open. What was held of the client before is over, and so is what was given up.
    pub(super) fn opened(&self, epoch: SessionEpoch, now: Tick) -> Result<Arc<Beat>, Disclaimed> {
        let mut clients = self.clients.lock();
        let entry = clients.entry(self.client.clone()).or_default();
        if epoch <= entry.disclaimed {
            return Err(Disclaimed);
        }
        let beat = Arc::new(Beat::default());
        // The owner has just noted that it is there.
        beat.touch(now);
        beat.take();
        entry.doubt = None;
        if entry.open.as_ref().is_none_or(|open| open.0 < epoch) {
            entry.open = Some((epoch, Arc::clone(&beat)));
        }
        if entry.ended.as_ref().is_some_and(|end| end.epoch < epoch) {
            entry.ended = None;
        }
        Ok(beat)
    }

    /// The connect is given up, and may be recorded. False: too many are, so this one is not remembered.
    pub(super) fn doubt(&self, now: Instant) -> bool {
        let mut clients = self.clients.lock();
        let has_room = clients.len() < DOUBTS_MAX
            || clients
                .values()
                .filter(|entry| entry.doubt.is_some())
                .count()
                < DOUBTS_MAX;
        if has_room {
            let entry = clients.entry(self.client.clone()).or_default();
            entry.doubt = Some(Doubt {
                since: now,
                is_told: false,
            });
        }
        has_room
    }
}

impl Doubt {
    /// Whether nothing of the connect can be on its way any more.
    fn is_sure(&self, now: Instant, sure_after: Duration) -> bool {
        now.duration_since(self.since) >= sure_after
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut clients = self.clients.lock();
        if let Place::Occupied(mut place) = clients.entry(self.client.clone()) {
            let entry = place.get_mut();
            entry.opening = entry.opening.saturating_sub(1);
            if entry.opening == 0 {
                entry.disclaimed = SessionEpoch::default();
            }
            if entry.is_empty() {
                place.remove();
            }
        }
    }
}
