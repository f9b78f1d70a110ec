//! The table of sessions, connected or not.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use umbel_core::ids::{ClientId, ShardId};

use super::mailbox::Mailbox;

/// Locks the table is spread over. Unrelated to shards: two clients of one shard need not wait for each other.
const STRIPES: u16 = 64;

type Stripe = BTreeMap<ClientId, Arc<Mailbox>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Sessions {
    stripes: Box<[Mutex<Stripe>]>,
    count: AtomicUsize,
}

impl Default for Sessions {
    fn default() -> Self {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Self {
            stripes,
            count: AtomicUsize::new(0),
        }
    }
}

/// One stripe, locked: whoever decides which session a client has holds this.
pub(crate) struct Locked<'a> {
    stripe: MutexGuard<'a, Stripe>,
    count: &'a AtomicUsize,
}

impl Sessions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// The session of a client.
    pub(crate) fn get(&self, client: &ClientId) -> Option<Arc<Mailbox>> {
        self.stripe(client).lock().get(client).cloned()
    }

    /// Locks the place of a client.
    pub(crate) fn lock(&self, client: &ClientId) -> Locked<'_> {
        Locked {
            stripe: self.stripe(client).lock(),
            count: &self.count,
        }
    }

    /// Up to `limit` sessions after a client id, in the order of their ids.
    pub(crate) fn page(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Mailbox>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = Vec::new();
        for stripe in &self.stripes {
            let stripe = stripe.lock();
            let found = stripe
                .range::<ClientId, _>((from, Bound::Unbounded))
                .take(limit);
            page.extend(found.map(|(_, mailbox)| Arc::clone(mailbox)));
        }
        page.sort_unstable_by(|one, other| one.client().cmp(other.client()));
        page.truncate(limit);
        page
    }

    /// Looks at every session, stripe by stripe.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Arc<Mailbox>)) {
        for stripe in &self.stripes {
            stripe.lock().values().for_each(&mut visit);
        }
    }

    fn stripe(&self, client: &ClientId) -> &Mutex<Stripe> {
        let index = usize::from(ShardId::of(client.as_str(), STRIPES).0);
        self.stripes.get(index).unwrap_or_else(|| {
            unreachable!("a hash modulo {STRIPES} is below {STRIPES}") // the number of stripes is a constant
        })
    }
}

impl Locked<'_> {
    /// The session of the client this was locked for.
    pub(crate) fn get(&self, client: &ClientId) -> Option<&Arc<Mailbox>> {
        self.stripe.get(client)
    }

    /// Puts a session in the place of the one before.
    pub(crate) fn insert(&mut self, mailbox: Arc<Mailbox>) {
        if self
            .stripe
            .insert(mailbox.client().clone(), mailbox)
            .is_none()
        {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Removes the session of a client.
    pub(crate) fn remove(&mut self, client: &ClientId) -> Option<Arc<Mailbox>> {
        let removed = self.stripe.remove(client);
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }
}
