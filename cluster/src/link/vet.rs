//! Has a peer's disk gone back in time?
//!
//! A node counts its starts on its disk. One that introduces itself with an older count than before, or with the same
//! count in another process, runs on an older copy of its disk (or a wiped one) and may have forgotten what it promised:
//! it is told so, and nobody who remembers its later life speaks to it: neither its vote nor its log may count (fault
//! F16). What a peer remembers lasts as long as its process, unless a [`Vet`] of its own remembers longer.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

/// How a peer introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Who.
    pub node: NodeId,
    /// Which life, by its own disk.
    pub boot: Boot,
    /// Drawn once for each process: two processes never share it.
    pub nonce: u64,
}

/// Says whether a peer's disk has gone back in time. Called for every connection it makes; must not block.
pub type Vet = Arc<dyn Fn(Introduction) -> bool + Send + Sync>;

/// The newest life of each node that this process has met.
#[derive(Debug, Default)]
pub struct Seen(Mutex<BTreeMap<NodeId, (Boot, u64)>>);

impl Seen {
    /// Whether this is an older life than one met before, or another process under the same count. Remembers the newest.
    pub fn regressed(&self, peer: Introduction) -> bool {
        let mut seen = self.0.lock();
        let newest = seen.entry(peer.node).or_insert((peer.boot, peer.nonce));
        if peer.boot > newest.0 {
            *newest = (peer.boot, peer.nonce);
        }
        *newest != (peer.boot, peer.nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_count_or_the_same_in_another_process_has_gone_back_in_time() {
        let seen = Seen::default();
        let regressed = |boot, nonce| {
            seen.regressed(Introduction {
                node: NodeId(1),
                boot: Boot(boot),
                nonce,
            })
        };
        assert!(!regressed(5, 1));
        assert!(!regressed(5, 1), "another connection of the same process");
        assert!(!regressed(6, 2));
        assert!(regressed(6, 3), "another process with the same count");
        assert!(regressed(6, 3), "and it stays so");
        assert!(regressed(1, 4), "a wiped disk");
        assert!(!regressed(7, 5));
    }
}
