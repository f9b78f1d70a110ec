//! The meta room of one node.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::{sync::watch, task::JoinSet};
use umbel_core::{
    cluster::{ClusterMap, Command, Init, Node, NodeState, Outcome, Profile, Rejected},
    ids::{NodeId, ShardId},
    time::Timestamp,
};
use umbel_storage::{Nodes, ReadError};

use super::{
    command::Desk,
    driver,
    groups::Groups,
    rows::RowError,
    view::{self, View},
    words::{self, Answer, Ask, Fence},
};
use crate::{
    link::{BoxFuture, Handler, Transport},
    vital::vital,
    wire,
};

/// Wall time, as the node reads it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long a node waits before it says again what it has to say at its start.
const REPORT_AGAIN: Duration = Duration::from_millis(500);

/// Settings of [`Meta`].
#[derive(Clone)]
pub struct MetaConfig {
    /// This node, as it describes itself.
    pub profile: Profile,
    /// What makes the cluster, on its first node until that was done.
    pub init: Option<Init>,
    /// Shards whose replicas may move at the same time, while this node drives.
    pub moving_max: usize,
    /// Wall time.
    pub clock: Clock,
    /// Called when this node must not go on: its map is from a newer release. A node that was removed finds that in the
    /// map, see [`Meta::watch`], and may end in good order.
    pub fatal: Arc<dyn Fn(String) + Send + Sync>,
}

impl fmt::Debug for MetaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaConfig")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// Why a command was not carried out, or is not known to be.
#[derive(Debug, Error)]
pub enum MetaError {
    /// A rule forbids it: nothing was changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Nobody leads the meta group, or nobody who does can be reached: nothing was changed.
    #[error("the meta group has no leader that can be reached")]
    NoQuorum,
    /// The leader did not answer in time: it may or may not have been done.
    #[error("the outcome is unknown")]
    Unknown,
    /// The leader could not: nothing was changed.
    #[error("{0}")]
    Failed(String),
}

/// What this node knows of the cluster, and how it changes that.
pub struct Meta {
    pub(super) inner: Arc<Inner>,
    tasks: Mutex<JoinSet<()>>,
}

pub(super) struct Inner {
    pub(super) me: NodeId,
    pub(super) groups: Arc<dyn Groups>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) nodes: Arc<dyn Nodes>,
    pub(super) view: View,
    pub(super) desk: Desk,
    pub(super) config: MetaConfig,
    /// The newest order for each group.
    pub(super) fences: Mutex<BTreeMap<ShardId, Fence>>,
}

impl Meta {
    /// Begins to follow the meta group. Returns at once: the map may be empty until this node has heard of one.
    ///
    /// [`Meta::handler`] has to be made the answer to this room's messages.
    pub fn start(
        groups: Arc<dyn Groups>,
        transport: Arc<dyn Transport>,
        nodes: Arc<dyn Nodes>,
        config: MetaConfig,
    ) -> Result<Arc<Self>, RowError> {
        let has_replica = groups.hosted().contains(&ShardId::META);
        let view = match View::read(groups.as_ref()) {
            Ok(view) => view,
            // It comes by itself, and a node that joined has none before the leader has heard of it.
            Err(RowError::Read(_)) if !has_replica => {
                tracing::info!("this node has no copy of the cluster map yet");
                View::empty()
            },
            // One that is being rebuilt.
            Err(RowError::Read(error)) => {
                tracing::info!(%error, "the cluster map cannot be read yet");
                View::empty()
            },
            Err(error) => return Err(error),
        };
        let inner = Arc::new(Inner {
            me: nodes.me(),
            groups,
            transport,
            nodes,
            view,
            desk: Desk::default(),
            config,
            fences: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let fatal = || Arc::clone(&inner.config.fatal);
        let (following, driving) = (
            follow(Arc::clone(&inner)),
            driver::drive(Arc::clone(&inner)),
        );
        tasks.spawn(vital("following the cluster map", fatal(), following));
        tasks.spawn(introduce(Arc::clone(&inner)));
        tasks.spawn(vital("the driver", fatal(), driving));
        Ok(Arc::new(Self {
            inner,
            tasks: Mutex::new(tasks),
        }))
    }

    /// What this node knows of the cluster now.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.inner.view.map()
    }

    /// What this node knows of the cluster, and word of changes.
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.inner.view.watch()
    }

    /// Resolves when this node has a map of a cluster it belongs to.
    pub async fn ready(&self) {
        let me = self.inner.me;
        let mut map = self.watch();
        let known = map.wait_for(|map| map.nodes.get(&me).is_some_and(Node::is_member));
        // The sender lives as long as this does.
        drop(known.await);
    }

    /// Has a command decided, on whichever node leads. Asks again by itself for a few seconds; a command that was decided
    /// and whose answer was lost is not decided twice.
    pub async fn command(&self, command: Command) -> Result<Outcome, MetaError> {
        self.inner.submit(command).await
    }

    /// Answers this room's messages: to be registered with the control service.
    pub fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(Answers(Arc::downgrade(&self.inner)))
    }

    /// Stops following and driving.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

struct Answers(Weak<Inner>);

impl Handler for Answers {
    fn request(&self, from: NodeId, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let inner = self.0.upgrade();
        Box::pin(async move {
            let inner = inner.ok_or_else(|| "the node stops".to_owned())?;
            let ask = wire::decode(&body).map_err(|error| error.to_string())?;
            let answer = inner.answer(from, ask).await;
            Ok(wire::encode(&answer))
        })
    }

    fn notice(&self, _from: NodeId, _body: Bytes) {}
}

impl Inner {
    async fn answer(&self, _from: NodeId, ask: Ask) -> Answer {
        match ask {
            Ask::Command(request) => self.decide(request).await,
            Ask::Observe => Answer::Observed(self.holding()),
            Ask::Order {
                fence,
                shard,
                order,
            } => self.obey(fence, shard, order).await,
        }
    }

    /// Whether this node leads the meta group.
    pub(super) fn leads(&self) -> bool {
        self.groups.term(ShardId::META).is_some()
    }

    /// Asks another node.
    pub(super) async fn ask(
        &self,
        node: NodeId,
        ask: &Ask,
        within: Duration,
    ) -> Result<Answer, umbel_storage::PeerError> {
        let frame = words::frame(ask);
        let answer = self
            .transport
            .request(node, crate::link::Service::Control, frame, within)
            .await?;
        words::answer(&answer).map_err(|error| umbel_storage::PeerError::Refused {
            node,
            why: error.to_string(),
        })
    }

    /// Takes newer rows into the view. Damage is repaired by the group; a newer release's rows cannot be.
    pub(super) fn refresh(&self) {
        match self.view.refresh(self.groups.as_ref()) {
            Ok(()) | Err(RowError::Read(ReadError::Damaged { .. })) => {},
            Err(RowError::Read(error)) => tracing::warn!(%error, "cluster map not read"),
            Err(error) => (self.config.fatal)(error.to_string()),
        }
    }
}

async fn follow(inner: Arc<Inner>) {
    loop {
        inner.refresh();
        view::changed(inner.groups.as_ref()).await;
    }
}

/// Makes the cluster if that is this node's to do, and tells it where this node is now.
async fn introduce(inner: Arc<Inner>) {
    loop {
        let map = inner.view.map();
        if said(&map, &inner) {
            return;
        }
        let command = match &inner.config.init {
            Some(init) if map.identity.is_none() => Command::Init(Box::new(init.clone())),
            // Also without a map: a node that was let in gets its copy once it has said where it is.
            _ => Command::Report {
                node: inner.me,
                addresses: inner.config.profile.addresses.clone(),
                version: inner.config.profile.version.clone(),
            },
        };
        match inner.submit(command).await {
            Ok(_) => inner.refresh(),
            Err(MetaError::NoQuorum | MetaError::Unknown) => {},
            Err(error) => tracing::warn!(%error, "the cluster does not take this node's address"),
        }
        tokio::time::sleep(REPORT_AGAIN).await;
    }
}

fn said(map: &ClusterMap, inner: &Inner) -> bool {
    let mine = &inner.config.profile;
    map.nodes.get(&inner.me).is_some_and(|node| {
        node.state != NodeState::Joining
            && node.profile.addresses == mine.addresses
            && node.profile.version == mine.version
    })
}
