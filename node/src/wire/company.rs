//! The other nodes, or their absence: how the rooms of this node see them.

use std::sync::Arc;

use umbel_actors::ports::Clock;
use umbel_cluster::link::Transport;
use umbel_core::{ids::NodeId, time::Timestamp};
use umbel_mqtt::broker::{Broker, peers};
use umbel_storage::{Ledger, memory::OneNode, nodes::Nodes};

use super::disk::Disk;
use crate::{
    config::Config,
    operator::{self, Alone, Council, Cuts, Operations},
};

/// What a node calls itself that was never told.
const LONE_NODE: u64 = 1;

/// Everything that knows of other nodes.
pub(super) struct Company {
    /// Who is there and who owns what.
    pub(super) nodes: Arc<dyn Nodes>,
    /// The brokers of other nodes.
    pub(super) brokers: Arc<dyn peers::Peers>,
    /// None in a cluster of one.
    transport: Option<Arc<dyn Transport>>,
    council: Arc<dyn Council>,
    started_at: Timestamp,
}

impl Company {
    /// No company.
    pub(super) fn alone(config: &Config, disk: &Disk, now: Timestamp) -> Self {
        let me = NodeId(config.node.id.unwrap_or(LONE_NODE));
        let ledger = Arc::clone(&disk.shards) as Arc<dyn Ledger>;
        Self {
            nodes: Arc::new(OneNode::new(me, ledger)),
            brokers: Arc::new(peers::NoPeers),
            transport: None,
            council: Arc::new(Alone::new(me, config.cluster.shards, now)),
            started_at: now,
        }
    }

    /// What operators may ask, served to the other nodes as well.
    pub(super) fn operations(
        &self,
        disk: &Disk,
        broker: &Arc<Broker>,
        clock: &Arc<dyn Clock>,
    ) -> Operations {
        let operations = Operations(Arc::new(operator::Parts {
            shards: Arc::clone(&disk.shards),
            broker: Arc::clone(broker),
            nodes: Arc::clone(&self.nodes),
            transport: self.transport.clone(),
            council: Arc::clone(&self.council),
            clock: Arc::clone(clock),
            started_at: self.started_at,
            cuts: Cuts::default(),
        }));
        if let Some(transport) = &self.transport {
            operator::serve(transport, &operations);
        }
        operations
    }
}
