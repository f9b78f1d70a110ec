//! The link's twin in memory: nodes of one process, and a net between them that a test cuts, slows and mends.
//!
//! It keeps what TCP keeps. A cut stalls what is on its way; when it lasts longer than [`Timing::silence`], the link is
//! broken and all of it is lost, in both directions, because no answer comes any more. [`MemoryNet::stop`] is a crash: the
//! node's handlers are dropped, and its peers see their connections reset. All waiting is tokio's, so it follows paused time.

mod line;
mod net;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    PeerError,
    nodes::{Boot, Peer},
};

use self::{line::Line, net::Net};
use super::{BoxFuture, Handler, Limits, Service, Timing, Transport, desk::Desk};

/// A net in memory. Cheap to clone; every clone is the same net.
#[derive(Clone)]
pub struct MemoryNet(Arc<Shared>);

/// What nodes and lines have in common.
struct Shared {
    net: Mutex<Net>,
    /// Changes when a way may have become free.
    ways: watch::Sender<()>,
    limits: Limits,
    timing: Timing,
}

/// One life of a node.
struct Life {
    node: NodeId,
    boot: Boot,
    desk: Desk,
    over: watch::Sender<bool>,
    peers: watch::Sender<Vec<Peer>>,
}

impl Default for MemoryNet {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNet {
    /// A net without nodes, in which links break after 200 ms of silence and peers are gone after 600 ms: tests are not
    /// to wait for what a real network takes.
    pub fn new() -> Self {
        let timing = Timing {
            silence: Duration::from_millis(200),
            gone_after: Duration::from_millis(600),
            gone_after_refused: Duration::from_millis(200),
        };
        Self::with(Limits::default(), timing)
    }

    /// A net with these bounds and times.
    pub fn with(limits: Limits, timing: Timing) -> Self {
        Self(Arc::new(Shared {
            net: Mutex::default(),
            ways: watch::Sender::new(()),
            limits,
            timing,
        }))
    }

    /// Starts a node, or starts it again. Within a runtime.
    pub fn node(&self, node: NodeId, boot: Boot) -> Arc<MemoryTransport> {
        self.stop(node);
        let life = Arc::new(Life {
            node,
            boot,
            desk: Desk::default(),
            over: watch::Sender::new(false),
            peers: watch::Sender::new(Vec::new()),
        });
        self.change(|net| net.start(Arc::clone(&life)));
        Arc::new(MemoryTransport {
            shared: Arc::clone(&self.0),
            life,
        })
    }

    /// Kills a node: what was under way to and from it has an unknown outcome.
    pub fn stop(&self, node: NodeId) {
        self.change(|net| net.stop(node));
    }

    /// Takes a node out of everybody's address book.
    pub fn forget(&self, node: NodeId) {
        self.change(|net| {
            net.stop(node);
            net.forget(node);
        });
    }

    /// From now on nothing gets from one node to the other; the way back stays open.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.change(|net| {
            net.cuts.insert((from, to));
        });
    }

    /// From now on only nodes of one group reach each other. A node in no group reaches nobody.
    pub fn partition(&self, groups: &[&[NodeId]]) {
        self.change(|net| {
            let nodes: BTreeSet<NodeId> = net.known.clone();
            let together = |a: &NodeId, b: &NodeId| {
                groups
                    .iter()
                    .any(|group| group.contains(a) && group.contains(b))
            };
            net.cuts.clear();
            for from in &nodes {
                let away = nodes.iter().filter(|to| *to != from && !together(from, to));
                net.cuts.extend(away.map(|to| (*from, *to)));
            }
        });
    }

    /// Opens every way again.
    pub fn heal(&self) {
        self.change(|net| net.cuts.clear());
    }

    /// How long every message is on its way, each direction.
    pub fn set_delay(&self, delay: Duration) {
        self.change(|net| {
            net.delay = delay;
            net.delays.clear();
        });
    }

    /// How long a message is on its way from one node to another.
    pub fn set_delay_between(&self, from: NodeId, to: NodeId, delay: Duration) {
        self.change(|net| {
            net.delays.insert((from, to), delay);
        });
    }

    /// Changes the net, then makes every link follow.
    fn change(&self, change: impl FnOnce(&mut Net)) {
        let mut net = self.0.net.lock();
        change(&mut net);
        Shared::settle(&self.0, &mut net);
        drop(net);
        self.0.ways.send_replace(());
    }
}

impl Shared {
    /// Makes links of ways, and plans the end of those whose way is gone.
    fn settle(this: &Arc<Self>, net: &mut Net) {
        for due in net.settle(this) {
            let shared = Arc::downgrade(this);
            drop(tokio::spawn(Self::later(shared, due)));
        }
        net.publish();
    }

    /// What happens to a link unless something happens to it before.
    async fn later(shared: Weak<Self>, due: net::Due) {
        sleep(due.after).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut net = shared.net.lock();
        net.pass(&due);
        Self::settle(&shared, &mut net);
    }
}

/// One node's end of a [`MemoryNet`].
pub struct MemoryTransport {
    shared: Arc<Shared>,
    life: Arc<Life>,
}

impl MemoryTransport {
    /// This life of this node.
    pub fn boot(&self) -> Boot {
        self.life.boot
    }

    fn line(&self, to: NodeId) -> Result<Arc<Line>, PeerError> {
        let net = self.shared.net.lock();
        let over = *self.life.over.borrow();
        let line = net.line(self.life.node, to).filter(|_| !over);
        line.ok_or(PeerError::NotConnected(to))
    }

    fn fits(&self, to: NodeId, body: &Bytes) -> Result<(), PeerError> {
        super::fits(&self.shared.limits, to, body)
    }
}

impl Transport for MemoryTransport {
    fn me(&self) -> NodeId {
        self.life.node
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.life.desk.serve(service, handler);
    }

    fn request(
        &self,
        to: NodeId,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let queued = self
            .fits(to, &body)
            .and_then(|()| self.line(to))
            .and_then(|line| line.request(service, body, within));
        Box::pin(async move {
            match timeout(within, queued?).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) | Err(_) => Err(PeerError::Unknown(to)),
            }
        })
    }

    fn notify(&self, to: NodeId, service: Service, body: Bytes) -> Result<(), PeerError> {
        self.fits(to, &body)?;
        self.line(to)?.notice(service, body)
    }

    fn peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.life.peers.subscribe()
    }
}
