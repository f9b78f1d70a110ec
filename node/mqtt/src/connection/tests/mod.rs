//! The driver over in-memory streams, in paused time.

mod flow;
mod opening;
mod order;
mod time;

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::DuplexStream, task::JoinHandle};

use super::{Serve, Stream, open};
use crate::{
    edge::Edge,
    limits::Limits,
    peer::{ListenerId, Peer, Transport},
    testing::TestGate,
};

fn peer() -> Peer {
    Peer {
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        listener: ListenerId::new("test"),
        transport: Transport::Tcp,
        certificates: None,
    }
}

/// Serves one stream.
fn serve<S: Stream>(edge: &Arc<Edge<TestGate>>, stream: S) -> JoinHandle<()> {
    let peer = peer();
    let admitted = edge
        .half_open
        .admit(Some(peer.address.ip()), edge.now())
        .expect("room for one");
    let permit = Arc::clone(&edge.connections)
        .try_acquire_owned()
        .expect("room for one");
    let opening = Box::pin(open(stream, peer, Arc::clone(edge), admitted));
    tokio::spawn(Serve::new(opening, permit))
}

/// A client, and the task that serves it.
struct Served {
    client: DuplexStream,
    gate: TestGate,
    edge: Arc<Edge<TestGate>>,
    task: JoinHandle<()>,
}

fn served() -> Served {
    served_with(Limits::default(), 1 << 20)
}

fn served_with(limits: Limits, buffer: usize) -> Served {
    let gate = TestGate::default();
    let edge = gate.edge(limits);
    let (client, server) = tokio::io::duplex(buffer);
    let task = serve(&edge, server);
    Served {
        client,
        gate,
        edge,
        task,
    }
}
