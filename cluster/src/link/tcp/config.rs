//! What a transport has to know.

use std::{io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::runtime::Handle;
use umbel_core::ids::NodeId;
use umbel_storage::nodes::Boot;

use super::super::{
    Limits, Timing,
    tls::{Credentials, CredentialsError},
    vet::Vet,
};

/// What a transport has to know.
pub struct TcpConfig {
    /// This node.
    pub me: NodeId,
    /// This life of it.
    pub boot: Boot,
    /// Where it listens.
    pub bind: SocketAddr,
    /// The cluster, a DNS label.
    pub cluster_id: String,
    /// What it shows and whom it trusts.
    pub credentials: Credentials,
    /// Its release, for the logs of others.
    pub software: String,
    /// Bounds.
    pub limits: Limits,
    /// When a link is broken.
    pub timing: Timing,
    /// TLS and the first words take milliseconds; a machine under full load gets so long.
    pub handshake: Duration,
    /// Where the connections run on which devices and users are served; by default where the link is started. A runtime
    /// of their own keeps what they ask from standing before the heartbeats of the groups.
    pub work: Option<Handle>,
    /// Has a peer's disk gone back in time? By default as [`super::super::vet::Seen`] remembers.
    pub vet: Option<Vet>,
}

impl TcpConfig {
    /// With the default bounds and times.
    pub fn new(
        me: NodeId,
        boot: Boot,
        bind: SocketAddr,
        cluster_id: String,
        credentials: Credentials,
    ) -> Self {
        Self {
            me,
            boot,
            bind,
            cluster_id,
            credentials,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Limits::default(),
            timing: Timing::default(),
            handshake: Duration::from_secs(5),
            work: None,
            vet: None,
        }
    }
}

/// Why there is no transport.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The certificates do not do.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The address cannot be listened on.
    #[error("the link cannot listen on {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
