//! Who is there, by gossip: foca (SWIM) over one UDP socket, in sealed packets.
//!
//! Everything here is a hint. Links see a broken connection first; gossip confirms that a node is gone, tells where a
//! node that moved is to be found, and finds the others at the start. A one-way partition is invisible to it. Nobody
//! changes ownership because of it.
//!
//! [`core`] is the whole of it without sockets and clocks; [`task`] is the shell around it.

mod chance;
mod core;
mod identity;
mod keys;
pub mod metrics;
mod notice;
mod replay;
mod screen;
mod seal;
mod settings;
mod task;
mod wire;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

pub use self::{
    identity::{Identity, ZONE_BYTES_MAX},
    keys::{Key, Keys, SECRET_BYTES},
    seal::NoRandomness,
    settings::Settings,
};

/// Orders that may wait for the task; each is rare.
const ORDERS_MAX: usize = 16;
/// How long the end may take: it only sends a few packets.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// What gossip needs to start.
#[derive(Debug)]
pub struct GossipConfig {
    /// This node. A gossip address with port 0 is given the port that was bound.
    pub me: Identity,
    /// Where to listen.
    pub bind: SocketAddr,
    /// Where others may be found, as `host:port`; names are resolved again and again.
    pub seeds: Vec<String>,
    /// Secrets of the cluster.
    pub keys: Keys,
    /// Id of the cluster: packets of another are refused, even under the same key.
    pub cluster_id: String,
    /// How membership is watched.
    pub settings: Settings,
}

/// Another node, as gossip sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// Which life of its process.
    pub boot: Boot,
    /// Where its links listen.
    pub link: SocketAddr,
    /// Where its gossip listens.
    pub gossip: SocketAddr,
    /// What it does, one bit for each role.
    pub roles: u8,
    /// Its failure domain.
    pub zone: String,
    /// Its release.
    pub version: [u16; 3],
    /// Whether it is taken for alive. A life that ended stays in the list for a day.
    pub alive: bool,
}

impl Member {
    fn from_foca(member: &foca::Member<Identity>) -> Self {
        let id = member.id();
        Self {
            node: id.node,
            boot: id.boot,
            link: id.link,
            gossip: id.gossip,
            roles: id.roles,
            zone: id.zone.clone(),
            version: id.version,
            alive: member.state() != foca::State::Down,
        }
    }
}

/// Why gossip did not start.
#[derive(Debug, Error)]
pub enum GossipError {
    /// The socket.
    #[error("gossip cannot listen on {bind}")]
    Bind {
        /// Where.
        bind: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Chance.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The zone.
    #[error("the zone's name is longer than {ZONE_BYTES_MAX} bytes")]
    Zone,
}

/// What the task is told.
enum Order {
    Keys(Keys),
    Places(BTreeSet<SocketAddr>),
    Leave,
}

/// Gossip of this node. When it is dropped, the task ends without farewell.
pub struct Gossip {
    orders: mpsc::Sender<Order>,
    members: watch::Receiver<Vec<Member>>,
    local: SocketAddr,
    task: JoinHandle<()>,
}

impl Gossip {
    /// Binds the socket and begins.
    pub async fn start(config: GossipConfig) -> Result<Self, GossipError> {
        let bind = config.bind;
        let bound = |source| GossipError::Bind { bind, source };
        if config.me.zone.len() > ZONE_BYTES_MAX {
            return Err(GossipError::Zone);
        }
        let socket = UdpSocket::bind(bind).await.map_err(bound)?;
        let local = socket.local_addr().map_err(bound)?;
        let mut me = config.me;
        if me.gossip.port() == 0 {
            me.gossip.set_port(local.port());
        }
        let core = core::Core::new(
            me,
            &config.cluster_id,
            config.keys,
            config.settings,
            rand::random(),
        )?;
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (shown, members) = watch::channel(Vec::new());
        let task = tokio::spawn(task::run(task::Shell::new(
            socket,
            core,
            config.seeds,
            ordered,
            shown,
        )));
        Ok(Self {
            orders,
            members,
            local,
            task,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Every other node heard of, in the order of ids; changes when one comes, goes or moves.
    pub fn members(&self) -> watch::Receiver<Vec<Member>> {
        self.members.clone()
    }

    /// Seals and opens with these keys from now on.
    pub async fn set_keys(&self, keys: Keys) {
        self.order(Order::Keys(keys)).await;
    }

    /// More places where members may be found, beside the seeds: the addresses of the map.
    pub async fn set_places(&self, places: impl IntoIterator<Item = SocketAddr>) {
        self.order(Order::Places(places.into_iter().collect()))
            .await;
    }

    /// Says farewell and ends: the others take this node for gone at once.
    pub async fn shutdown(mut self) {
        self.order(Order::Leave).await;
        if timeout(FAREWELL_WITHIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }

    async fn order(&self, order: Order) {
        // The task ends only with this handle; an order after that has nobody to change.
        drop(self.orders.send(order).await);
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
