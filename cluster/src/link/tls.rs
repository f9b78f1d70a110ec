//! Who may speak between nodes: mutual TLS 1.3 under the cluster's own authority.
//!
//! A node's certificate carries two DNS names: its own ([`node_name`]) and its role ([`role_name`]). A dialler wants the
//! name of the node it looks for; the other side reads from the certificate who it is that speaks. A device's
//! certificate has neither name and is refused, whoever signed it. No session is ever resumed: each connection shows its
//! certificate.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use thiserror::Error;
use umbel_core::ids::NodeId;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

/// What nodes speak on the link's port.
pub(super) const ALPN_LINK: &[u8] = b"umbel-link/1";
/// What speaks there who wants to become a node.
pub(super) const ALPN_JOIN: &[u8] = b"umbel-join/1";

const SUFFIX: &str = "umbel.internal";

/// The DNS name in the certificate of a node.
pub fn node_name(cluster_id: &str, node: NodeId) -> String {
    format!("node-{}.{cluster_id}.{SUFFIX}", node.0)
}

/// The DNS name that every node's certificate carries, and no other.
pub fn role_name(cluster_id: &str) -> String {
    format!("role-node.{cluster_id}.{SUFFIX}")
}

/// What a node shows and whom it trusts.
pub struct Credentials {
    /// The cluster's own authority; two while it is replaced.
    pub ca: Vec<CertificateDer<'static>>,
    /// This node's certificate, and what leads from it to the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Why certificates cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// A cluster id is part of a DNS name.
    #[error("the cluster id {0:?} is not a DNS label of small letters, digits and dashes")]
    ClusterId(String),
    /// The authority or the certificate is not usable.
    #[error("the certificates of the link: {0}")]
    Tls(#[from] rustls::Error),
    /// The authority cannot be used to check others.
    #[error("the authority of the link: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
    /// This node's certificate is another's.
    #[error("this node's own certificate: {0}")]
    Own(#[from] BearerError),
}

/// Why a certificate is not that of a node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BearerError {
    /// There is none, or it is damaged.
    #[error("there is no readable certificate")]
    Unreadable,
    /// A device, a server or a user, perhaps.
    #[error("it does not carry the role of a node of cluster {0}")]
    Role(String),
    /// It has the role and no name, or several.
    #[error("it does not name one node of cluster {0}")]
    Name(String),
    /// It is a node's, but not this one's.
    #[error("it is that of node {found}, not of node {wanted}")]
    Other {
        /// Whose it is.
        found: NodeId,
        /// Whose it should be.
        wanted: NodeId,
    },
}

/// Both sides' settings.
pub(super) struct Sides {
    pub(super) client: Arc<ClientConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// For those who have no certificate yet: nothing is asked of them, and nothing is believed.
    pub(super) join: Arc<ServerConfig>,
}

impl Sides {
    /// Checks that the certificate is this node's, and makes settings of it.
    pub(super) fn new(
        credentials: &Credentials,
        cluster_id: &str,
        me: NodeId,
    ) -> Result<Self, CredentialsError> {
        check_cluster_id(cluster_id)?;
        let found = bearer(&credentials.chain, cluster_id)?;
        if found != me {
            return Err(BearerError::Other { found, wanted: me }.into());
        }
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in &credentials.ca {
            roots.add(authority.clone())?;
        }
        let roots = Arc::new(roots);
        let key = || credentials.key.clone_key();
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(credentials.chain.clone(), key())?;
        client.alpn_protocols = vec![ALPN_LINK.to_vec()];
        client.resumption = Resumption::disabled();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(credentials.chain.clone(), key())?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(no_tickets(server, ALPN_LINK)),
            join: Arc::new(join_side(provider, credentials)?),
        })
    }
}

/// Who joins knows nothing but the authority's fingerprint: it gets the authority in the chain.
fn join_side(
    provider: Arc<CryptoProvider>,
    credentials: &Credentials,
) -> Result<ServerConfig, rustls::Error> {
    let mut chain = credentials.chain.clone();
    for authority in &credentials.ca {
        if !chain.contains(authority) {
            chain.push(authority.clone());
        }
    }
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, credentials.key.clone_key())?;
    Ok(no_tickets(config, ALPN_JOIN))
}

fn no_tickets(mut config: ServerConfig, protocol: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.send_tls13_tickets = 0;
    config
}

/// What a dialler wants to be shown.
pub(super) fn wanted(cluster_id: &str, node: NodeId) -> Option<ServerName<'static>> {
    ServerName::try_from(node_name(cluster_id, node)).ok()
}

/// Whose certificate it is, once its signatures are checked.
pub(super) fn bearer(
    chain: &[CertificateDer<'_>],
    cluster_id: &str,
) -> Result<NodeId, BearerError> {
    let names = names(chain.first().ok_or(BearerError::Unreadable)?)?;
    let role = role_name(cluster_id);
    if !names.contains(&role) {
        return Err(BearerError::Role(cluster_id.to_owned()));
    }
    let mut nodes = names.iter().filter_map(|name| {
        let number = name.strip_prefix("node-")?.split('.').next()?;
        let node = NodeId(number.parse().ok()?);
        (node_name(cluster_id, node) == *name).then_some(node)
    });
    match (nodes.next(), nodes.next()) {
        (Some(node), None) => Ok(node),
        _ => Err(BearerError::Name(cluster_id.to_owned())),
    }
}

/// Whether a certificate is that of some node of some cluster.
pub(super) fn is_node(certificate: &CertificateDer<'_>) -> bool {
    names(certificate).is_ok_and(|names| names.iter().any(|name| name.starts_with("role-node.")))
}

fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, BearerError> {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return Err(BearerError::Unreadable);
    };
    let Ok(names) = parsed.subject_alternative_name() else {
        return Err(BearerError::Unreadable);
    };
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let texts = names.iter().filter_map(|name| {
        if let GeneralName::DNSName(name) = name {
            Some((*name).to_owned())
        } else {
            None
        }
    });
    Ok(texts.collect())
}

/// Whether a cluster id fits into a name.
fn check_cluster_id(cluster_id: &str) -> Result<(), CredentialsError> {
    let fits = (1..=63).contains(&cluster_id.len())
        && cluster_id
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !cluster_id.starts_with('-')
        && !cluster_id.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(CredentialsError::ClusterId(cluster_id.to_owned()))
}
