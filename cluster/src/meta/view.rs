//! This node's copy of the map, brought up to date whenever the meta group applies something.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use umbel_core::{cluster::ClusterMap, ids::ShardId};

use super::{groups::Groups, rows};

/// Rows also change without a word: a snapshot was taken over, or the replica began after this did.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The copy.
pub(super) struct View {
    map: watch::Sender<Arc<ClusterMap>>,
}

impl View {
    /// The map as of now.
    pub(super) fn read(groups: &dyn Groups) -> Result<Self, rows::RowError> {
        let map = rows::read_settled(groups)?;
        Ok(Self {
            map: watch::Sender::new(Arc::new(map)),
        })
    }

    /// A map of nothing, until the replica is there.
    pub(super) fn empty() -> Self {
        Self {
            map: watch::Sender::new(Arc::default()),
        }
    }

    /// The map.
    pub(super) fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map.borrow())
    }

    /// The map, and word of its changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.map.subscribe()
    }

    /// Looks whether there are newer rows.
    pub(super) fn refresh(&self, groups: &dyn Groups) -> Result<(), rows::RowError> {
        if rows::revision(groups)? <= self.map.borrow().counters.revision {
            return Ok(());
        }
        let newer = rows::read_settled(groups)?;
        self.map.send_if_modified(|map| {
            let rises = newer.counters.revision > map.counters.revision;
            if rises {
                *map = Arc::new(newer);
            }
            rises
        });
        Ok(())
    }
}

/// Resolves when it is time to look again.
pub(super) async fn changed(groups: &dyn Groups) {
    let Some(mut applied) = groups.applied(ShardId::META) else {
        return tokio::time::sleep(LOOK_EVERY).await;
    };
    applied.mark_unchanged();
    let closed = tokio::time::timeout(LOOK_EVERY, applied.changed()).await;
    if matches!(closed, Ok(Err(_))) {
        // The group stopped: its watch would be ready for ever.
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
