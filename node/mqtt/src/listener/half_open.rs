//! Connections that have not said who they are: how many, for how long, and who has to make room.
//!
//! At the bound a newcomer is refused, unless someone has kept its place idle for longer than the patience: then that
//! one goes. So a crowd of dribblers cannot keep an honest client out for longer than the patience, and a fleet that
//! reconnects does not push itself out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use umbel_core::time::Tick;

use crate::limits::Limits;

/// The table of half-open connections of a node.
#[derive(Clone, Debug)]
pub(crate) struct HalfOpen {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    max: usize,
    per_address_max: usize,
    patience: Duration,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By age.
    by_age: BTreeMap<u64, Waiting>,
    /// The same by address, then age.
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: a balancer's, which speaks for many.
    address: Option<IpAddr>,
    since: Tick,
    /// Dropped to send the connection away.
    _keep: oneshot::Sender<()>,
}

/// A place among the half-open; given back on drop.
#[derive(Debug)]
pub(crate) struct Admitted {
    inner: Arc<Inner>,
    id: u64,
    /// Resolves when the place is given to another.
    pub(crate) evicted: oneshot::Receiver<()>,
}

impl HalfOpen {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                max: limits.half_open_max,
                per_address_max: limits.half_open_per_address_max,
                patience: limits.half_open_patience,
                table: Mutex::default(),
            }),
        }
    }

    /// A place for a new connection, if there is one or one can be made. Without an address only the bound for all
    /// counts.
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Tick) -> Option<Admitted> {
        let inner = &self.inner;
        let mut table = inner.table.lock();
        table.make_room(inner, address, now)?;
        let (keep, evicted) = oneshot::channel();
        let id = table.insert(Waiting {
            address,
            since: now,
            _keep: keep,
        });
        drop(table);
        Some(Admitted {
            inner: Arc::clone(inner),
            id,
            evicted,
        })
    }

    /// Sends everyone away. Whoever comes later is bounded as before.
    pub(super) fn clear(&self) {
        let mut table = self.inner.table.lock();
        let next = table.next; // identifiers are never used again
        let gone = std::mem::replace(
            &mut *table,
            Table {
                next,
                ..Table::default()
            },
        );
        drop(table);
        drop(gone);
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.inner.table.lock().by_age.len()
    }
}

impl Admitted {
    /// The connection turns out to come from `address`: takes a place there, if there is one or one can be made.
    pub(crate) fn move_to(&mut self, address: IpAddr, now: Tick) -> Option<()> {
        let mut table = self.inner.table.lock();
        let waiting = table.remove(self.id)?;
        table.make_room(&self.inner, Some(address), now)?;
        self.id = table.insert(Waiting {
            address: Some(address),
            since: now,
            ..waiting
        });
        Some(())
    }

    /// The connection moved on to its next step: its patience starts again.
    pub(crate) fn renew(&mut self, now: Tick) {
        let mut table = self.inner.table.lock();
        if let Some(waiting) = table.remove(self.id) {
            self.id = table.insert(Waiting {
                since: now,
                ..waiting
            });
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.inner.table.lock().remove(self.id);
    }
}

impl Table {
    /// Sends the oldest away where a bound is reached, if it was idle for long enough.
    fn make_room(&mut self, inner: &Inner, address: Option<IpAddr>, now: Tick) -> Option<()> {
        let oldest = match address.and_then(|address| self.by_address.get(&address)) {
            Some(ids) if ids.len() >= inner.per_address_max => ids.first().copied(),
            _ if self.by_age.len() >= inner.max => self.by_age.first_key_value().map(|(id, _)| *id),
            _ => return Some(()),
        };
        self.evict(oldest?, now, inner.patience)
    }

    fn insert(&mut self, waiting: Waiting) -> u64 {
        let id = self.next;
        self.next += 1;
        if let Some(address) = waiting.address {
            self.by_address.entry(address).or_default().insert(id);
        }
        self.by_age.insert(id, waiting);
        id
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.by_age.remove(&id)?;
        if let Some(address) = waiting.address
            && let Some(ids) = self.by_address.get_mut(&address)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(waiting)
    }

    /// Sends one away if it has been idle for longer than `patience`.
    fn evict(&mut self, id: u64, now: Tick, patience: Duration) -> Option<()> {
        if now - self.by_age.get(&id)?.since < patience {
            return None;
        }
        self.remove(id).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn table(max: usize, per_address: usize) -> HalfOpen {
        HalfOpen::new(&Limits {
            half_open_max: max,
            half_open_per_address_max: per_address,
            half_open_patience: Duration::from_secs(2),
            ..Limits::default()
        })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
    }

    #[test]
    fn a_newcomer_waits_out_the_patience_of_the_oldest_then_takes_its_place() {
        let half_open = table(2, 2);
        let at = Tick::from_millis;
        let mut first = half_open.admit(Some(address(1)), at(0)).expect("room");
        let mut second = half_open.admit(Some(address(2)), at(500)).expect("room");
        assert!(half_open.admit(Some(address(3)), at(1_999)).is_none());
        let _third = half_open
            .admit(Some(address(3)), at(2_000))
            .expect("the oldest goes");
        assert!(first.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed));
        assert!(second.evicted.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        drop(first);
        second.renew(at(2_400));
        assert!(
            half_open.admit(Some(address(4)), at(2_600)).is_none(),
            "it moved on at 2,400"
        );
        assert_eq!(half_open.len(), 2);
    }

    #[test]
    fn one_address_cannot_take_the_room_of_others() {
        let half_open = table(10, 2);
        let at = Tick::from_millis;
        let _one = half_open.admit(Some(address(1)), at(0)).expect("room");
        let two = half_open.admit(Some(address(1)), at(0)).expect("room");
        assert!(half_open.admit(Some(address(1)), at(100)).is_none());
        assert!(half_open.admit(Some(address(2)), at(100)).is_some());
        drop(two);
        let mut proxied = half_open
            .admit(None, at(100))
            .expect("a balancer has no bound of its own");
        assert!(proxied.move_to(address(1), at(100)).is_some());
        assert!(half_open.admit(Some(address(1)), at(100)).is_none());
    }
}
