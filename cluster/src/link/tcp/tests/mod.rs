//! What only TCP can get wrong: certificates, first words, rubbish. And TCP as a world of the common suite.

mod authority;
mod doors;
mod lanes;
mod lives;
mod proxy;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use self::{authority::Authority, proxy::Net};
use super::{
    super::{Limits, Timing, suite::World},
    Phase, TcpConfig, TcpTransport,
    hello::{VERSIONS, Versions},
};

pub(super) const CLUSTER: &str = "house";
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(authority: &Authority, node: NodeId, boot: Boot) -> TcpConfig {
    let credentials = authority.node(CLUSTER, node);
    let mut config = TcpConfig::new(node, boot, ANY_PORT, CLUSTER.to_owned(), credentials);
    config.timing = super::super::suite::quick();
    config
}

async fn start(authority: &Authority, node: NodeId, boot: Boot) -> Arc<TcpTransport> {
    TcpTransport::start(config(authority, node, boot))
        .await
        .unwrap()
}

/// Tells a node where others are.
fn tell(node: &TcpTransport, others: &[(NodeId, SocketAddr)]) {
    let book: BTreeMap<NodeId, Vec<String>> = others
        .iter()
        .map(|(node, address)| (*node, vec![address.to_string()]))
        .collect();
    node.set_address_book(&book);
}

/// Two nodes that are told of each other.
fn introduce(a: &TcpTransport, b: &TcpTransport) {
    tell(a, &[(b.shared.me, b.local_addr())]);
    tell(b, &[(a.shared.me, a.local_addr())]);
}

/// Ends a node without a word.
async fn crash(node: &TcpTransport) {
    node.shared.phase.send_replace(Phase::Over);
    node.shared.phase.closed().await;
}

/// TCP as a world of the suite: every connection goes through a proxy that can be cut.
pub(in crate::link) struct OverTcp {
    authority: Authority,
    limits: Limits,
    timing: Timing,
    net: Net,
    nodes: BTreeMap<NodeId, Arc<TcpTransport>>,
}

impl World for OverTcp {
    type Node = TcpTransport;

    async fn new(limits: Limits, timing: Timing) -> Self {
        Self {
            authority: Authority::new(),
            limits,
            timing,
            net: Net::default(),
            nodes: BTreeMap::new(),
        }
    }

    async fn node(&mut self, node: NodeId, boot: Boot) -> Arc<TcpTransport> {
        let mut config = config(&self.authority, node, boot);
        config.limits = self.limits;
        config.timing = self.timing;
        let transport = TcpTransport::start(config).await.unwrap();
        self.net.listens(node, transport.local_addr());
        self.nodes.insert(node, Arc::clone(&transport));
        for (from, at) in &self.nodes {
            let mut others = Vec::new();
            for to in self.nodes.keys().filter(|to| *to != from) {
                others.push((*to, self.net.way(*from, *to).await));
            }
            tell(at, &others);
        }
        transport
    }

    async fn stop(&mut self, node: NodeId) {
        if let Some(transport) = self.nodes.remove(&node) {
            crash(&transport).await;
        }
    }

    fn cut(&mut self, from: NodeId, to: NodeId) {
        self.net.cut(from, to);
    }

    fn heal(&mut self) {
        self.net.heal();
    }
}
