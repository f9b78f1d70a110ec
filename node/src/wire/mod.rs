//! Puts the rooms together: storage, shards, fleet, broker, edges. Start goes from the disk outwards, the end comes the
//! other way round.

mod backdrop;
mod company;
mod disk;
mod drain;
mod edges;
mod groups;
mod link;
mod process;
mod standing;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;
use thiserror::Error;
use umbel_actors::{
    Fleet, Running,
    ports::{Clock, Outbox},
};
use umbel_cluster::link::Transport;
use umbel_core::device;
use umbel_http::Api;
use umbel_mqtt::broker::{self, Broker};
use umbel_storage::Ledger;

pub(crate) use self::disk::Store;
use self::{
    backdrop::Backdrop,
    company::Company,
    disk::{Disk, Me, Stores},
    edges::{Edges, Inner},
    link::Link,
};
use crate::{
    clock::SystemClock,
    config::{Admission, Config},
    datadir::DataError,
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
    fleet: Running,
    /// The broker reaches the fleet through this as long as the node is there.
    _shared_fleet: Arc<Fleet>,
    edges: Edges,
    backdrop: Arc<Backdrop>,
    company: Company,
}

impl Node {
    /// Starts everything; when it returns, every port answers.
    pub async fn start(config: &Config, metrics: PrometheusHandle) -> Result<Self, StartError> {
        let began = Instant::now();
        describe_metrics();
        let doorkeeper =
            Arc::new(Doorkeeper::new(config).map_err(|e| StartError::Passwords(e.to_string()))?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let (disk, mut company) = settle(config, &clock).await?;
        let ledger = Arc::clone(&disk.shards) as Arc<dyn Ledger>;
        let broker = company.broker(broker_config(config), &ledger, &clock);
        let outbox = Arc::clone(&broker) as Arc<dyn Outbox>;
        let (fleet, running) =
            Fleet::start(fleet_config(config), ledger, outbox, Arc::clone(&clock)).await?;
        let shared_fleet = Arc::new(fleet.clone());
        broker.attach(Arc::new(Arc::downgrade(&shared_fleet)));
        let backdrop = Backdrop::new(
            &disk,
            company.standing(disk.shards.shards()),
            &broker,
            metrics,
        );
        if company.is_alone() {
            recover_alone(&fleet, &broker).await?;
        } else {
            // Shards come and go: fleet and broker follow them.
            fleet.recover().await;
            broker.start();
            company.serve(&broker);
            company.drain_when_asked(config, &disk, &broker);
        }
        let operations = company.operations(&disk, &broker, &fleet, &clock);
        let backend = Api::new(
            fleet,
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
                running.shutdown(config.node.drain).await;
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
            fleet: running,
            _shared_fleet: shared_fleet,
            edges,
            backdrop,
            company,
        })
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        self.edges.endpoints()
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
        self.fleet
            .shutdown(patience.saturating_sub(began.elapsed()))
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

/// Takes up what was stored, before the first connection. In a cluster this happens shard by shard, whenever one comes.
async fn recover_alone(fleet: &Fleet, broker: &Arc<Broker>) -> Result<(), StartError> {
    let recovering = Arc::clone(broker);
    tokio::task::spawn_blocking(move || recovering.recover())
        .await
        .map_err(|panic| StartError::Open(panic.to_string()))?;
    fleet.recover().await;
    let (known, recovered) = (fleet.clone(), Arc::clone(broker));
    tokio::task::spawn_blocking(move || {
        recovered.end_orphans(|client| {
            let view = known.client(client).ok()?;
            Some(view.is_some_and(|view| view.record.session.is_some()))
        })
    })
    .await
    .map_err(|panic| StartError::Open(panic.to_string()))?;
    Ok(())
}

/// The disk, and who else is there.
async fn settle(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Disk, Company), StartError> {
    let identity = membership::identity(config).map_err(StartError::Member)?;
    let me = Me::of(config, identity.as_ref());
    let stores = Stores::open(config, me.shards).await?;
    let Some(identity) = identity else {
        let disk = Disk::start(config, me, stores, None).await?;
        let company = Company::alone(me, &disk, clock.wall());
        return Ok((disk, company));
    };
    let link = Link::start(config, identity, stores.boot).await?;
    let transport = Arc::clone(&link.transport) as Arc<dyn Transport>;
    let disk = Disk::start(config, me, stores, Some(transport)).await?;
    let company = Company::join(config, link, &disk, clock)?;
    Ok((disk, company))
}

fn describe_metrics() {
    process::describe();
    standing::describe();
    umbel_storage::metrics::describe();
    umbel_cluster::metrics::describe();
    umbel_actors::metrics::describe();
    umbel_mqtt::metrics::describe();
    broker::metrics::describe();
    umbel_http::metrics::describe();
}

fn fleet_config(config: &Config) -> umbel_actors::Config {
    let mut rules = device::Rules {
        grace: config.actors.reconnect_grace,
        ..Default::default()
    };
    rules.admission = match config.devices.admission {
        Admission::Open => device::Admission::Open,
        Admission::Listed => device::Admission::Listed,
    };
    rules.shadow.document_bytes = config.shadows.max_document_size;
    rules.shadow.depth = config.shadows.max_depth;
    umbel_actors::Config {
        sleep_after: config.actors.sleep_after.unwrap_or_default(),
        awake_max: config.actors.awake_max,
        rules,
        ..Default::default()
    }
}

fn broker_config(config: &Config) -> broker::Config {
    let mqtt = &config.mqtt;
    broker::Config {
        session_expiry_max: mqtt.session_expiry_max,
        keep_alive_max: mqtt.keep_alive_max,
        receive_maximum: mqtt.receive_maximum,
        packet_bytes_max: mqtt.max_packet_size,
        topic_alias_max: mqtt.topic_alias_maximum,
        subscriptions_max: mqtt.subscriptions_max,
        queue_messages_max: mqtt.queue_messages_max,
        queue_bytes_max: mqtt.queue_bytes_max,
        stored_messages_max: mqtt.queue_messages_max as u64,
        stored_bytes_max: mqtt.queue_bytes_max as u64,
        retained_messages_max: mqtt.retained_messages_max,
        retained_bytes_max: mqtt.retained_bytes_max as u64,
        ..Default::default()
    }
}
