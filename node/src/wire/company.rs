//! The other nodes, or their absence: how the rooms of this node see them.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use umbel_actors::{
    Fleet, Realm,
    ports::{BoxFuture, Clock},
};
use umbel_cluster::{
    Owners,
    control::Kind,
    gossip::Gossip,
    link::{Transport, tcp::TcpTransport},
    meta::{Meta, MetaConfig, MetaError, ShardGroups},
};
use umbel_core::{
    cluster::{ClusterMap, Command, NodeState, Rejected},
    ids::{NodeId, ShardId},
    time::Timestamp,
};
use umbel_http::operator::{Denied, Token};
use umbel_mqtt::broker::{self, Broker, peers};
use umbel_storage::{Ledger, memory::OneNode, nodes::Nodes};

use super::{
    StartError,
    disk::{Disk, Me, end},
    drain::{self, Drainer},
    link::{Follower, Link},
    standing::Standing,
};
use crate::{
    config::Config,
    operator::{self, Alone, Council, Cuts, Operations},
    peers::{Brokers, FleetDoor, Fleets, serve_broker},
};

/// Everything that knows of other nodes.
pub(super) struct Company {
    /// Who is there and who owns what.
    pub(super) nodes: Arc<dyn Nodes>,
    council: Arc<dyn Council>,
    started_at: Timestamp,
    /// Where other nodes reach this node's fleet.
    fleet_door: Option<FleetDoor>,
    /// None in a cluster of one.
    linked: Option<Linked>,
}

/// What runs only in company.
struct Linked {
    transport: Arc<TcpTransport>,
    gossip: Arc<Gossip>,
    meta: Arc<Meta>,
    follower: JoinHandle<()>,
    drainer: Option<JoinHandle<()>>,
}

impl Company {
    /// No company.
    pub(super) fn alone(me: Me, disk: &Disk, now: Timestamp) -> Self {
        let ledger = Arc::clone(&disk.shards) as Arc<dyn Ledger>;
        let boot = disk.shards.boot();
        Self {
            nodes: Arc::new(OneNode::with_boot(me.node, boot, ledger)),
            council: Arc::new(Alone::new(me.node, me.shards, now)),
            started_at: now,
            fleet_door: None,
            linked: None,
        }
    }

    /// Takes part in the cluster.
    pub(super) fn join(
        config: &Config,
        link: Link,
        disk: &Disk,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let transport = Arc::clone(&link.transport) as Arc<dyn Transport>;
        let owners = Owners::start(
            Arc::clone(&disk.shards),
            Arc::clone(&transport),
            &link.control,
        );
        let nodes = owners as Arc<dyn Nodes>;
        let wall = Arc::clone(clock);
        let meta = Meta::start(
            Arc::new(ShardGroups(Arc::clone(&disk.shards))),
            transport,
            Arc::clone(&nodes),
            MetaConfig {
                init: link.identity.init_command(&link.profile),
                profile: link.profile.clone(),
                moving_max: config.cluster.transfers_max,
                clock: Arc::new(move || wall.wall()),
                fatal: Arc::new(|why: String| end(&why)),
            },
        )?;
        link.control.register(Kind::Meta, meta.handler());
        link.transport.serve_join(meta.join_desk());
        let gossip = Arc::new(link.gossip);
        let follower = Follower {
            meta: Arc::clone(&meta),
            transport: Arc::clone(&link.transport),
            gossip: Arc::clone(&gossip),
            identity: link.identity,
            profile: link.profile,
            is_introduced: false,
            data: config.node.data_dir.clone(),
            clock: Arc::clone(clock),
        };
        Ok(Self {
            nodes,
            council: Arc::new(OfMeta {
                meta: Arc::clone(&meta),
                clock: Arc::clone(clock),
            }),
            started_at: clock.wall(),
            fleet_door: None,
            linked: Some(Linked {
                transport: link.transport,
                gossip,
                meta,
                follower: follower.start(),
                drainer: None,
            }),
        })
    }

    fn transport(&self) -> Option<Arc<dyn Transport>> {
        let linked = self.linked.as_ref()?;
        Some(Arc::clone(&linked.transport) as Arc<dyn Transport>)
    }

    /// Whether this node has others.
    pub(super) fn is_alone(&self) -> bool {
        self.linked.is_none()
    }

    /// How this node stands among the others.
    pub(super) fn standing(&self, shards: u16) -> Standing {
        Standing {
            nodes: Arc::clone(&self.nodes),
            council: Arc::clone(&self.council),
            shards,
            is_alone: self.is_alone(),
        }
    }

    /// A broker that knows this company.
    pub(super) fn broker(
        &self,
        config: broker::Config,
        ledger: &Arc<dyn Ledger>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Broker> {
        let (ledger, clock) = (Arc::clone(ledger), Arc::clone(clock));
        let nodes = Arc::clone(&self.nodes);
        match self.transport() {
            Some(transport) => {
                Broker::new(config, ledger, clock, nodes, Arc::new(Brokers(transport)))
            },
            None => Broker::new(config, ledger, clock, nodes, Arc::new(peers::NoPeers)),
        }
    }

    /// How the fleets of other nodes are reached.
    pub(super) fn fleets(&self) -> Arc<dyn umbel_actors::ports::Peers> {
        match self.transport() {
            Some(transport) => Arc::new(Fleets(transport)),
            None => Arc::new(umbel_actors::ports::NoPeers),
        }
    }

    /// Lets the other nodes speak to this node's broker and fleet, and empties it when an operator asks for that.
    pub(super) fn serve(
        &mut self,
        config: &Config,
        disk: &Disk,
        broker: &Arc<Broker>,
        realm: &Realm,
    ) {
        let Some(transport) = self.transport() else {
            return;
        };
        serve_broker(&transport, broker);
        self.fleet_door = Some(FleetDoor::open(&transport, realm.clone()));
        self.drain_when_asked(config, disk, broker);
    }

    /// What operators may ask, served to the other nodes as well.
    pub(super) fn operations(
        &self,
        disk: &Disk,
        broker: &Arc<Broker>,
        fleet: &Fleet,
        clock: &Arc<dyn Clock>,
    ) -> Operations {
        let operations = Operations(Arc::new(operator::Parts {
            shards: Arc::clone(&disk.shards),
            broker: Arc::clone(broker),
            fleet: fleet.clone(),
            nodes: Arc::clone(&self.nodes),
            transport: self.transport(),
            council: Arc::clone(&self.council),
            clock: Arc::clone(clock),
            started_at: self.started_at,
            cuts: Cuts::default(),
        }));
        if let Some(transport) = self.transport() {
            operator::serve(&transport, &operations);
        }
        operations
    }

    /// Sends clients to other nodes as soon as an operator empties this one.
    fn drain_when_asked(&mut self, config: &Config, disk: &Disk, broker: &Arc<Broker>) {
        let Some(linked) = &mut self.linked else {
            return;
        };
        let drainer = Drainer {
            meta: Arc::clone(&linked.meta),
            nodes: Arc::clone(&self.nodes),
            shards: Arc::clone(&disk.shards),
            broker: Arc::clone(broker),
            rate: config.node.drain_rate,
        };
        linked.drainer = Some(drainer.start());
    }

    /// Waits until this node was removed from the cluster: its own map says so, or a node that turns it away. It never
    /// takes part again. Says from whom it knows.
    pub(super) async fn removed(&self) -> String {
        let Some(linked) = &self.linked else {
            return std::future::pending().await;
        };
        let me = self.nodes.me();
        let (mut map, mut told) = (linked.meta.watch(), linked.transport.told_removed());
        tokio::select! {
            Ok(_) = map.wait_for(|map| map.is_removed(me)) => "the map of the cluster".to_owned(),
            Ok(peer) = told.wait_for(Option::is_some) => {
                peer.map_or_else(String::new, |peer| format!("node {peer}"))
            },
            // Both end with the node.
            else => std::future::pending().await,
        }
    }

    /// Gives the shards of this node to others. Nobody else has them in a cluster of one.
    pub(super) async fn hand_over(&self, disk: &Disk, within: Duration) {
        if let Some(linked) = &self.linked {
            // From here on nothing is to come back.
            linked.meta.shutdown().await;
            drain::hand_over(&disk.shards, &self.nodes, within).await;
        }
    }

    /// Where this node is reached by others: link and gossip.
    pub(super) fn addresses(&self) -> Option<(std::net::SocketAddr, std::net::SocketAddr)> {
        let linked = self.linked.as_ref()?;
        Some((linked.transport.local_addr(), linked.gossip.local_addr()))
    }

    /// Says farewell. The shards stop afterwards, so that the others do not wait for this node in between.
    pub(super) async fn leave(self) {
        if let Some(door) = &self.fleet_door {
            door.close();
        }
        let Some(linked) = self.linked else { return };
        linked.follower.abort();
        if let Some(drainer) = linked.drainer {
            drainer.abort();
        }
        linked.meta.shutdown().await;
        // The follower held it, and was just aborted.
        drop(linked.follower.await);
        if let Ok(gossip) = Arc::try_unwrap(linked.gossip) {
            gossip.shutdown().await;
        }
        linked.transport.shutdown().await;
    }
}

/// The council of a cluster: its meta group.
struct OfMeta {
    meta: Arc<Meta>,
    clock: Arc<dyn Clock>,
}

impl Council for OfMeta {
    fn map(&self) -> Arc<ClusterMap> {
        self.meta.map()
    }

    fn command(&self, command: Command) -> BoxFuture<'_, Result<(), Denied>> {
        Box::pin(async move {
            let subject = Subject::of(&command);
            let done = self.meta.command(command).await;
            done.map(|_outcome| ())
                .map_err(|error| subject.denied(error))
        })
    }

    fn create_token(&self, ttl: Duration) -> BoxFuture<'_, Result<Token, Denied>> {
        Box::pin(async move {
            let made = self.meta.create_token(ttl).await;
            made.map_err(denied).map(|token| Token {
                token: token.to_string(),
                expires_at: (self.clock.wall() + ttl).into(),
            })
        })
    }
}

/// What a refusal is about, for the words that tell an operator what to do instead.
enum Subject {
    Remove(NodeId),
    Prefer(ShardId, NodeId),
    Other,
}

impl Subject {
    #[expect(clippy::wildcard_enum_match_arm, reason = "most refusals say enough")]
    fn of(command: &Command) -> Self {
        match command {
            Command::Remove { node, .. } => Self::Remove(*node),
            Command::Prefer {
                shard,
                node: Some(node),
            } => Self::Prefer(*shard, *node),
            _ => Self::Other,
        }
    }

    fn denied(&self, error: MetaError) -> Denied {
        match (self, &error) {
            (
                Self::Remove(node),
                MetaError::Rejected(Rejected::NodeState {
                    state: NodeState::Active | NodeState::Draining,
                    ..
                }),
            ) => Denied::Conflict(format!(
                "{error}: `umbel ctl drain {node} --wait` comes first; a node that is lost is removed with --force"
            )),
            (Self::Prefer(shard, node), MetaError::Rejected(Rejected::Invalid { .. })) => {
                Denied::Conflict(format!(
                    "node {node} keeps no copy of shard {shard}; `umbel ctl shards` shows who does"
                ))
            },
            _ => denied(error),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
fn denied(error: MetaError) -> Denied {
    let why = error.to_string();
    match error {
        MetaError::Rejected(Rejected::UnknownNode(_) | Rejected::UnknownShard(_)) => {
            Denied::NotFound(why)
        },
        MetaError::Rejected(_) => Denied::Conflict(why),
        MetaError::NoQuorum => Denied::NoQuorum(
            "no majority of the cluster answers, so nothing can be decided; `umbel ctl nodes` shows who is down"
                .to_owned(),
        ),
        MetaError::Unknown => Denied::NoQuorum(
            "nobody said in time whether it is done; look before you ask again".to_owned(),
        ),
        MetaError::Failed(_) => {
            tracing::warn!(%why, "the cluster could not decide");
            Denied::Internal(why)
        },
    }
}
