//! From sockets to streams: accept, bounds, handshakes, and the way out when the node stops.

mod accept;
mod config;
mod half_open;
mod registry;

#[cfg(test)]
mod tests;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpSocket, task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::accept::Loop;
pub use self::config::{ListenerConfig, Wire};
pub(crate) use self::{
    half_open::{Admitted, HalfOpen},
    registry::{Place, Registry},
};
use crate::{driver::Gate, edge::Edge, peer::ListenerId};

/// Connections the kernel keeps for us while a storm is being accepted.
const BACKLOG: u32 = 4_096;

/// Why a listener could not be started.
#[derive(Debug, Error)]
#[error("listener {listener} cannot listen on {address}")]
pub struct ListenError {
    /// Its name.
    pub listener: ListenerId,
    /// Where it should listen.
    pub address: SocketAddr,
    /// Why it cannot.
    #[source]
    pub source: io::Error,
}

/// The running listeners of a node and all their connections.
pub struct Listeners<G> {
    edge: Arc<Edge<G>>,
    addresses: Vec<(ListenerId, SocketAddr)>,
    loops: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<G: Gate> Listeners<G> {
    /// Binds every listener, then accepts on all of them. If one cannot be bound, none accepts.
    pub fn start(configs: Vec<ListenerConfig>, edge: &Arc<Edge<G>>) -> Result<Self, ListenError> {
        let mut bound = Vec::with_capacity(configs.len());
        for config in configs {
            let failed = |source| ListenError {
                listener: config.id.clone(),
                address: config.bind,
                source,
            };
            let listener = listen(config.bind).map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            bound.push((config, listener, address));
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (mut addresses, mut loops) = (Vec::new(), Vec::new());
        for (config, listener, address) in bound {
            let transport = config.wire.transport().label();
            tracing::info!(listener = %config.id, transport, %address, "listening");
            addresses.push((config.id.clone(), address));
            let accept = Loop {
                config,
                edge: Arc::clone(edge),
                tasks: tasks.clone(),
                stop: stop.clone(),
            };
            loops.push(tokio::spawn(accept.run(listener)));
        }
        Ok(Self {
            edge: Arc::clone(edge),
            addresses,
            loops,
            tasks,
            stop,
        })
    }

    /// Where a listener listens.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let found = self
            .addresses
            .iter()
            .find(|(id, _)| id.as_str() == listener);
        found.map(|(_, address)| *address)
    }

    /// Every listener and where it listens.
    pub fn addresses(&self) -> &[(ListenerId, SocketAddr)] {
        &self.addresses
    }

    /// Stops accepting, sends every connection away (MQTT 5: 0x8B) spread over `window`, and waits until their
    /// sessions are closed, at most until `window` and `patience` are over.
    pub async fn drain(self, window: Duration, patience: Duration) {
        self.stop.cancel();
        for accept in self.loops {
            // A loop ends when told to; one that panicked has ended, too.
            drop(accept.await);
        }
        self.edge.half_open.clear();
        let open = self.edge.open_connections();
        tracing::info!(open, window_secs = window.as_secs(), "draining connections");
        self.edge.registry.drain(window).await;
        self.tasks.close();
        if timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections did not end in time");
        }
    }
}

impl<G> fmt::Debug for Listeners<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
