//! Device shadows, as AWS IoT clients know them.
//!
//! [`handle`] decides one request against one [`Shadow`]; the parts it is made of ([`merge()`], [`delta()`], the
//! trees that hold values and their times) are public for those who show shadows in another way. What is absent:
//! who may ask, how many may ask at once, and where a shadow is kept.

mod delta;
mod document;
mod error;
mod merge;
mod reply;
mod request;
mod service;
mod tree;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

pub use delta::delta;
pub use document::{
    Document, Section, Shadow, StoredDocument, StoredError, StoredSection, StoredShadow,
    TOMBSTONE_TTL,
};
pub use error::ShadowError;
pub use merge::{Patch, merge};
pub use reply::{Rejection, Reply};
pub use request::{Origin, Request, ShadowKind, TOKEN_BYTES_MAX, Verb};
pub use service::{Outcome, again, handle, reject};
pub use tree::{Node, Object, Scalar};

use crate::json::JsonLimits;

/// What a shadow may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of desired and reported together, without whitespace, after the merge.
    pub document_bytes: usize,
    /// Most nested objects and arrays below the root of a section.
    pub depth: usize,
    /// What a request's body may cost to read.
    pub json: JsonLimits,
}

impl Default for Limits {
    /// The quotas of AWS: 8 KiB, 8 levels.
    fn default() -> Self {
        Self {
            document_bytes: 8 * 1024,
            depth: 8,
            json: JsonLimits::default(),
        }
    }
}
