//! What a verified certificate says about its bearer.

use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Why a certificate names nobody.
#[derive(Debug, Error)]
pub enum BearerError {
    /// The bytes are no X.509 certificate.
    #[error("certificate does not parse")]
    Malformed,
    /// The subject has no common name, more than one, or one that is not text.
    #[error("certificate subject has no single common name")]
    NoCommonName,
}

/// Who bears a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// SHA-256 of the certificate in hex: what AWS calls the certificate id, and our principal.
    pub certificate_id: String,
    /// The subject's common name: the device the certificate speaks for.
    pub common_name: String,
    /// Serial number in hex.
    pub serial: String,
    /// End of validity, seconds since the Unix epoch.
    pub not_after: i64,
}

impl Bearer {
    /// Reads a certificate. Two common names are refused, because programs disagree on which one counts.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, BearerError> {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
            return Err(BearerError::Malformed);
        };
        let mut names = parsed.subject().iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else {
            return Err(BearerError::NoCommonName);
        };
        let Ok(common_name) = name.as_str() else {
            return Err(BearerError::NoCommonName);
        };
        Ok(Self {
            certificate_id: sha256_hex(certificate),
            common_name: common_name.to_owned(),
            serial: parsed.raw_serial_as_string().replace(':', ""),
            not_after: parsed.validity().not_after.timestamp(),
        })
    }
}

fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        })
}
