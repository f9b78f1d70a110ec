//! A peer of the address book: this node's connections to it, and what it thinks of it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    PeerError,
    nodes::{Boot, Peer},
};

use super::{
    super::Timing,
    conn::{Conn, End},
    hello::Lane,
    standing::Standing,
};

/// A peer.
pub(super) struct Remote {
    pub(super) node: NodeId,
    lanes: [ArcSwapOption<Conn>; Lane::ALL.len()],
    standing: Mutex<Standing>,
    addresses: Mutex<Vec<String>>,
    /// A reason to try again now.
    pub(super) kick: Notify,
    /// Not in the book any more.
    dropped: watch::Sender<bool>,
    /// Tells that the standing may have changed.
    changed: Arc<Notify>,
}

impl Remote {
    pub(super) fn new(node: NodeId, addresses: Vec<String>, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            node,
            lanes: Default::default(),
            standing: Mutex::new(Standing::new(Instant::now())),
            addresses: Mutex::new(addresses),
            kick: Notify::new(),
            dropped: watch::Sender::new(false),
            changed,
        })
    }

    /// Where it is said to be.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.addresses.lock().clone()
    }

    /// It is said to be elsewhere.
    pub(super) fn moved(&self, addresses: &[String]) {
        let mut known = self.addresses.lock();
        if *known != addresses {
            addresses.clone_into(&mut known);
            self.kick.notify_one();
        }
    }

    /// It is not in the book any more: its connections end, and no more are made.
    pub(super) fn leave(&self, why: &'static str) {
        self.dropped.send_replace(true);
        self.cut(why);
    }

    /// Waits until it is out of the book.
    pub(super) async fn left(&self) {
        drop(self.dropped.subscribe().wait_for(|left| *left).await);
    }

    /// Ends all connections to it.
    pub(super) fn cut(&self, why: &'static str) {
        for conn in self.conns() {
            conn.cut(why);
        }
    }

    /// All connections to it that are up.
    pub(super) fn conns(&self) -> impl Iterator<Item = Arc<Conn>> {
        self.lanes.iter().filter_map(ArcSwapOption::load_full)
    }

    /// The connection of a lane.
    pub(super) fn conn(&self, lane: Lane) -> Result<Arc<Conn>, PeerError> {
        self.lanes
            .get(lane as usize - 1)
            .and_then(ArcSwapOption::load_full)
            .ok_or(PeerError::NotConnected(self.node))
    }

    /// A connection works from here on.
    pub(super) fn up(&self, lane: Lane, boot: Boot, conn: &Arc<Conn>) {
        if let Some(place) = self.lanes.get(lane as usize - 1) {
            place.store(Some(Arc::clone(conn)));
        }
        self.standing.lock().up(lane, boot);
        self.changed.notify_one();
    }

    /// It does not any more; what waits on it is told.
    pub(super) fn down(&self, lane: Lane, conn: &Conn, end: &End) {
        if let Some(place) = self.lanes.get(lane as usize - 1) {
            place.store(None);
        }
        self.standing
            .lock()
            .down(lane, end.is_reset(), Instant::now());
        conn.outbox.close();
        self.changed.notify_one();
    }

    /// No connection could be made.
    pub(super) fn failed(&self, refused: bool) {
        self.standing.lock().failed(refused, Instant::now());
        self.changed.notify_one();
    }

    /// It has introduced itself on a connection of its own. What leads to an older life of it leads nowhere.
    pub(super) fn heard(&self, boot: Boot) {
        if self.standing.lock().heard(boot, Instant::now()) {
            self.cut("the other side was started again");
        }
        self.changed.notify_one();
        self.kick.notify_one();
    }

    /// What others are told about it, and when that changes by itself.
    pub(super) fn seen(&self, timing: &Timing, now: Instant) -> (Peer, Option<Instant>) {
        let mut standing = self.standing.lock();
        let peer = Peer {
            node: self.node,
            reach: standing.reach(timing, now),
            boot: standing.boot(),
        };
        (peer, standing.changes_at(timing))
    }
}
