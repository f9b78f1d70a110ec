//! Puts the rooms together: storage, shards, fleet, broker, edges. Start goes from the disk outwards, the end comes the
//! other way round.

mod backdrop;
mod company;
mod disk;
mod drain;
mod edges;
mod engine;
mod files;
mod link;
mod offers;
mod process;
mod residents;
mod standing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use tokio::runtime::Handle;
use umbel_actors::ports::Clock;
use umbel_cluster::link::Transport;
use umbel_http::Api;
use umbel_storage::Ledger;

use self::{
    backdrop::Backdrop,
    company::Company,
    disk::{Disk, Me, Stores},
    edges::{Edges, Inner},
    engine::Engine,
    link::Link,
    residents::Residents,
};
pub(crate) use self::{
    disk::Store,
    offers::{Offers, reloaded},
};
use crate::{
    clock::SystemClock,
    config::Config,
    datadir::{self, DataError},
    identity::Doorkeeper,
    membership,
};

/// Share of the drain in which connections are sent away; the rest is for their sessions and the disk.
const SEND_AWAY_SHARE: f64 = 0.5;

/// How long shards may take to be handed over when the node ends. An election is not much slower.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// Why a node did not start. What was opened is closed again.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder.
    #[error("data folder")]
    Data(#[from] DataError),
    /// The log.
    #[error("log")]
    Log(#[from] umbel_storage::log::OpenError),
    /// The state.
    #[error("state")]
    State(#[from] umbel_storage::state::StateError),
    /// Opening log or state failed in a way that is a defect of ours or of theirs.
    #[error("opening log and state: {0}")]
    Open(String),
    /// Whether and how this node belongs to a cluster.
    #[error("cluster: {0}")]
    Member(String),
    /// The runtime of the cluster.
    #[error("threads of the cluster")]
    Engine(#[source] std::io::Error),
    /// The link to other nodes.
    #[error("link")]
    Link(#[from] umbel_cluster::link::tcp::LinkError),
    /// Gossip.
    #[error("gossip")]
    Gossip(#[from] umbel_cluster::gossip::GossipError),
    /// The map of the cluster.
    #[error("map of the cluster")]
    Map(#[from] umbel_cluster::meta::RowError),
    /// The shards.
    #[error("shards")]
    Shards(#[from] umbel_cluster::StartError),
    /// The device actors.
    #[error("fleet")]
    Fleet(#[from] umbel_actors::StartError),
    /// Passwords.
    #[error("passwords: {0}")]
    Passwords(String),
    /// Certificates.
    #[error("certificates")]
    Certificates(#[from] umbel_pki::PkiError),
    /// TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// An MQTT listener.
    #[error("MQTT")]
    Listen(#[from] umbel_mqtt::listener::ListenError),
    /// An HTTP listener.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where a node listens.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// MQTT listeners by name.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// Our API.
    pub http: Option<SocketAddr>,
    /// The AWS data plane.
    pub aws: Option<SocketAddr>,
    /// The link to other nodes.
    pub link: Option<SocketAddr>,
    /// Gossip of other nodes.
    pub gossip: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    disk: Disk,
    company: Company,
    residents: Residents,
    edges: Edges,
    backdrop: Arc<Backdrop>,
    /// Ends last; none in a cluster of one.
    _engine: Option<Engine>,
}

impl Node {
    /// Starts everything; when it returns, every port answers.
    pub async fn start(config: &Config, metrics: PrometheusHandle) -> Result<Self, StartError> {
        let began = Instant::now();
        describe_metrics();
        let doorkeeper =
            Arc::new(Doorkeeper::new(config).map_err(|e| StartError::Passwords(e.to_string()))?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let (disk, mut company, engine) = settle(config, &clock).await?;
        let residents = Residents::move_in(config, &disk, &mut company, &clock).await?;
        let broker = Arc::clone(&residents.broker);
        let standing = company.standing(disk.shards.shards());
        let backdrop = Backdrop::new(&disk, standing, &broker, metrics);
        let operations = company.operations(&disk, &broker, residents.realm.local(), &clock);
        let backend = Api::new(
            residents.realm.as_ref().clone(),
            Arc::clone(&broker),
            Arc::clone(&clock),
            backdrop.instruments(operations),
        );
        let inner = Inner {
            doorkeeper,
            broker,
            backend: Arc::new(backend),
            stopping: backdrop.stopping(),
            clock,
        };
        let mut edges = match Edges::start(config, inner).await {
            Ok(edges) => edges,
            Err(error) => {
                backdrop.stop();
                residents.move_out(config.node.drain).await;
                company.leave().await;
                disk.close().await;
                return Err(error);
            },
        };
        edges.reached_at(company.addresses());
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (node, shards) = (company.nodes.me().0, disk.shards.shards());
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(node, shards, version, took_ms, "ready");
        Ok(Self {
            disk,
            company,
            residents,
            edges,
            backdrop,
            _engine: engine,
        })
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        self.edges.endpoints()
    }

    /// Waits until the cluster has removed this node, and tells who said so.
    pub async fn removed(&self) -> String {
        self.company.removed().await
    }

    /// This node's number.
    pub fn id(&self) -> u64 {
        self.company.nodes.me().0
    }

    /// What its doors offer: to be renewed without closing them.
    pub(crate) fn offers(&self) -> Offers {
        self.edges.offers().clone()
    }

    /// Not ready, no new connections, those that are there sent away, what is in flight finished, the disk closed.
    pub async fn shutdown(self, patience: Duration) {
        let began = Instant::now();
        self.backdrop.stop();
        self.edges
            .drain(patience.mul_f64(SEND_AWAY_SHARE), patience)
            .await;
        // The owners of tomorrow, before the actors of today stop: nobody waits for an election.
        let left = patience.saturating_sub(began.elapsed());
        self.company
            .hand_over(&self.disk, HAND_OVER_MAX.min(left))
            .await;
        self.residents
            .move_out(patience.saturating_sub(began.elapsed()))
            .await;
        // a disk that does not answer must not hold up the end: a message may come twice, which QoS 1 allows
        let left = patience.saturating_sub(began.elapsed());
        if tokio::time::timeout(left, self.backdrop.finish())
            .await
            .is_err()
        {
            tracing::warn!("what was acknowledged last may be sent again after the next start");
        }
        self.company.leave().await;
        self.disk.close().await;
    }
}

/// The disk, and who else is there.
async fn settle(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<(Disk, Company, Option<Engine>), StartError> {
    datadir::check_whole(&config.node.data_dir)?;
    let identity = membership::identity(config).map_err(StartError::Member)?;
    let me = Me::of(config, identity.as_ref());
    let stores = Stores::open(config, me.shards).await?;
    let Some(identity) = identity else {
        let disk = Disk::start(config, me, stores, None).await?;
        let company = Company::alone(me, &disk, clock.wall());
        return Ok((disk, company, None));
    };
    let engine = Engine::start().map_err(StartError::Engine)?;
    let work = Handle::current();
    let link = engine
        .run(Box::pin(Link::start(config, identity, stores.boot, work)))
        .await?;
    let transport = Arc::clone(&link.transport) as Arc<dyn Transport>;
    let disk = engine
        .run(Box::pin(Disk::start(config, me, stores, Some(transport))))
        .await?;
    let company = engine.call(|| Company::join(config, link, &disk, clock))?;
    Ok((disk, company, Some(engine)))
}

fn describe_metrics() {
    process::describe();
    standing::describe();
    offers::describe();
    umbel_storage::metrics::describe();
    umbel_cluster::metrics::describe();
    umbel_actors::metrics::describe();
    umbel_mqtt::metrics::describe();
    umbel_mqtt::broker::metrics::describe();
    umbel_http::metrics::describe();
}
