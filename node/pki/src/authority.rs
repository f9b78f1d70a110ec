//! An authority in a folder: makes itself, then issues server and device certificates.
//!
//! rcgen's defaults (valid 1975 to 4096, no key usage) are overwritten field by field: what is signed is what
//! this file says, nothing else.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use thiserror::Error;
use time::OffsetDateTime;
use umbel_core::{ids::DeviceId, time::Timestamp};

use crate::files::{self, CERTIFICATE_FILE, KEY_FILE};

/// Devices on poor links have poor clocks: a fresh certificate must not look as if from the future.
const BACKDATE: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Why a certificate could not be made or read. Nothing was issued.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{path}: {detail}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The folder has an authority already; it is never overwritten.
    #[error("{path} exists already")]
    Exists {
        /// Its certificate.
        path: PathBuf,
    },
    /// A name for a server certificate is neither a DNS name nor an address.
    #[error("`{name}` is neither a DNS name nor an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// Signing failed.
    #[error("signing: {0}")]
    Sign(#[from] rcgen::Error),
}

/// How long what an authority issues is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The authority's own certificate.
    pub authority: Duration,
    /// A server's certificate.
    pub server: Duration,
    /// A device's certificate.
    pub device: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        Self {
            authority: DAY.saturating_mul(3650),
            server: DAY.saturating_mul(397),
            device: DAY.saturating_mul(3650),
        }
    }
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// The private key. There is no `Debug` for it, on purpose.
    pub key: String,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` (readable by the owner only) into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf), PkiError> {
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        files::write(&key, &self.key, true)?;
        files::write(&certificate, &self.certificate, false)?;
        Ok((certificate, key))
    }
}

/// A certificate authority on this machine.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    validity: Validity,
}

impl Authority {
    /// Makes an authority in a folder that has none.
    pub fn create(folder: &Path, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let path = folder.join(CERTIFICATE_FILE);
        if path.exists() {
            return Err(PkiError::Exists { path });
        }
        let validity = Validity::default();
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        bound(&mut params, now, validity.authority);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        files::write(&folder.join(KEY_FILE), &key.serialize_pem(), true)?;
        files::write(&path, &certificate, false)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
            validity,
        })
    }

    /// Reads the authority of a folder.
    pub fn load(folder: &Path) -> Result<Self, PkiError> {
        let path = folder.join(CERTIFICATE_FILE);
        let key_path = folder.join(KEY_FILE);
        let parse = |path: &Path, detail: String| PkiError::Parse {
            path: path.to_owned(),
            detail,
        };
        let text = |path: &Path| {
            String::from_utf8(files::read(path)?).map_err(|e| parse(path, format!("not text: {e}")))
        };
        let certificate = text(&path)?;
        let key =
            KeyPair::from_pem(&text(&key_path)?).map_err(|e| parse(&key_path, e.to_string()))?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate, key).map_err(|e| parse(&path, e.to_string()))?;
        Ok(Self {
            issuer,
            certificate,
            validity: Validity::default(),
        })
    }

    /// Reads the authority of a folder, or makes one.
    pub fn open(folder: &Path, name: &str, now: Timestamp) -> Result<Self, PkiError> {
        if folder.join(CERTIFICATE_FILE).exists() {
            Self::load(folder)
        } else {
            Self::create(folder, name, now)
        }
    }

    /// The authority's certificate in PEM: what clients need to trust servers.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate that speaks for one device.
    pub fn issue_device(&self, device: &DeviceId, now: Timestamp) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(device.as_str());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, now, self.validity.device)
    }

    /// A certificate for a server that is reached by these DNS names and addresses.
    pub fn issue_server(&self, names: &[String], now: Timestamp) -> Result<Issued, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(names.first().map_or("umbel", String::as_str));
        params.subject_alt_names = names
            .iter()
            .map(|name| alternative_name(name))
            .collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, now, self.validity.server)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Issued, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        bound(&mut params, now, validity);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued {
            certificate,
            key: key.serialize_pem(),
        })
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn alternative_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    match name.try_into() {
        Ok(dns) => Ok(SanType::DnsName(dns)),
        Err(_) => Err(PkiError::Name {
            name: name.to_owned(),
        }),
    }
}

/// Validity and serial number. Serial numbers are random, so that two authorities of one name never collide
/// (RFC 5280, 4.1.2.2: positive, at most 20 octets).
fn bound(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let start = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(now.seconds());
    params.not_before = start - BACKDATE;
    params.not_after = start + validity;
    let mut serial: [u8; 16] = rand::rng().random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustls_pki_types::{CertificateDer, pem::PemObject};

    use super::*;
    use crate::Bearer;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).expect("valid id")
    }

    #[test]
    fn a_device_certificate_names_its_device_and_is_valid_from_an_hour_ago() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "test", NOW).unwrap();
        let issued = authority.issue_device(&device("cam-1"), NOW).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let bearer = Bearer::of(&der).unwrap();
        assert_eq!(bearer.common_name, "cam-1");
        assert_eq!(bearer.certificate_id.len(), 64);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(
            parsed.validity().not_before.timestamp(),
            1_790_000_000 - 3600
        );
        assert!(!parsed.is_ca());
    }

    #[test]
    fn an_authority_survives_a_restart_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::create(folder.path(), "test", NOW).unwrap();
        assert!(matches!(
            Authority::create(folder.path(), "test", NOW),
            Err(PkiError::Exists { .. })
        ));
        let again = Authority::load(folder.path()).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        again
            .issue_server(&["localhost".into(), "127.0.0.1".into()], NOW)
            .unwrap();
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "test", NOW).unwrap();
        let issued = authority.issue_device(&device("cam-1"), NOW).unwrap();
        let (_, key) = issued.write(folder.path(), "cam-1").unwrap();
        for path in [key, folder.path().join(KEY_FILE)] {
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn two_certificates_of_one_device_differ_in_serial_and_id() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "test", NOW).unwrap();
        let bearer = || {
            let issued = authority.issue_device(&device("cam-1"), NOW).unwrap();
            Bearer::of(&CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap())
                .unwrap()
        };
        let (one, two) = (bearer(), bearer());
        assert_ne!(one.serial, two.serial);
        assert_ne!(one.certificate_id, two.certificate_id);
    }

    #[test]
    fn rubbish_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CERTIFICATE_FILE), "rubbish").unwrap();
        std::fs::write(folder.path().join(KEY_FILE), "rubbish").unwrap();
        let error = Authority::load(folder.path()).err().unwrap().to_string();
        assert!(error.contains("ca.key"), "{error}");
        assert!(Bearer::of(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
