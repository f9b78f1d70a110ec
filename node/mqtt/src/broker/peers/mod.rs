//! What the brokers of a cluster say to each other, and the port through which they say it.
//!
//! The types are the wire: `node` encodes them. A variant is never removed or moved as long as an older release may be
//! spoken to; new ones go to the end.

pub mod home;
pub mod routes;

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use umbel_actors::ports::BoxFuture;
use umbel_core::ids::NodeId;
use umbel_storage::PeerError;

use super::Broker;

/// A question to the broker of another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// About messages and who wants them.
    Routes(routes::Ask),
    /// About a session whose home the other node is.
    Home(home::Ask),
}

/// Its answer. It is of the kind of the question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// About messages and who wants them.
    Routes(routes::Reply),
    /// About a session whose home the other node is.
    Home(home::Reply),
}

/// A notice to the broker of another node, lost if the link breaks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Tell {
    /// About messages and who wants them.
    Routes(routes::Tell),
    /// About a session whose home or gateway the other node is.
    Home(home::Tell),
}

/// Speaks to the brokers of other nodes. What is asked and told one node arrives in the order of the calls, as long as
/// the link holds; the answers come in any order.
pub trait Peers: Send + Sync + 'static {
    /// Asks. On its way before this returns.
    fn ask(
        &self,
        to: NodeId,
        ask: Ask,
        within: Duration,
    ) -> BoxFuture<'static, Result<Reply, PeerError>>;

    /// Tells. `Ok` means on its way.
    fn tell(&self, to: NodeId, tell: Tell) -> Result<(), PeerError>;

    /// Whether there will never be anybody to speak to: the broker then keeps nothing for others.
    fn is_alone(&self) -> bool {
        false
    }
}

/// A node that is alone has nobody to speak to.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn ask(
        &self,
        to: NodeId,
        _ask: Ask,
        _within: Duration,
    ) -> BoxFuture<'static, Result<Reply, PeerError>> {
        Box::pin(std::future::ready(Err(PeerError::NotConnected(to))))
    }

    fn tell(&self, to: NodeId, _tell: Tell) -> Result<(), PeerError> {
        Err(PeerError::NotConnected(to))
    }

    fn is_alone(&self) -> bool {
        true
    }
}

impl Broker {
    /// Answers the broker of another node. What has a place in an order takes it at the future's first poll at the
    /// latest, which has to follow at once; then the futures run side by side. An error means that nothing was done.
    pub fn serve_ask(
        self: &Arc<Self>,
        from: NodeId,
        ask: Ask,
    ) -> BoxFuture<'static, Result<Reply, String>> {
        match ask {
            Ask::Routes(ask) => {
                let answer = routes::serve_ask(self, from, ask);
                Box::pin(async move { answer.await.map(Reply::Routes) })
            },
            Ask::Home(ask) => {
                let answer = home::serve_ask(self, from, ask);
                Box::pin(async move { answer.await.map(Reply::Home) })
            },
        }
    }

    /// Takes a notice of the broker of another node.
    pub fn serve_tell(self: &Arc<Self>, from: NodeId, tell: Tell) {
        match tell {
            Tell::Routes(tell) => routes::serve_tell(self, from, tell),
            Tell::Home(tell) => home::serve_tell(self, from, tell),
        }
    }
}
