//! The link over TCP and mutual TLS.
//!
//! Every node dials every other and sends its requests on its own connections, three for each peer ([`hello::Lane`]): a
//! large body waits for nothing that is urgent, and the other way round. Answers come back on the connection that asked.
//! So each direction is judged by the node that uses it.
//!
//! * [`hello`]: the first words; [`frame`]: what follows; [`conn`]: reading and writing them.
//! * [`outbox`]: what waits to be written and who waits for answers; all bounds of the sender.
//! * [`connect`], [`dial`], [`peer`], [`standing`]: this node's own connections, and what it thinks of a peer.
//! * [`accept`], [`lobby`], [`serve`]: connections of others, and what they ask.

mod accept;
mod config;
mod conn;
mod connect;
mod dial;
mod frame;
mod hello;
mod lobby;
mod outbox;
mod peer;
mod serve;
mod shared;
mod socket;
mod standing;
#[cfg(test)]
pub(super) mod tests;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use umbel_core::ids::NodeId;
use umbel_storage::{PeerError, nodes::Peer};

pub use self::config::{LinkError, TcpConfig};
use self::{
    frame::Frame,
    hello::{Lane, VERSIONS, Versions},
    peer::Remote,
    serve::Served,
    shared::{Phase, Shared},
};
use super::{BoxFuture, Handler, Service, Transport, join::Joins, metrics::Refusal};

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_millis(250);
/// How long this node's own tasks may take to end.
const ENDING: Duration = Duration::from_secs(2);

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
            let kept = dial::keep(Arc::clone(&self.shared), remote);
            drop(self.shared.home.spawn(kept));
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

    /// Whether a peer has said that this node was removed from the cluster, and who. Never turns back: numbers are not used
    /// again.
    pub fn told_removed(&self) -> watch::Receiver<Option<NodeId>> {
        self.shared.removed.subscribe()
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
