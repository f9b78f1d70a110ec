//! Permits in front of every mailbox. A ractor mailbox has no bound, so the permit is the bound.
//!
//! A command holds one place in its node and one in its shard from the moment it is admitted until it has been
//! worked on, or lost with a crashed actor: the places are given back on drop. Full is answered at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A bounded number of places.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
        })
    }

    /// A place, or nothing when all are taken.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(self));
        // A place above the bound is given back by its drop.
        (before < self.max).then_some(place)
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

/// A taken place. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_refuses_at_once_and_a_dropped_place_is_free_again() {
        let places = Places::new(2);
        let first = places.take().expect("free");
        let _second = places.take().expect("free");
        assert!(places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
        assert_eq!(places.taken(), 1);
    }
}
