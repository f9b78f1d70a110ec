//! From what was written to what will be used: every value checked, every file it names read.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use tracing_subscriber::{EnvFilter, filter::LevelFilter};
use umbel_core::policy::Policy;

use super::{
    ConfigError,
    cluster::{self, Cluster},
    raw::{self, Admission, Identity, ListenerKind, LogFormat, NodeRole, Raw},
};

/// Everything the node needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process.
    pub node: Node,
    /// The other nodes.
    pub cluster: Cluster,
    /// MQTT limits.
    pub mqtt: Mqtt,
    /// Shadow limits.
    pub shadows: Shadows,
    /// Device actors.
    pub actors: Actors,
    /// Registry.
    pub devices: Devices,
    /// Disk.
    pub storage: Storage,
    /// Certificates, if any listener needs them.
    pub tls: Option<Tls>,
    /// Address of our API.
    pub http: Option<Http>,
    /// The AWS data plane.
    pub aws: Option<Aws>,
    /// Policies by role.
    pub policies: Policies,
    /// Log.
    pub log: Log,
    /// MQTT listeners.
    pub listeners: Vec<Listener>,
    /// Apps with passwords.
    pub users: Vec<User>,
}

impl Config {
    /// Whether clients are to connect and nowhere can.
    pub fn is_deaf(&self) -> bool {
        self.listeners.is_empty() && self.cluster.roles.contains(&NodeRole::Gateway)
    }
}

/// See `[node]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Node {
    pub id: Option<u64>,
    pub data_dir: PathBuf,
    pub drain: Duration,
    pub drain_rate: u32,
}

/// See `[mqtt]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Mqtt {
    pub max_packet_size: u32,
    pub max_connections: usize,
    pub keep_alive_max: Duration,
    pub session_expiry_max: Duration,
    pub receive_maximum: u16,
    pub topic_alias_maximum: u16,
    pub subscriptions_max: usize,
    pub queue_messages_max: usize,
    pub queue_bytes_max: usize,
    pub retained_messages_max: usize,
    pub retained_bytes_max: usize,
}

/// See `[shadow]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Shadows {
    pub max_document_size: usize,
    pub max_depth: usize,
}

/// See `[actors]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Actors {
    pub sleep_after: Option<Duration>,
    pub awake_max: usize,
    pub reconnect_grace: Duration,
}

/// See `[devices]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Devices {
    pub admission: Admission,
}

/// See `[storage]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Storage {
    pub cache: u64,
    pub reserve: u64,
}

/// See `[tls]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Tls {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// See `[http]`.
#[derive(Clone, Copy, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Http {
    pub bind: SocketAddr,
    pub open_to_network: bool,
}

/// See `[aws]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Aws {
    pub bind: SocketAddr,
}

/// The policy of each role.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Devices.
    pub device: Policy,
    /// Apps with a password.
    pub app: Policy,
}

/// See `[log]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// See `[[listener]]`.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the keys are documented where they are written: raw.rs"
)]
pub struct Listener {
    pub name: String,
    pub kind: ListenerKind,
    pub bind: SocketAddr,
    pub identity: Identity,
    pub certificates: Vec<String>,
    pub proxy_protocol: bool,
    pub origins: Vec<String>,
}

/// See `[[user]]`.
#[derive(Clone, Debug)]
pub struct User {
    /// User name.
    pub name: String,
    /// Argon2id hash in PHC form.
    pub password_hash: String,
    /// What the user may do.
    pub policy: Policy,
}

pub(super) fn wrong(key: impl Into<String>, detail: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        place: String::new(), // the loader knows
        key: key.into(),
        detail: detail.into(),
    }
}

pub(super) fn resolve(raw: &Raw) -> Result<Config, ConfigError> {
    let policies = policies(&raw.policy)?;
    Ok(Config {
        node: node(&raw.node)?,
        cluster: cluster::resolve(&raw.cluster)?,
        mqtt: mqtt(&raw.mqtt)?,
        shadows: Shadows {
            max_document_size: size("shadow.max_document_size", raw.shadow.max_document_size.0)?,
            max_depth: positive("shadow.max_depth", raw.shadow.max_depth)?,
        },
        actors: Actors {
            sleep_after: Some(raw.actors.sleep_after.0).filter(|span| !span.is_zero()),
            awake_max: positive("actors.awake_max", raw.actors.awake_max)?,
            reconnect_grace: raw.actors.reconnect_grace.0,
        },
        devices: Devices {
            admission: raw.devices.admission,
        },
        storage: Storage {
            cache: raw.storage.cache.0,
            reserve: raw.storage.reserve.0,
        },
        tls: tls(raw)?,
        http: http(&raw.http)?,
        aws: raw.aws.bind.map(|bind| Aws { bind }),
        users: users(&raw.user, &policies)?,
        policies,
        log: log(&raw.log)?,
        listeners: listeners(&raw.listener)?,
    })
}

fn log(raw: &raw::Log) -> Result<Log, ConfigError> {
    let bad = |detail: String| wrong("log.level", detail);
    EnvFilter::try_new(&raw.level).map_err(|e| bad(e.to_string()))?;
    // A lone word that is no level would be taken for the only module that may speak.
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let mut words = raw.level.split(',').map(str::trim);
    if let Some(word) = words.find(|word| !word.contains(['=', ':', '[', '_']) && !is_level(word)) {
        return Err(bad(format!(
            "`{word}` is no level; write off, error, warn, info, debug or trace, or module=level"
        )));
    }
    Ok(Log {
        level: raw.level.clone(),
        format: raw.format,
    })
}

/// The API has no authentication of its own.
fn http(raw: &raw::Http) -> Result<Option<Http>, ConfigError> {
    let is_open = raw.bind.is_some_and(|bind| !bind.ip().is_loopback());
    if is_open && !raw.open_to_network {
        return Err(wrong(
            "http.bind",
            "the API asks nobody who they are and may be reached from loopback only; behind something that asks, say \
             `open_to_network = true`",
        ));
    }
    Ok(raw.bind.map(|bind| Http {
        bind,
        open_to_network: raw.open_to_network,
    }))
}

fn node(raw: &raw::Node) -> Result<Node, ConfigError> {
    Ok(Node {
        id: raw.id.map(|id| positive("node.id", id)).transpose()?,
        data_dir: raw.data_dir.clone(),
        drain: raw.drain.0,
        drain_rate: positive("node.drain_rate", raw.drain_rate)?,
    })
}

fn mqtt(raw: &raw::Mqtt) -> Result<Mqtt, ConfigError> {
    let max_packet_size = u32::try_from(raw.max_packet_size.0)
        .ok()
        .filter(|bytes| (1024..=256 << 20).contains(bytes))
        .ok_or_else(|| wrong("mqtt.max_packet_size", "must be from 1KiB to 256MiB"))?;
    Ok(Mqtt {
        max_packet_size,
        max_connections: positive("mqtt.max_connections", raw.max_connections)?,
        keep_alive_max: raw.keep_alive_max.0,
        session_expiry_max: raw.session_expiry_max.0,
        receive_maximum: positive("mqtt.receive_maximum", raw.receive_maximum)?,
        topic_alias_maximum: raw.topic_alias_maximum,
        subscriptions_max: positive("mqtt.subscriptions_max", raw.subscriptions_max)?,
        queue_messages_max: positive("mqtt.queue_messages_max", raw.queue_messages_max)?,
        queue_bytes_max: size("mqtt.queue_bytes_max", raw.queue_bytes_max.0)?,
        retained_messages_max: raw.retained_messages_max,
        retained_bytes_max: size("mqtt.retained_bytes_max", raw.retained_bytes_max.0)?,
    })
}

pub(super) fn positive<N: Default + PartialEq>(key: &str, number: N) -> Result<N, ConfigError> {
    if number == N::default() {
        Err(wrong(key, "must not be 0"))
    } else {
        Ok(number)
    }
}

fn size(key: &str, bytes: u64) -> Result<usize, ConfigError> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    positive(key, bytes)
}

fn tls(raw: &Raw) -> Result<Option<Tls>, ConfigError> {
    let secure = |kind| matches!(kind, ListenerKind::Tls | ListenerKind::Wss);
    let wanted = raw.listener.iter().any(|l| secure(l.kind)) || raw.aws.bind.is_some();
    if !wanted {
        return Ok(None);
    }
    let file = |key: &str, path: &Option<PathBuf>| {
        let path = path.clone().ok_or_else(|| {
            wrong(
                key,
                "a TLS listener needs it; `umbel ca init` and `umbel ca server` make one",
            )
        })?;
        if path.is_file() {
            Ok(path)
        } else {
            Err(wrong(key, format!("{} is not a file", path.display())))
        }
    };
    let tls = Tls {
        ca: file("tls.ca", &raw.tls.ca)?,
        certificate: file("tls.certificate", &raw.tls.certificate)?,
        key: file("tls.key", &raw.tls.key)?,
    };
    let unreadable = |key: &'static str| move |e: umbel_pki::PkiError| wrong(key, e.to_string());
    umbel_pki::load_certificates(&tls.ca).map_err(unreadable("tls.ca"))?;
    umbel_pki::load_certificates(&tls.certificate).map_err(unreadable("tls.certificate"))?;
    umbel_pki::load_key(&tls.key).map_err(unreadable("tls.key"))?;
    Ok(Some(tls))
}

fn policies(raw: &raw::Policy) -> Result<Policies, ConfigError> {
    let or_default = |key: &str, path: &Option<PathBuf>, default: fn() -> Policy| match path {
        Some(path) => policy_file(key, path),
        None => Ok(default()),
    };
    Ok(Policies {
        device: or_default("policy.device", &raw.device, Policy::device_default)?,
        app: or_default("policy.app", &raw.app, Policy::app_default)?,
    })
}

fn policy_file(key: &str, path: &PathBuf) -> Result<Policy, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| wrong(key, format!("{}: {e}", path.display())))?;
    Policy::parse(&text).map_err(|e| wrong(key, format!("{}: {e}", path.display())))
}

fn users(raw: &[raw::User], policies: &Policies) -> Result<Vec<User>, ConfigError> {
    let mut seen = BTreeSet::new();
    raw.iter()
        .map(|user| {
            let key = format!("user `{}`", user.name);
            if !seen.insert(&user.name) {
                return Err(wrong(key, "is there twice"));
            }
            if argon2::PasswordHash::new(&user.password_hash).is_err() {
                return Err(wrong(
                    key,
                    "password_hash is no PHC string; `umbel user hash` makes one",
                ));
            }
            let policy = match &user.policy {
                Some(path) => policy_file(&key, path)?,
                None => policies.app.clone(),
            };
            let password_hash = user.password_hash.clone();
            Ok(User {
                name: user.name.clone(),
                password_hash,
                policy,
            })
        })
        .collect()
}

fn listeners(raw: &[raw::Listener]) -> Result<Vec<Listener>, ConfigError> {
    let mut seen = BTreeSet::new();
    raw.iter()
        .map(|listener| {
            let key = format!("listener `{}`", listener.name);
            if !seen.insert(&listener.name) {
                return Err(wrong(key, "is there twice"));
            }
            let secure = matches!(listener.kind, ListenerKind::Tls | ListenerKind::Wss);
            let needs_tls = matches!(
                listener.identity,
                Identity::Certificate | Identity::SharedCertificate
            );
            if needs_tls && !secure {
                return Err(wrong(
                    key,
                    "identity by certificate needs kind = \"tls\" or \"wss\"",
                ));
            }
            let is_shared = listener.identity == Identity::SharedCertificate;
            if is_shared == listener.certificates.is_empty() {
                return Err(wrong(
                    key,
                    "`certificates` names the shared certificates, for identity `shared-certificate` and no other: \
                     a device's own certificate must not speak for every device",
                ));
            }
            let unproven = matches!(listener.identity, Identity::ClientId | Identity::Anonymous);
            if unproven && !listener.bind.ip().is_loopback() {
                return Err(wrong(
                    key,
                    "clients without proof of identity may come from loopback only",
                ));
            }
            Ok(Listener {
                name: listener.name.clone(),
                kind: listener.kind,
                bind: listener.bind,
                identity: listener.identity,
                certificates: listener.certificates.clone(),
                proxy_protocol: listener.proxy_protocol,
                origins: listener.origins.clone(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        let raw: Raw = toml::from_str(text).expect("known keys");
        resolve(&raw).err().map(|error| error.to_string())
    }

    #[test]
    fn the_api_is_not_opened_to_the_network_by_accident() {
        let refused = refusal("[http]\nbind = \"0.0.0.0:8080\"").expect("refused");
        assert!(refused.starts_with("http.bind: "), "{refused}");
        let said = "[http]\nbind = \"0.0.0.0:8080\"\nopen_to_network = true";
        assert_eq!(refusal(said), None);
        assert_eq!(refusal("[http]\nbind = \"[::1]:8080\""), None);
    }

    #[test]
    fn a_listener_for_shared_certificates_says_which_those_are() {
        let listener = |rest: &str| {
            let text = format!(
                "[[listener]]\nname = \"l\"\nkind = \"tls\"\nbind = \"0.0.0.0:8883\"\n{rest}"
            );
            let raw: Raw = toml::from_str(&text).expect("known keys");
            listeners(&raw.listener).map(|_| ())
        };
        assert!(listener("identity = \"shared-certificate\"").is_err());
        let named = "identity = \"shared-certificate\"\ncertificates = [\"cameras\"]";
        assert!(listener(named).is_ok());
        let pointless = "identity = \"certificate\"\ncertificates = [\"cameras\"]";
        assert!(listener(pointless).is_err());
    }
}
