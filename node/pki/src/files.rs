//! PEM files: read with a clear error, written so that a key is never readable by others.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::authority::PkiError;

/// Name of a certificate file in an authority's folder.
pub const CERTIFICATE_FILE: &str = "ca.pem";
/// Name of the authority's key file.
pub const KEY_FILE: &str = "ca.key";

/// Every certificate of a PEM file; none is an error.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let bytes = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|e| PkiError::Parse {
            path: path.to_owned(),
            detail: e.to_string(),
        })?;
    if certificates.is_empty() {
        let detail = "the file holds no certificate".to_owned();
        return Err(PkiError::Parse {
            path: path.to_owned(),
            detail,
        });
    }
    Ok(certificates)
}

/// The private key of a PEM file.
pub fn load_key(path: &Path) -> Result<PrivateKeyDer<'static>, PkiError> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| PkiError::Parse {
        path: path.to_owned(),
        detail: e.to_string(),
    })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    fs::read(path).map_err(|source| PkiError::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file so that a crash leaves the old one or the new one; `secret` files are for their owner alone.
pub(crate) fn write(path: &Path, text: &str, secret: bool) -> Result<(), PkiError> {
    replace(path, text, secret).map_err(|source| PkiError::File {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, text: &str, secret: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let draft = path.with_extension("draft");
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(if secret { 0o600 } else { 0o644 });
    let mut file = options.open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(folder)?.sync_all()
}
