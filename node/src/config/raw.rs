//! What was written: the file's sections as serde reads them. Every key has its default here and its meaning in
//! its doc, which `umbel config show` prints.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::units::{Size, Span};

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) node: Node,
    pub(super) cluster: Cluster,
    pub(super) mqtt: Mqtt,
    pub(super) shadow: Shadow,
    pub(super) actors: Actors,
    pub(super) devices: Devices,
    pub(super) storage: Storage,
    pub(super) tls: Tls,
    pub(super) http: Http,
    pub(super) aws: Aws,
    pub(super) policy: Policy,
    pub(super) log: Log,
    pub(super) listener: Vec<Listener>,
    pub(super) user: Vec<User>,
}

/// A section: its fields with their defaults, which are what an empty file means.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name { $($(#[$field_doc])* pub(super) $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

const fn seconds(n: u64) -> Span {
    Span(std::time::Duration::from_secs(n))
}

const fn kib(n: u64) -> Size {
    Size(n << 10)
}

section!(
    /// This process.
    Node {
        /// This node's number, if it is alone. In a cluster `umbel cluster init` and `join` decide it, once.
        id: Option<u64> = None,
        /// Where the log, the state and what `umbel dev` makes are kept.
        data_dir: PathBuf = PathBuf::from("/var/lib/umbel"),
        /// Longest time from SIGTERM to the end.
        drain: Span = seconds(30),
        /// Sessions sent to other nodes in a second, when an operator drains this node.
        drain_rate: u32 = 500,
    }
);

/// What a node does for its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeRole {
    /// It may vote on who belongs to the cluster and who keeps which shard.
    Voter,
    /// It keeps copies of shards and owns some.
    Shards,
    /// It takes connections of clients.
    Gateway,
}

section!(
    /// The other nodes, and how they are spoken to.
    Cluster {
        /// Number of shards; fixed when the cluster is created.
        shards: u16 = 64,
        /// Where other nodes reach this one (TCP, mutual TLS); none = a cluster of one that listens for nobody.
        bind: Option<SocketAddr> = None,
        /// Address of `bind` as others see it, if it is another one: `host:port` or `host`.
        advertise: Option<String> = None,
        /// Where gossip of other nodes arrives (UDP); none = the address and port of `bind`.
        gossip_bind: Option<SocketAddr> = None,
        /// Nodes to ask first for all others: `host:port` of their `bind`. A name may stand for many addresses.
        seeds: Vec<String> = Vec::new(),
        /// Failure domain: copies of a shard are spread over zones.
        zone: String = String::new(),
        /// What this node does: any of voter, shards, gateway.
        roles: Vec<NodeRole> = vec![NodeRole::Voter, NodeRole::Shards, NodeRole::Gateway],
        /// `host:port` that clients are pointed to when another node sends them here (MQTT 5 server reference).
        gateway_address: Option<String> = None,
        /// How often the owner of a shard says that it is there.
        heartbeat: Span = Span(std::time::Duration::from_millis(150)),
        /// A silent owner is replaced after a random time from here …
        election_min: Span = Span(std::time::Duration::from_millis(450)),
        /// … to here, once its lease is over.
        election_max: Span = Span(std::time::Duration::from_millis(900)),
        /// Entries of a shard's log after which a snapshot replaces it.
        snapshot_entries: u64 = 20_000,
        /// Bytes of a shard's log after which a snapshot replaces it: bounds what a restart may have to replay.
        snapshot_bytes: Size = kib(32 << 10),
        /// Shards that may move at the same time.
        transfers_max: usize = 4,
    }
);

section!(
    /// Limits of MQTT connections and sessions.
    Mqtt {
        /// Largest packet accepted and announced.
        max_packet_size: Size = kib(160),
        /// Most connections of this node.
        max_connections: usize = 18_000,
        /// Longest keep-alive; 0 from a client means this.
        keep_alive_max: Span = seconds(1200),
        /// Longest session expiry.
        session_expiry_max: Span = seconds(7 * 24 * 3600),
        /// QoS 1 and 2 messages a client may have unacknowledged.
        receive_maximum: u16 = 100,
        /// Topic aliases a client may use.
        topic_alias_maximum: u16 = 16,
        /// Subscriptions of one session.
        subscriptions_max: usize = 50,
        /// Messages waiting in one session.
        queue_messages_max: usize = 1000,
        /// Bytes waiting in one session.
        queue_bytes_max: Size = kib(1024),
        /// Retained messages of this node.
        retained_messages_max: usize = 1_000_000,
        /// Bytes of retained messages of this node.
        retained_bytes_max: Size = kib(256 << 10),
    }
);

section!(
    /// Limits of shadow documents (protocol.md 1.8).
    Shadow {
        /// Largest merged document: desired and reported together, minified.
        max_document_size: Size = kib(8),
        /// Deepest nesting below a section.
        max_depth: usize = 8,
    }
);

section!(
    /// Device actors.
    Actors {
        /// How long an idle actor keeps its shadow hot; `0s` = for ever.
        sleep_after: Span = seconds(30),
        /// Most actors awake at once.
        awake_max: usize = 10_000,
        /// How long the devices of a lost gateway stay `stale` before they are `offline`.
        reconnect_grace: Span = seconds(30),
    }
);

/// Which devices may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// A device record is made at the first accepted connection.
    #[default]
    Open,
    /// Only devices that were registered before.
    Listed,
}

section!(
    /// The registry.
    Devices {
        /// Which devices may connect.
        admission: Admission = Admission::Open,
    }
);

section!(
    /// Disk and cache.
    Storage {
        /// Memory the state store may use as cache.
        cache: Size = kib(64 << 10),
        /// Free space below which writes are refused, so that the disk never fills in the middle of one.
        reserve: Size = kib(64 << 10),
    }
);

section!(
    /// Certificates of the TLS listeners.
    Tls {
        /// Who signs client certificates (PEM).
        ca: Option<PathBuf> = None,
        /// This server's certificate chain (PEM).
        certificate: Option<PathBuf> = None,
        /// This server's key (PEM).
        key: Option<PathBuf> = None,
    }
);

section!(
    /// Our own API, health and metrics.
    Http {
        /// Address; none = off.
        bind: Option<SocketAddr> = Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
        /// Whether others than this machine may reach it. It asks nobody who they are: only behind something that does.
        open_to_network: bool = false,
    }
);

section!(
    /// The AWS data plane over HTTPS.
    Aws {
        /// Address; none = off.
        bind: Option<SocketAddr> = None,
    }
);

section!(
    /// Policy files, as AWS knows them, that replace the built-in ones.
    Policy {
        /// For devices.
        device: Option<PathBuf> = None,
        /// For apps.
        app: Option<PathBuf> = None,
    }
);

/// Shape of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

section!(
    /// The log on standard error.
    Log {
        /// Filter in the syntax of `RUST_LOG`.
        level: String = "info".to_owned(),
        /// Shape.
        format: LogFormat = LogFormat::Auto,
    }
);

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenerKind {
    /// MQTT on plain TCP.
    Tcp,
    /// MQTT on TLS.
    Tls,
    /// MQTT on WebSocket.
    Ws,
    /// MQTT on WebSocket on TLS.
    Wss,
}

/// How a listener tells who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// The client certificate's common name is the device, and must be the client id.
    Certificate,
    /// Many devices share a certificate; the client id is the device.
    SharedCertificate,
    /// The client id is the device, without proof. For networks that are trusted.
    ClientId,
    /// User name and password of `[[user]]`: apps.
    Password,
    /// Anybody, as an app that may do all a client may do. For development.
    Anonymous,
}

/// A door for MQTT clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// Name in logs and metrics.
    pub(super) name: String,
    /// What is spoken there.
    pub(super) kind: ListenerKind,
    /// Address.
    pub(super) bind: SocketAddr,
    /// How it tells who connects.
    pub(super) identity: Identity,
    /// Common names of the certificates that many devices share (identity `shared-certificate`). Any other certificate
    /// of the authority is one device's, and must not speak for all.
    #[serde(default)]
    pub(super) certificates: Vec<String>,
    /// Whether a load balancer sends PROXY protocol v2 first.
    #[serde(default)]
    pub(super) proxy_protocol: bool,
    /// Origins a browser may come from (WebSocket only); empty = none but its own, `localhost` = pages
    /// of this machine, `*` = all.
    #[serde(default)]
    pub(super) origins: Vec<String>,
}

/// An app that connects with a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    /// User name.
    pub(super) name: String,
    /// Argon2id hash in PHC form, from `umbel user hash`.
    pub(super) password_hash: String,
    /// Policy file; none = the app policy.
    #[serde(default)]
    pub(super) policy: Option<PathBuf>,
}
