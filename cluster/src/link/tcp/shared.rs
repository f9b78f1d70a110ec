//! What all tasks of a link have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rand::Rng;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    PeerError,
    nodes::{Boot, Peer, Reach},
};

use super::{
    super::{
        Limits, Timing,
        desk::Desk,
        join::Joins,
        metrics::Meters,
        tls::{CredentialsError, Sides},
        vet::{Seen, Vet},
    },
    config::TcpConfig,
    hello::{Lane, Versions},
    lobby::Lobby,
    peer::Remote,
    serve::Served,
};

/// Whether a node's link runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Says farewell; nothing new.
    Leaving,
    Over,
}

/// What all tasks of a link have in common.
pub(super) struct Shared {
    pub(super) me: NodeId,
    pub(super) boot: Boot,
    pub(super) nonce: u64,
    pub(super) cluster_id: String,
    pub(super) software: String,
    pub(super) versions: Versions,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    pub(super) handshake: Duration,
    /// Where the lanes run that are not the control lane.
    pub(super) work: Handle,
    /// Where everything else of the link runs.
    pub(super) home: Handle,
    pub(super) sides: Sides,
    pub(super) desk: Desk,
    pub(super) joins: OnceLock<Joins>,
    pub(super) meters: Arc<Meters>,
    pub(super) vet: Vet,
    pub(super) lobby: Arc<Lobby>,
    pub(super) book: RwLock<BTreeMap<NodeId, Arc<Remote>>>,
    pub(super) banned: RwLock<BTreeSet<NodeId>>,
    pub(super) served: Mutex<BTreeMap<(NodeId, Lane), Arc<Served>>>,
    /// Who was turned away last, and why.
    pub(super) turned: Mutex<Option<(IpAddr, String)>>,
    pub(super) changed: Arc<Notify>,
    pub(super) peers: watch::Sender<Vec<Peer>>,
    pub(super) regressed: watch::Sender<bool>,
    /// Which peer said that this node was removed.
    pub(super) removed: watch::Sender<Option<NodeId>>,
    pub(super) phase: watch::Sender<Phase>,
}

impl Shared {
    pub(super) fn new(config: TcpConfig, versions: Versions) -> Result<Self, CredentialsError> {
        let vet = config.vet.unwrap_or_else(|| {
            let seen = Seen::default();
            Arc::new(move |peer| seen.regressed(peer))
        });
        Ok(Self {
            sides: Sides::new(&config.credentials, &config.cluster_id, config.me)?,
            me: config.me,
            boot: config.boot,
            nonce: rand::rng().random(),
            cluster_id: config.cluster_id,
            software: config.software,
            versions,
            limits: config.limits,
            timing: config.timing,
            handshake: config.handshake,
            work: config.work.unwrap_or_else(Handle::current),
            home: Handle::current(),
            desk: Desk::default(),
            joins: OnceLock::new(),
            meters: Arc::new(Meters::new()),
            vet,
            lobby: Arc::default(),
            book: RwLock::default(),
            banned: RwLock::default(),
            served: Mutex::default(),
            turned: Mutex::new(None),
            changed: Arc::new(Notify::new()),
            peers: watch::Sender::new(Vec::new()),
            regressed: watch::Sender::new(false),
            removed: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Running),
        })
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn remote(&self, node: NodeId) -> Result<Arc<Remote>, PeerError> {
        let book = self.book.read();
        let remote = book.get(&node).map(Arc::clone);
        remote.ok_or(PeerError::NotConnected(node))
    }

    /// A node introduced itself.
    pub(super) fn heard(&self, node: NodeId, boot: Boot) {
        if let Ok(remote) = self.remote(node) {
            remote.heard(boot);
        }
    }

    /// A peer said that it has met a later life of this node.
    pub(super) fn told_regressed(&self, peer: NodeId) {
        if !self.regressed.send_replace(true) {
            tracing::error!(%peer, "a peer has met a later life of this node: the disk has gone back in time");
        }
    }

    /// A peer said that this node was removed.
    pub(super) fn told_removed(&self, peer: NodeId) {
        self.removed.send_if_modified(|told| {
            let is_news = told.is_none();
            told.get_or_insert(peer);
            is_news
        });
    }

    /// Publishes what changed, and what changes by time alone.
    pub(super) async fn publish(self: Arc<Self>) {
        let mut phase = self.phase();
        loop {
            let now = Instant::now();
            let remotes: Vec<Arc<Remote>> = self.book.read().values().map(Arc::clone).collect();
            let (peers, times): (Vec<Peer>, Vec<Option<Instant>>) = remotes
                .iter()
                .map(|remote| remote.seen(&self.timing, now))
                .unzip();
            let connected = peers
                .iter()
                .filter(|peer| peer.reach == Reach::Connected)
                .count();
            self.meters
                .connected
                .set(u32::try_from(connected).unwrap_or(u32::MAX));
            self.peers.send_if_modified(|seen| {
                let changed = *seen != peers;
                *seen = peers;
                changed
            });
            let next = times.into_iter().flatten().min();
            let next = next.unwrap_or_else(|| now + Duration::from_hours(1));
            tokio::select! {
                () = self.changed.notified() => {},
                () = sleep_until(next) => {},
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            }
        }
    }
}
