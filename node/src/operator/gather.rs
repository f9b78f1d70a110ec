//! One node's part in answering operators: its own words, and those of the others, put together.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use umbel_actors::{
    Fleet,
    ports::{BoxFuture, Clock},
};
use umbel_cluster::{
    Shards,
    link::{Service, Transport},
};
use umbel_core::{
    cluster::{ClusterMap, Command},
    ids::{NodeId, ShardId},
    time::Timestamp,
};
use umbel_http::operator::{BackupStream, Cluster, Denied, Node, Operator, Shard, Token};
use umbel_mqtt::broker::Broker;
use umbel_storage::{
    Ledger,
    nodes::{Nodes, Reach},
};

use super::{
    cuts::Cuts,
    report::{CopyReport, Report, ailments},
    service::{Answer, Ask},
    views::World,
};
use crate::{backup, peers::asked};

/// How long a node may take to say how it is. An operator waits for the slowest.
const REPORT_WITHIN: Duration = Duration::from_secs(2);
/// How long a shard may take to change its owner after it was asked to.
const TRANSFER_WITHIN: Duration = Duration::from_secs(10);
const TRANSFER_LOOK: Duration = Duration::from_millis(50);

/// Where the cluster decides about itself.
pub(crate) trait Council: Send + Sync + 'static {
    /// What was decided so far, as this node knows it.
    fn map(&self) -> Arc<ClusterMap>;
    /// Decides something.
    fn command(&self, command: Command) -> BoxFuture<'_, Result<(), Denied>>;
    /// Makes a token.
    fn create_token(&self, ttl: Duration) -> BoxFuture<'_, Result<Token, Denied>>;
}

/// What operators ask of this node and, through it, of all others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Operations(pub(crate) Arc<Parts>);

/// What it takes to answer operators.
pub(crate) struct Parts {
    pub(crate) shards: Arc<Shards>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) fleet: Fleet,
    pub(crate) nodes: Arc<dyn Nodes>,
    /// None in a cluster of one.
    pub(crate) transport: Option<Arc<dyn Transport>>,
    pub(crate) council: Arc<dyn Council>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: Timestamp,
    pub(crate) cuts: Cuts,
}

impl Operations {
    /// This node in its own words.
    fn report(&self) -> Report {
        let status = self.0.shards.status().into_iter();
        let copies = status.map(|status| {
            let members = self.0.shards.members(status.shard);
            CopyReport::new(status, members)
        });
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.0.started_at,
            connections: self.0.broker.totals().connected as u64,
            copies: copies.collect(),
            ailments: ailments(self.0.shards.health()),
        }
    }

    /// Answers another node.
    pub(super) async fn answer(&self, ask: Ask) -> Result<Answer, String> {
        Ok(match ask {
            Ask::Report => Answer::Report(self.report()),
            Ask::Clients { after, limit } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                Answer::Clients(self.0.broker.clients(after.as_ref(), limit))
            },
            Ask::Client(client) => Answer::Client(self.0.broker.client(&client)),
            Ask::Subscriptions(client) => {
                Answer::Subscriptions(self.0.broker.subscriptions(&client))
            },
            Ask::Kick { client, kick } => Answer::Done(self.0.broker.kick(&client, kick)),
            Ask::SendDirect { client, message } => {
                Answer::Done(self.0.broker.send_direct(&client, *message))
            },
            Ask::Cut(shard) => Answer::Cut(self.0.cuts.take(&self.0.shards, shard).await?),
            Ask::Events { from } => Answer::Events(super::feed::answer(&self.0.fleet, from).await),
            Ask::Part { ticket, offset } => Answer::Part(self.0.cuts.part(ticket, offset).await?),
        })
    }

    /// Asks every node that can be spoken to; those that do not answer in time are not in the result.
    pub(crate) async fn ask_all(&self, ask: &Ask, within: Duration) -> BTreeMap<NodeId, Answer> {
        let mut answers = BTreeMap::new();
        let Some(transport) = &self.0.transport else {
            return answers;
        };
        let mut asking = JoinSet::new();
        for peer in self.0.nodes.peers() {
            if peer.reach == Reach::Connected {
                let answer = asked(transport, peer.node, Service::Operator, ask, within);
                asking.spawn(async move {
                    let answer: Result<Answer, _> = answer.await;
                    (peer.node, answer)
                });
            }
        }
        while let Some(done) = asking.join_next().await {
            match done {
                Ok((node, Ok(answer))) => drop(answers.insert(node, answer)),
                Ok((_, Err(error))) => tracing::debug!(%error, "an operator's question"),
                Err(panic) => tracing::error!(%panic, "a question to another node ended"),
            }
        }
        answers
    }

    /// One question to one node, this one included.
    pub(crate) async fn ask_one(
        &self,
        to: NodeId,
        ask: Ask,
        within: Duration,
    ) -> Result<Answer, String> {
        if to == self.0.nodes.me() {
            return self.answer(ask).await;
        }
        let transport = self.0.transport.as_ref();
        let transport = transport.ok_or_else(|| format!("there is no node {to}"))?;
        let answer = asked(transport, to, Service::Operator, &ask, within);
        answer
            .await
            .map_err(|error: umbel_storage::PeerError| error.to_string())
    }

    /// How many shards the cluster has.
    pub(crate) fn shard_count(&self) -> u16 {
        self.0.shards.shards()
    }

    /// The cluster's id, if it has one.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        let map = self.0.council.map();
        map.identity.map(|identity| identity.cluster.to_string())
    }

    /// Who owns a shard, as far as this node has heard.
    pub(crate) fn owner(&self, shard: ShardId) -> Option<NodeId> {
        self.0.nodes.owner(shard).map(|owner| owner.node)
    }

    async fn reports(&self) -> BTreeMap<NodeId, Report> {
        let answers = self.ask_all(&Ask::Report, REPORT_WITHIN).await;
        let reports = answers
            .into_iter()
            .filter_map(|(node, answer)| match answer {
                Answer::Report(report) => Some((node, report)),
                Answer::Clients(_)
                | Answer::Client(_)
                | Answer::Subscriptions(_)
                | Answer::Done(_)
                | Answer::Cut(_)
                | Answer::Part(_)
                | Answer::Events(_) => None,
            });
        let mut reports: BTreeMap<_, _> = reports.collect();
        reports.insert(self.0.nodes.me(), self.report());
        reports
    }

    async fn world(&self) -> World {
        World {
            me: self.0.nodes.me(),
            reports: self.reports().await,
            map: self.0.council.map(),
            peers: self.0.nodes.peers(),
        }
    }

    /// Waits until a shard has the owner it was given.
    async fn transferred(&self, shard: ShardId, to: NodeId) -> Result<(), Denied> {
        let mut changes = self.0.nodes.changes();
        let arrived = async {
            while self.0.nodes.owner(shard).map(|owner| owner.node) != Some(to) {
                // A notice may be on its way still: look again even if nothing changes.
                drop(tokio::time::timeout(TRANSFER_LOOK, changes.changed()).await);
            }
        };
        let why =
            format!("shard {shard} is not there yet; it goes on by itself when node {to} is well");
        tokio::time::timeout(TRANSFER_WITHIN, arrived)
            .await
            .map_err(|_elapsed| Denied::NoQuorum(why))
    }
}

impl Operator for Operations {
    fn cluster(&self) -> BoxFuture<'_, Cluster> {
        Box::pin(async { self.world().await.cluster() })
    }

    fn nodes(&self) -> BoxFuture<'_, Vec<Node>> {
        Box::pin(async { self.world().await.nodes() })
    }

    fn shards(&self) -> BoxFuture<'_, Vec<Shard>> {
        Box::pin(async { self.world().await.shards() })
    }

    fn set_draining(&self, node: u64, draining: bool) -> BoxFuture<'_, Result<(), Denied>> {
        let node = NodeId(node);
        self.0.council.command(if draining {
            Command::Drain { node }
        } else {
            Command::Undrain { node }
        })
    }

    fn remove(&self, node: u64, force: bool) -> BoxFuture<'_, Result<(), Denied>> {
        let node = NodeId(node);
        self.0.council.command(Command::Remove { node, force })
    }

    fn transfer(&self, shard: u16, node: u64) -> BoxFuture<'_, Result<(), Denied>> {
        let (shard, to) = (ShardId(shard), NodeId(node));
        let node = Some(to);
        Box::pin(async move {
            self.0
                .council
                .command(Command::Prefer { shard, node })
                .await?;
            self.transferred(shard, to).await
        })
    }

    fn create_token(&self, ttl: Duration) -> BoxFuture<'_, Result<Token, Denied>> {
        self.0.council.create_token(ttl)
    }

    fn backup(&self) -> BoxFuture<'_, Result<BackupStream, Denied>> {
        let now = self.0.clock.wall();
        let parts: BackupStream = backup::write::stream(self.clone(), now);
        Box::pin(std::future::ready(Ok(parts)))
    }
}
