//! The broker of one node: sessions, subscriptions, retained messages, and the way of a message between them.
//!
//! Input enters by [`Broker::connect`] (a client), [`Broker::publish_external`] (HTTP) and the
//! [`Outbox`](umbel_actors::ports::Outbox) the fleet was given (shadow answers, wills, lifecycle events). What was
//! acknowledged is in the shard of its client or topic; what is in memory can be rebuilt from there by
//! [`Broker::recover`]. Wills, epochs and session expiry are the fleet's business.

mod accept;
mod admin;
mod backfill;
mod config;
mod connect;
mod delivery;
mod direct;
mod durable;
mod fleet;
mod hand_over;
mod home;
mod join;
mod mailbox;
pub mod metrics;
mod outbound;
mod outbox;
pub mod peers;
mod publish;
mod realm;
mod recover;
mod retained;
mod retained_view;
mod router;
mod routes;
mod rows;
mod sessions;
mod subscribe;
#[cfg(test)]
mod tests;
mod ticket;
mod window;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use umbel_actors::{TakeOvers, ports::Clock};
use umbel_core::{ids::NodeId, time::Timestamp};
use umbel_storage::{Ledger, Nodes, memory::OneNode};

pub use admin::{ClientView, ConnectionView, Kick, PublishRefused, SubscriptionView};
pub use config::Config;
pub(crate) use delivery::{Delivery as Queued, packet_id};
pub use fleet::{End, FleetError, FleetPort, Known, Opened, Pulse};
pub(crate) use mailbox::{Eviction, Inbound, Mailbox, Options, State};
pub(crate) use metrics::Drop;
pub(crate) use outbound::{Acknowledged, Outbound};
pub use peers::{NoPeers, Peers};
pub use recover::Recovered;
pub use retained_view::{RetainedPage, RetainedUnavailable};
pub(crate) use subscribe::Asked;
pub(crate) use ticket::{Outcome, Pending, Ticket};
pub(crate) use window::Verdicts;

/// See the module.
pub struct Broker {
    config: Config,
    bounds: delivery::Bounds,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    nodes: Arc<dyn Nodes>,
    peers: Arc<dyn Peers>,
    fleet: OnceLock<Arc<dyn FleetPort>>,
    /// What connections of this node have of their sessions.
    sessions: sessions::Sessions,
    /// The lasting parts of sessions whose clients' shards this node owns.
    homes: home::Homes,
    windows: window::Windows,
    router: router::Router,
    retained: retained::Retained,
    deletions: durable::Deletions,
    take_overs: TakeOvers,
    /// `None` for a broker that is alone.
    routes: Option<routes::Routes>,
    /// Where clients that are sent away may go.
    other_servers: parking_lot::Mutex<Vec<String>>,
    meters: metrics::Meters,
    /// For callers that only have a reference.
    this: Weak<Self>,
}

impl Broker {
    /// A broker without sessions. It serves once a fleet is [attached](Self::attach) and, after a restart, what storage
    /// holds is [recovered](Self::recover).
    ///
    /// `nodes` says who owns what and who can be spoken to, `peers` speaks to them.
    pub fn new(
        config: Config,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        nodes: Arc<dyn Nodes>,
        peers: Arc<dyn Peers>,
    ) -> Arc<Self> {
        let routes = (!peers.is_alone())
            .then(|| routes::Routes::new(nodes.me(), nodes.boot(), ledger.shards()));
        let quota = retained::Quota {
            messages: config.retained_messages_max,
            bytes: config.retained_bytes_max,
        };
        let shards = ledger.shards();
        Arc::new_cyclic(|this| Self {
            bounds: config.bounds(),
            retained: retained::Retained::new(Arc::clone(&ledger), quota),
            config,
            ledger,
            clock,
            nodes,
            peers,
            routes,
            fleet: OnceLock::new(),
            sessions: sessions::Sessions::default(),
            homes: home::Homes::new(shards),
            windows: window::Windows::default(),
            router: router::Router::default(),
            deletions: durable::Deletions::default(),
            take_overs: TakeOvers::default(),
            other_servers: parking_lot::Mutex::default(),
            meters: metrics::Meters::new(),
            this: Weak::clone(this),
        })
    }

    /// The broker of a node that is alone: it owns what its ledger says it owns.
    pub fn alone(config: Config, ledger: Arc<dyn Ledger>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let nodes = OneNode::new(NodeId(1), Arc::clone(&ledger));
        Self::new(config, ledger, clock, Arc::new(nodes), Arc::new(NoPeers))
    }

    /// Gives the broker its fleet. Only the first call counts.
    pub fn attach(&self, fleet: Arc<dyn FleetPort>) {
        if self.fleet.set(fleet).is_err() {
            tracing::warn!("a fleet is attached already");
        }
    }

    /// Follows the cluster from here on: which shards come to this node and go, and who can be spoken to. Once, when the
    /// fleet is attached and before the first connection. A node that is alone [recovers](Self::recover) instead.
    pub fn start(self: &Arc<Self>) {
        self.start_routes();
        self.start_home();
    }

    /// What is allowed.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether there are no other nodes for clients to go to.
    pub(crate) const fn is_alone(&self) -> bool {
        self.routes.is_none()
    }

    pub(crate) const fn meters(&self) -> &metrics::Meters {
        &self.meters
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}
