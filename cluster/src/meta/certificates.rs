//! Certificates of nodes, and the authority that signs them.
//!
//! The authority's key is a row of the meta group: every node may let another one in, as long as the group agrees.

use std::time::Duration;

use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use time::OffsetDateTime;
use umbel_core::{
    cluster::{Authority, ClusterId, Secret},
    ids::NodeId,
    time::Timestamp,
};

/// Clocks of nodes differ: a fresh certificate must not look as if from the future.
const BACKDATE: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// A node's certificate is not renewed by itself: it lives as long as a machine does. What ends it is removal.
const NODE_LIVES: Duration = DAY.saturating_mul(3650);
/// The authority outlives what it signs.
const AUTHORITY_LIVES: Duration = DAY.saturating_mul(7300);

/// Why a certificate was not made.
#[derive(Debug, Error)]
#[error("certificate: {0}")]
pub struct CertificateError(#[from] rcgen::Error);

/// A private key and what others may know of it.
#[derive(Debug)]
pub(super) struct Key {
    /// PKCS #8, DER.
    pub(super) secret: Secret,
    /// The public key, as a certificate shows it (DER).
    pub(super) public: Vec<u8>,
}

/// A new key (P-256).
pub(super) fn key() -> Result<Key, CertificateError> {
    let pair = KeyPair::generate()?;
    Ok(Key {
        public: pair.subject_public_key_info(),
        secret: Secret::new(pair.serialize_der()),
    })
}

/// The public half of a key that was kept.
pub(super) fn public(secret: &Secret) -> Result<Vec<u8>, CertificateError> {
    let pair = KeyPair::try_from(secret.expose())?;
    Ok(pair.subject_public_key_info())
}

/// A new authority.
pub(super) fn authority(cluster: ClusterId, now: Timestamp) -> Result<Authority, CertificateError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("umbel cluster {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    bound(&mut params, now, AUTHORITY_LIVES);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Authority {
        certificate: certificate.der().to_vec(),
        key: Secret::new(key.serialize_der()),
    })
}

/// The certificate of a node, for the public key it showed. Nothing else of what it says is signed.
pub(super) fn issue(
    authority: &Authority,
    cluster: ClusterId,
    node: NodeId,
    public: &[u8],
    now: Timestamp,
) -> Result<Vec<u8>, CertificateError> {
    let public = SubjectPublicKeyInfo::from_der(public)?;
    let key = KeyPair::try_from(authority.key.expose())?;
    let certificate = CertificateDer::from(authority.certificate.as_slice());
    let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("umbel node {node}"));
    params.subject_alt_names = names(cluster, node)
        .into_iter()
        .map(|name| Ok(SanType::DnsName(name.try_into()?)))
        .collect::<Result<_, rcgen::Error>>()?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    bound(&mut params, now, NODE_LIVES);
    let signed = params.signed_by(&public, &issuer)?;
    Ok(signed.der().to_vec())
}

/// What a link checks a node's certificate for: its place in the cluster, and that it is a node at all.
fn names(cluster: ClusterId, node: NodeId) -> [String; 2] {
    [
        format!("node-{node}.{cluster}.umbel.internal"),
        format!("role-node.{cluster}.umbel.internal"),
    ]
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// Validity and a random serial number (RFC 5280, 4.1.2.2: positive, at most 20 octets); rcgen's defaults are valid from
/// 1975 to 4096.
fn bound(params: &mut CertificateParams, now: Timestamp, lives: Duration) {
    let start = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(now.seconds());
    params.not_before = start - BACKDATE;
    params.not_after = start + lives;
    let mut serial: [u8; 16] = rand::rng().random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}
