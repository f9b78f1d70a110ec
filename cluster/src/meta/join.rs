//! How a node that knows a token becomes a node of the cluster.
//!
//! The token carries what the newcomer needs to know whom it speaks to (the fingerprint of the cluster's authority), and
//! what the cluster needs to know that it was invited (a secret, of which the cluster keeps the hash). The secret is sent
//! only after the fingerprint was checked.

use std::{fmt, future::Future, net::SocketAddr, path::Path, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bytes::Bytes;
use rand::Rng;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use umbel_core::{
    cluster::{ClusterId, ClusterMap, Profile, Secret},
    ids::NodeId,
    time::Timestamp,
};

use super::{
    certificates::{self, CertificateError},
    identity::{ClusterIdentity, IdentityError},
};
use crate::wire;

/// What every token begins with: a scanner for leaked secrets can look for it.
const PREFIX: &str = "umbel-join";
/// How long one seed may take for its answer; it may have to wait for an election.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// An invitation for one node. Shown once, when it is made; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Into which cluster.
    pub cluster: ClusterId,
    /// SHA-256 of the authority's certificate.
    pub authority: [u8; 32],
    secret: [u8; 32],
}

/// The text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this is not a join token (umbel-join.<cluster>.<fingerprint>.<secret>)")]
pub struct JoinTokenError;

impl JoinToken {
    /// A new secret for a cluster.
    pub(super) fn new(cluster: ClusterId, authority: &[u8]) -> Self {
        Self {
            cluster,
            authority: sha256(authority),
            secret: rand::rng().random(),
        }
    }

    /// What the cluster keeps of it.
    pub(super) fn hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (authority, secret) = (BASE64.encode(self.authority), BASE64.encode(self.secret));
        write!(f, "{PREFIX}.{}.{authority}.{secret}", self.cluster)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, ..)", self.cluster)
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let mut parts = text.trim().split('.');
        let mut part = || parts.next().ok_or(JoinTokenError);
        if part()? != PREFIX {
            return Err(JoinTokenError);
        }
        let cluster = part()?.parse().map_err(|_no_id| JoinTokenError)?;
        let bytes = |text: &str| -> Option<[u8; 32]> { BASE64.decode(text).ok()?.try_into().ok() };
        let authority = bytes(part()?).ok_or(JoinTokenError)?;
        let secret = bytes(part()?).ok_or(JoinTokenError)?;
        if parts.next().is_some() {
            return Err(JoinTokenError);
        }
        Ok(Self {
            cluster,
            authority,
            secret,
        })
    }
}

/// What a newcomer asks with.
#[derive(Serialize, Deserialize)]
pub(super) struct JoinRequest {
    /// The secret of its token.
    pub(super) secret: [u8; 32],
    /// Its public key (DER).
    pub(super) public: Vec<u8>,
    /// What it says of itself.
    pub(super) profile: Profile,
}

/// What it is given.
#[derive(Serialize, Deserialize)]
pub(super) struct JoinGrant {
    pub(super) node: NodeId,
    pub(super) cluster: ClusterId,
    pub(super) shards: u16,
    pub(super) authority: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) gossip_keys: Vec<(u32, Secret)>,
    pub(super) spoken_key: u32,
    pub(super) peers: Vec<(NodeId, SocketAddr)>,
}

/// Why a node did not join. Nothing was written into its data directory.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The node's own files.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A key was not made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No seed let it in; what the last one said.
    #[error("{seed}: {why}")]
    Refused {
        /// Which seed.
        seed: String,
        /// In its words, or the link's.
        why: String,
    },
    /// There is nobody to ask.
    #[error("no seed was given")]
    NoSeed,
}

/// Asks seeds to let this node in, and writes who it is from then on.
///
/// `ask` sends bytes to a seed whose certificate fits the fingerprint. The key is kept before anything is asked: if the
/// answer is lost, or this process dies, asking again with the same token gets the same node id.
pub async fn join<F, A>(
    data: &Path,
    token: &JoinToken,
    seeds: &[String],
    profile: Profile,
    ask: F,
) -> Result<ClusterIdentity, JoinError>
where
    F: Fn(String, [u8; 32], Bytes, Duration) -> A,
    A: Future<Output = Result<Bytes, String>>,
{
    if ClusterIdentity::load(data)?.is_some() {
        return Err(IdentityError::exists(data).into());
    }
    let key = super::identity::draft_key(data, &token.hash())?;
    let request = JoinRequest {
        secret: token.secret,
        public: certificates::public(&key)?,
        profile,
    };
    let body = wire::encode(&request);
    let mut last = JoinError::NoSeed;
    for seed in seeds {
        let asked = ask(seed.clone(), token.authority, body.clone(), ANSWER_WITHIN).await;
        let granted = asked.and_then(|answer| granted(token, &answer));
        match granted {
            Ok(grant) => {
                let identity = identity(grant, key);
                identity.save(data)?;
                super::identity::forget_draft(data)?;
                return Ok(identity);
            },
            Err(why) => {
                last = JoinError::Refused {
                    seed: seed.clone(),
                    why,
                }
            },
        }
    }
    Err(last)
}

fn granted(token: &JoinToken, answer: &[u8]) -> Result<JoinGrant, String> {
    let grant: JoinGrant = wire::decode(answer).map_err(|error| error.to_string())?;
    if grant.cluster != token.cluster || sha256(&grant.authority) != token.authority {
        return Err("the answer is of another cluster than the token".to_owned());
    }
    Ok(grant)
}

fn identity(grant: JoinGrant, key: Secret) -> ClusterIdentity {
    ClusterIdentity {
        cluster: grant.cluster,
        node: grant.node,
        shards: grant.shards,
        authority: grant.authority,
        certificate: grant.certificate,
        key,
        gossip_keys: grant.gossip_keys,
        spoken_key: grant.spoken_key,
        peers: grant.peers,
        founding: None,
    }
}

/// What a node that was let in is given, from the map of the node that it asked. `None` while that map is older than the
/// admission.
pub(super) fn grant(
    map: &ClusterMap,
    node: NodeId,
    public: &[u8],
    now: Timestamp,
) -> Result<Option<JoinGrant>, CertificateError> {
    let admitted = map.nodes.contains_key(&node);
    let (Some(identity), Some(authority), true) = (map.identity, &map.authority, admitted) else {
        return Ok(None);
    };
    let certificate = certificates::issue(authority, identity.cluster, node, public, now)?;
    let keys = map.gossip_keys.iter();
    let others = map.members().filter(|(id, _)| *id != node);
    Ok(Some(JoinGrant {
        node,
        cluster: identity.cluster,
        shards: identity.shards,
        authority: authority.certificate.clone(),
        certificate,
        gossip_keys: keys.map(|(id, key)| (*id, key.key.clone())).collect(),
        spoken_key: map.spoken_key(now).unwrap_or_default(),
        peers: others
            .map(|(id, node)| (id, node.profile.addresses.link))
            .collect(),
    }))
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}
