//! Who a node is in its cluster: one file in its data directory, written once by `init` or `join`.
//!
//! It holds what a node needs before it can speak to anybody: its certificate and key, the authority, the gossip keys it
//! knew last. All in one file, so that there is all of it or nothing; readable by its owner only.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rand::Rng;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use umbel_core::{
    cluster::{Authority, ClusterId, ClusterMap, Init, Profile, Secret},
    ids::NodeId,
    time::Timestamp,
};

use super::certificates::{self, CertificateError};

/// Folder below the data directory.
const FOLDER: &str = "cluster";
/// The file in it.
const FILE: &str = "identity.json";
/// The key of a node that asked to be let in and has no answer yet.
const DRAFT: &str = "joining.key";
/// Format of the file.
const FORMAT: u8 = 1;

/// Why there is no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file could not be read or written.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not one of ours, or of a newer release.
    #[error("{path}: {detail}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The node belongs to a cluster already; that is never overwritten.
    #[error(
        "{path} exists: this node belongs to a cluster already; one that was removed begins anew with an empty data folder"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A key or certificate was not made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// Who a node is in its cluster. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// Which cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// How many shards the cluster has.
    pub shards: u16,
    /// The certificate of the cluster's authority (DER).
    pub authority: Vec<u8>,
    /// This node's certificate (DER).
    pub certificate: Vec<u8>,
    /// This node's private key (PKCS #8 DER).
    pub key: Secret,
    /// The gossip keys, by number; 32 bytes each.
    pub gossip_keys: Vec<(u32, Secret)>,
    /// Which gossip key to speak with.
    pub spoken_key: u32,
    /// The other nodes when this was last written: where to begin.
    pub peers: Vec<(NodeId, SocketAddr)>,
    /// What makes the cluster, until it is made: then [`ClusterIdentity::renew`] forgets it.
    pub founding: Option<Founding>,
}

/// What only the first node has, and only until the meta group has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The private key of the authority (PKCS #8 DER).
    pub authority_key: Secret,
    /// When the cluster was made.
    pub created_at: Timestamp,
}

impl ClusterIdentity {
    /// Makes a cluster whose first node is this one. `node` is 1, or what the node was called while it was alone.
    pub fn init(
        data: &Path,
        node: NodeId,
        shards: u16,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        let path = path(data);
        if path.exists() {
            return Err(IdentityError::Exists { path });
        }
        let mut chance = rand::rng();
        let cluster = ClusterId(chance.random());
        let authority = certificates::authority(cluster, now)?;
        let key = certificates::key()?;
        let certificate = certificates::issue(&authority, cluster, node, &key.public, now)?;
        let gossip_key: [u8; 32] = chance.random();
        let identity = Self {
            cluster,
            node,
            shards,
            authority: authority.certificate,
            certificate,
            key: key.secret,
            gossip_keys: vec![(1, Secret::new(gossip_key.to_vec()))],
            spoken_key: 1,
            peers: Vec::new(),
            founding: Some(Founding {
                authority_key: authority.key,
                created_at: now,
            }),
        };
        identity.save(data)?;
        Ok(identity)
    }

    /// The identity in a data directory; `None` if its node belongs to no cluster.
    pub fn load(data: &Path) -> Result<Option<Self>, IdentityError> {
        let path = path(data);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::File { path, source }),
        };
        let identity = parse(&bytes).map_err(|detail| IdentityError::Content { path, detail })?;
        Ok(Some(identity))
    }

    /// Writes the identity, so that a crash leaves the old one or this one.
    pub fn save(&self, data: &Path) -> Result<(), IdentityError> {
        let path = path(data);
        let content = Stored::from(self);
        let text = serde_json::to_vec_pretty(&content).map_err(|error| IdentityError::Content {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        replace(&path, &text).map_err(|source| IdentityError::File { path, source })
    }

    /// The command that makes the cluster, while it is not made.
    pub fn init_command(&self, profile: &Profile) -> Option<Init> {
        let founding = self.founding.as_ref()?;
        let (_, gossip_key) = self.gossip_keys.first()?;
        Some(Init {
            cluster: self.cluster,
            shards: self.shards,
            authority: Authority {
                certificate: self.authority.clone(),
                key: founding.authority_key.clone(),
            },
            gossip_key: gossip_key.clone(),
            node: self.node,
            profile: profile.clone(),
            created_at: founding.created_at,
        })
    }

    /// Takes over from the map what the next start needs, and forgets how to make the cluster once it is made: a first
    /// node that lost its disk must not make it a second time. True if something changed and is to be saved.
    pub fn renew(&mut self, map: &ClusterMap, now: Timestamp) -> bool {
        if map.identity.map(|identity| identity.cluster) != Some(self.cluster) {
            return false;
        }
        let before = self.clone();
        self.founding = None;
        let keys = map.gossip_keys.iter();
        self.gossip_keys = keys.map(|(id, key)| (*id, key.key.clone())).collect();
        self.spoken_key = map.spoken_key(now).unwrap_or(self.spoken_key);
        let others = map.members().filter(|(id, _)| *id != self.node);
        self.peers = others
            .map(|(id, node)| (id, node.profile.addresses.link))
            .collect();
        *self != before
    }
}

impl IdentityError {
    pub(super) fn exists(data: &Path) -> Self {
        Self::Exists { path: path(data) }
    }
}

/// The key of a node that asks to be let in with this token: the one it asked with before, or a new one.
pub(super) fn draft_key(data: &Path, token: &[u8; 32]) -> Result<Secret, IdentityError> {
    let path = data.join(FOLDER).join(DRAFT);
    let failed = |source| IdentityError::File {
        path: path.clone(),
        source,
    };
    let kept = match fs::read(&path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    if let Some(key) = kept.strip_prefix(token)
        && !key.is_empty()
    {
        return Ok(Secret::new(key.to_vec()));
    }
    let key = certificates::key()?.secret;
    let content = [token.as_slice(), key.expose()].concat();
    replace(&path, &content).map_err(failed)?;
    Ok(key)
}

/// The node was let in: its key is in its identity.
pub(super) fn forget_draft(data: &Path) -> Result<(), IdentityError> {
    let path = data.join(FOLDER).join(DRAFT);
    fs::remove_file(&path).map_err(|source| IdentityError::File { path, source })
}

fn path(data: &Path) -> PathBuf {
    data.join(FOLDER).join(FILE)
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    // The folder may be new itself.
    if let Some(above) = folder.parent() {
        fs::File::open(above)?.sync_all()?;
    }
    let draft = path.with_extension("draft");
    // A draft of a crashed run may have other rights.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {},
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(folder)?.sync_all()
}

/// The content of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u8,
    cluster: String,
    node: u64,
    shards: u16,
    authority: String,
    certificate: String,
    key: String,
    gossip_keys: Vec<StoredKey>,
    spoken_key: u32,
    peers: Vec<StoredPeer>,
    founding: Option<StoredFounding>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    id: u32,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPeer {
    node: u64,
    link: SocketAddr,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFounding {
    authority_key: String,
    created_at_ms: u64,
}

impl From<&ClusterIdentity> for Stored {
    fn from(identity: &ClusterIdentity) -> Self {
        let keys = identity.gossip_keys.iter();
        let peers = identity.peers.iter();
        let founding = identity.founding.as_ref();
        Self {
            format: FORMAT,
            cluster: identity.cluster.to_string(),
            node: identity.node.0,
            shards: identity.shards,
            authority: BASE64.encode(&identity.authority),
            certificate: BASE64.encode(&identity.certificate),
            key: BASE64.encode(identity.key.expose()),
            gossip_keys: keys
                .map(|(id, key)| StoredKey {
                    id: *id,
                    key: BASE64.encode(key.expose()),
                })
                .collect(),
            spoken_key: identity.spoken_key,
            peers: peers
                .map(|(node, link)| StoredPeer {
                    node: node.0,
                    link: *link,
                })
                .collect(),
            founding: founding.map(|founding| StoredFounding {
                authority_key: BASE64.encode(founding.authority_key.expose()),
                created_at_ms: founding.created_at.millis(),
            }),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<ClusterIdentity, String> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.format != FORMAT {
        return Err(format!("has format {}, not {FORMAT}", stored.format));
    }
    let bytes = |what: &str, text: &str| {
        BASE64
            .decode(text)
            .map_err(|error| format!("{what}: {error}"))
    };
    let cluster = stored.cluster.parse::<ClusterId>();
    let mut gossip_keys = Vec::with_capacity(stored.gossip_keys.len());
    for key in &stored.gossip_keys {
        gossip_keys.push((key.id, Secret::new(bytes("gossip key", &key.key)?)));
    }
    let founding = match &stored.founding {
        Some(founding) => Some(Founding {
            authority_key: Secret::new(bytes("authority key", &founding.authority_key)?),
            created_at: Timestamp::from_millis(founding.created_at_ms),
        }),
        None => None,
    };
    let peers = stored.peers.iter();
    Ok(ClusterIdentity {
        cluster: cluster.map_err(|error| error.to_string())?,
        node: NodeId(stored.node),
        shards: stored.shards,
        authority: bytes("authority", &stored.authority)?,
        certificate: bytes("certificate", &stored.certificate)?,
        key: Secret::new(bytes("key", &stored.key)?),
        gossip_keys,
        spoken_key: stored.spoken_key,
        peers: peers.map(|peer| (NodeId(peer.node), peer.link)).collect(),
        founding,
    })
}

#[cfg(test)]
mod tests;
