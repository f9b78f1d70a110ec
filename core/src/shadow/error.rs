//! Why a shadow request was refused, in the words AWS clients know.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::json::JsonError;

/// A refusal of the shadow service: a code as in HTTP, and the text clients are shown. The shadow is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{code}: {message}")]
pub struct ShadowError {
    /// As in HTTP.
    pub code: u16,
    /// What the client is told.
    pub message: String,
}

impl ShadowError {
    fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The payload is not JSON.
    pub fn invalid_json(detail: impl fmt::Display) -> Self {
        Self::new(400, format!("Invalid JSON: {detail}"))
    }

    /// The request has no `state`.
    pub fn missing_state() -> Self {
        Self::new(400, "Missing required node: state")
    }

    /// `state`, `desired` or `reported` is neither an object nor null.
    pub fn not_an_object(node: &str) -> Self {
        Self::new(400, format!("{node} node must be an object"))
    }

    /// `state` holds something else than `desired` and `reported`.
    pub fn invalid_node(key: &str) -> Self {
        Self::new(400, format!("State contains an invalid node: '{key}'"))
    }

    /// `version` is not a whole number ≥ 0.
    pub fn invalid_version() -> Self {
        Self::new(400, "Invalid version")
    }

    /// `clientToken` is not a string, or too long.
    pub fn invalid_token() -> Self {
        Self::new(400, "Invalid clientToken")
    }

    /// A section is nested too deep.
    pub fn too_deep(max: usize) -> Self {
        Self::new(
            400,
            format!("JSON contains too many levels of nesting; maximum is {max}"),
        )
    }

    /// An array holds null, which has no meaning there.
    pub fn null_in_array() -> Self {
        Self::new(400, "State contains a null value inside an array")
    }

    /// The caller is not known.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized")
    }

    /// The caller may not do this.
    pub fn forbidden() -> Self {
        Self::new(403, "Forbidden")
    }

    /// There is no such shadow. `name` is the shadow's, or the thing's for a classic shadow.
    pub fn not_found(name: &str) -> Self {
        Self::new(404, format!("No shadow exists with name: '{name}'"))
    }

    /// The registry has no such thing, and the cluster is set to care.
    pub fn thing_not_found() -> Self {
        Self::new(404, "Thing not found")
    }

    /// The shadow has another version than the request expects.
    pub fn version_conflict() -> Self {
        Self::new(409, "Version conflict")
    }

    /// The payload, or the document it would make, is too big.
    pub fn too_large() -> Self {
        Self::new(413, "The payload exceeds the maximum size allowed")
    }

    /// The payload is not UTF-8.
    pub fn unsupported_encoding() -> Self {
        Self::new(
            415,
            "Unsupported document encoding; the supported encoding is UTF-8",
        )
    }

    /// Too many requests of this thing are in flight.
    pub fn too_many_requests() -> Self {
        Self::new(429, "Too many requests")
    }

    /// A fault of ours.
    pub fn internal() -> Self {
        Self::new(500, "Internal service failure")
    }

    /// Nobody can serve the thing now, and nothing was changed.
    pub fn unavailable() -> Self {
        Self::new(503, "Service unavailable")
    }
}

impl From<JsonError> for ShadowError {
    fn from(error: JsonError) -> Self {
        match error {
            JsonError::Utf8 => Self::unsupported_encoding(),
            JsonError::TooLarge { .. } => Self::too_large(),
            JsonError::TooDeep { .. }
            | JsonError::TooManyNodes { .. }
            | JsonError::KeyTooLong { .. }
            | JsonError::Number
            | JsonError::DuplicateKey
            | JsonError::Syntax(_) => Self::invalid_json(error),
        }
    }
}
