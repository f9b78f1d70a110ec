//! Certificates for tests.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use umbel_core::ids::NodeId;

use crate::link::tls::{Credentials, node_name, role_name};

pub(in crate::link) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub(in crate::link) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
            .distinguished_name
            .push(DnType::CommonName, "the cluster's own");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(in crate::link) fn sha256(&self) -> [u8; 32] {
        digest(&SHA256, &self.certificate)
            .as_ref()
            .try_into()
            .unwrap()
    }

    /// What a node shows.
    pub(in crate::link) fn node(&self, cluster: &str, node: NodeId) -> Credentials {
        self.with_names(vec![node_name(cluster, node), role_name(cluster)])
    }

    /// A certificate with these names, from the same authority.
    pub(in crate::link) fn with_names(&self, names: Vec<String>) -> Credentials {
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "camera-7");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            ca: vec![self.certificate.clone()],
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}
