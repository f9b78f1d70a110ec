//! Listeners over loopback sockets, with real bytes.

mod files;
mod tcp;
mod tls;
mod web;

use std::net::SocketAddr;

use super::{ListenerConfig, Listeners, Wire};
use crate::{limits::Limits, peer::ListenerId, testing::TestGate};

/// A listener, and what it lets in.
struct Running {
    gate: TestGate,
    listeners: Listeners<TestGate>,
    address: SocketAddr,
}

fn run(wire: Wire, proxy_protocol: bool, limits: Limits) -> Running {
    let gate = TestGate::default();
    let config = ListenerConfig {
        id: ListenerId::new("test"),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        wire,
        proxy_protocol,
    };
    let edge = gate.edge(limits);
    let listeners = Listeners::start(vec![config], &edge).expect("a free port");
    let address = listeners.address("test").expect("it was started");
    Running {
        gate,
        listeners,
        address,
    }
}
