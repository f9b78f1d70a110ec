//! The link over TCP and mutual TLS.
//!
//! Every node dials every other and sends its requests on its own connections, three for each peer ([`hello::Lane`]): a
//! large body waits for nothing that is urgent, and the other way round. Answers come back on the connection that asked.
//! So each direction is judged by the node that uses it.
//!
//! * [`hello`]: the first words; [`frame`]: what follows; [`conn`]: reading and writing them.
//! * [`outbox`]: what waits to be written and who waits for answers; all bounds of the sender.
//! * [`dial`], [`peer`], [`standing`]: this node's own connections, and what it thinks of a peer.
//! * [`accept`], [`serve`]: connections of others, and what they ask.

mod accept;
mod conn;
mod dial;
mod frame;
mod hello;
mod outbox;
mod peer;
mod serve;
mod socket;
mod standing;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rand::Rng;
use thiserror::Error;
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};
use umbel_core::ids::NodeId;
use umbel_storage::{
    PeerError,
    nodes::{Boot, Peer, Reach},
};

use self::{
    frame::Frame,
    hello::{Lane, VERSIONS, Versions},
    peer::Remote,
    serve::Served,
};
use super::{
    BoxFuture, Handler, Limits, Service, Timing, Transport,
    desk::Desk,
    join::Joins,
    metrics::{Meters, Refusal},
    tls::{Credentials, CredentialsError, Sides},
    vet::{Seen, Vet},
};

/// Connections that have shown no certificate yet. A whole cluster that starts at once makes three of each peer.
const HALF_OPEN_MAX: usize = 256;
/// TLS and the first words take milliseconds; a machine under full load gets so long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long this node's own tasks may take to end.
const ENDING: Duration = Duration::from_secs(2);

/// What a transport has to know.
pub struct TcpConfig {
    /// This node.
    pub me: NodeId,
    /// This life of it.
    pub boot: Boot,
    /// Where it listens.
    pub bind: SocketAddr,
    /// The cluster, a DNS label.
    pub cluster_id: String,
    /// What it shows and whom it trusts.
    pub credentials: Credentials,
    /// Its release, for the logs of others.
    pub software: String,
    /// Bounds.
    pub limits: Limits,
    /// When a link is broken.
    pub timing: Timing,
    /// Has a peer's disk gone back in time? By default as [`Seen`] remembers.
    pub vet: Option<Vet>,
}

impl TcpConfig {
    /// With the default bounds and times.
    pub fn new(
        me: NodeId,
        boot: Boot,
        bind: SocketAddr,
        cluster_id: String,
        credentials: Credentials,
    ) -> Self {
        Self {
            me,
            boot,
            bind,
            cluster_id,
            credentials,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
            timing: Timing::default(),
            vet: None,
        }
    }
}

/// Why there is no transport.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The certificates do not do.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The address cannot be listened on.
    #[error("the link cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Whether a node's link runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Says farewell; nothing new.
    Leaving,
    Over,
}

/// What all tasks of a link have in common.
struct Shared {
    me: NodeId,
    boot: Boot,
    nonce: u64,
    cluster_id: String,
    software: String,
    versions: Versions,
    limits: Limits,
    timing: Timing,
    handshake: Duration,
    sides: Sides,
    desk: Desk,
    joins: OnceLock<Joins>,
    meters: Arc<Meters>,
    vet: Vet,
    half_open: Arc<Semaphore>,
    book: RwLock<BTreeMap<NodeId, Arc<Remote>>>,
    banned: RwLock<BTreeSet<NodeId>>,
    served: Mutex<BTreeMap<(NodeId, Lane), Arc<Served>>>,
    /// Who was turned away last, and why.
    turned: Mutex<Option<(IpAddr, String)>>,
    changed: Arc<Notify>,
    peers: watch::Sender<Vec<Peer>>,
    regressed: watch::Sender<bool>,
    phase: watch::Sender<Phase>,
}

impl Shared {
    fn new(config: TcpConfig, versions: Versions) -> Result<Self, CredentialsError> {
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
            handshake: HANDSHAKE,
            desk: Desk::default(),
            joins: OnceLock::new(),
            meters: Arc::new(Meters::new()),
            vet,
            half_open: Arc::new(Semaphore::new(HALF_OPEN_MAX)),
            book: RwLock::default(),
            banned: RwLock::default(),
            served: Mutex::default(),
            turned: Mutex::new(None),
            changed: Arc::new(Notify::new()),
            peers: watch::Sender::new(Vec::new()),
            regressed: watch::Sender::new(false),
            phase: watch::Sender::new(Phase::Running),
        })
    }

    fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn remote(&self, node: NodeId) -> Result<Arc<Remote>, PeerError> {
        let book = self.book.read();
        let remote = book.get(&node).map(Arc::clone);
        remote.ok_or(PeerError::NotConnected(node))
    }

    /// A node introduced itself.
    fn heard(&self, node: NodeId, boot: Boot) {
        if let Ok(remote) = self.remote(node) {
            remote.heard(boot);
        }
    }

    /// A peer said what it thinks of this node's disk.
    fn told(&self, peer: NodeId, regressed: bool) {
        if regressed && !self.regressed.send_replace(true) {
            tracing::error!(%peer, "a peer met a later life of this node: the disk has gone back in time");
        }
    }

    /// Publishes what changed, and what changes by time alone.
    async fn publish(self: Arc<Self>) {
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

/// Speaks to other nodes over TCP.
pub struct TcpTransport {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl TcpTransport {
    /// Listens, and serves who comes; dials nobody before [`TcpTransport::set_address_book`].
    pub async fn start(config: TcpConfig) -> Result<Arc<Self>, LinkError> {
        Self::start_speaking(config, VERSIONS).await
    }

    async fn start_speaking(config: TcpConfig, versions: Versions) -> Result<Arc<Self>, LinkError> {
        let address = config.bind;
        let bound = |source| LinkError::Bind { address, source };
        let shared = Arc::new(Shared::new(config, versions)?);
        let listener = TcpListener::bind(address).await.map_err(bound)?;
        let address = listener.local_addr().map_err(bound)?;
        drop(tokio::spawn(accept::listen(Arc::clone(&shared), listener)));
        drop(tokio::spawn(Arc::clone(&shared).publish()));
        Ok(Arc::new(Self { shared, address }))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Who belongs to the cluster, and where each is to be found (`host:port`, tried in this order, resolved each time).
    /// Who is not named any more is left alone; this node itself is passed over.
    pub fn set_address_book(&self, book: &BTreeMap<NodeId, Vec<String>>) {
        if *self.shared.phase.borrow() != Phase::Running {
            return;
        }
        let mut known = self.shared.book.write();
        let banned = self.shared.banned.read();
        let belongs = |node: &NodeId| *node != self.shared.me && !banned.contains(node);
        known.retain(|node, remote| {
            let stays = book.contains_key(node) && belongs(node);
            if !stays {
                remote.leave("it is not in the address book any more");
            }
            stays
        });
        for (node, addresses) in book.iter().filter(|(node, _)| belongs(node)) {
            if let Some(remote) = known.get(node) {
                remote.moved(addresses);
                continue;
            }
            let changed = Arc::clone(&self.shared.changed);
            let remote = Remote::new(*node, addresses.clone(), changed);
            known.insert(*node, Arc::clone(&remote));
            drop(tokio::spawn(dial::keep(Arc::clone(&self.shared), remote)));
        }
        self.shared.changed.notify_one();
    }

    /// A node was removed from the cluster: its connections end, and none of it is accepted again.
    pub fn removed(&self, node: NodeId) {
        self.shared.banned.write().insert(node);
        let known = self.shared.book.write().remove(&node);
        if let Some(remote) = known {
            remote.leave("the node was removed");
        }
        let served = self.shared.served.lock();
        for (_, served) in served.iter().filter(|((from, _), _)| *from == node) {
            served.conn.cut("the node was removed");
        }
        self.shared.changed.notify_one();
    }

    /// Whether a peer has said that this node's disk has gone back in time. Never turns back in this process.
    pub fn told_regressed(&self) -> watch::Receiver<bool> {
        self.shared.regressed.subscribe()
    }

    /// Gives those who want to become nodes somebody to talk to. Only the first call counts.
    pub fn serve_join(&self, joins: Joins) {
        self.shared.joins.get_or_init(|| joins);
    }

    /// How many connections, own and others', came to nothing for this reason.
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.shared.meters.refusals(reason)
    }

    /// Says farewell to every peer, closes everything, and waits until it is closed.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.phase.send_replace(Phase::Leaving);
        let remotes: Vec<Arc<Remote>> = shared.book.read().values().map(Arc::clone).collect();
        for conn in remotes.iter().flat_map(|remote| remote.conns()) {
            conn.outbox.signal(Frame::Goaway("stopping".to_owned()));
        }
        let served: Vec<Arc<Served>> = shared.served.lock().values().map(Arc::clone).collect();
        for served in served {
            let goaway = Frame::Goaway("stopping".to_owned());
            served.conn.outbox.signal(goaway);
        }
        drop(timeout(FAREWELL, shared.phase.closed()).await);
        shared.phase.send_replace(Phase::Over);
        drop(timeout(ENDING, shared.phase.closed()).await);
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Over);
    }
}

impl Transport for TcpTransport {
    fn me(&self) -> NodeId {
        self.shared.me
    }

    fn serve(&self, service: Service, handler: Arc<dyn Handler>) {
        self.shared.desk.serve(service, handler);
    }

    fn request(
        &self,
        to: NodeId,
        service: Service,
        body: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let queued = super::fits(&self.shared.limits, to, &body)
            .and_then(|()| self.shared.remote(to)?.conn(Lane::of(service)))
            .and_then(|conn| {
                let ticket = conn.outbox.request(service, body, within)?;
                Ok((conn, ticket))
            });
        Box::pin(async move {
            let (conn, ticket) = queued?;
            conn.outbox.wait(ticket, within).await
        })
    }

    fn notify(&self, to: NodeId, service: Service, body: Bytes) -> Result<(), PeerError> {
        super::fits(&self.shared.limits, to, &body)?;
        let conn = self.shared.remote(to)?.conn(Lane::of(service))?;
        conn.outbox.notice(service, body)
    }

    fn peers(&self) -> watch::Receiver<Vec<Peer>> {
        self.shared.peers.subscribe()
    }
}
