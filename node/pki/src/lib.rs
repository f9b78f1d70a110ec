//! The local certificate authority, and what a certificate says about its bearer.
//!
//! Here a file system folder is an authority: `ca.pem`, `ca.key`, and what it issued. Trust decisions are not made
//! here: rustls verifies chains; [`Bearer`] only reads certificates that were verified before.

mod authority;
mod bearer;
mod files;

pub use authority::{Authority, Issued, PkiError, Validity};
pub use bearer::{Bearer, BearerError};
pub use files::{CERTIFICATE_FILE, KEY_FILE, load_certificates, load_key};
