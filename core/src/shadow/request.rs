//! What is asked of a shadow: bytes → a checked request.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Limits, error::ShadowError};
use crate::{
    ids::{ClientId, ShadowName},
    json::{self, Json, Members},
};

/// Most bytes of a client token.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Which shadow of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ShadowKind {
    /// The one without a name.
    #[default]
    Classic,
    /// One of any number of named ones.
    Named(ShadowName),
}

impl ShadowKind {
    /// The name, if it has one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Classic => None,
            Self::Named(name) => Some(name.as_str()),
        }
    }
}

/// What to do with a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Verb {
    /// Read it.
    Get,
    /// Make it, or merge into it.
    Update,
    /// Delete it.
    Delete,
}

/// How a request came in. Only MQTT requests are refused by message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// Published by a client.
    Mqtt {
        /// Who published.
        client: ClientId,
    },
    /// Sent over HTTP.
    Http,
}

/// A request to a shadow, its payload not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which shadow.
    pub shadow: ShadowKind,
    /// What to do.
    pub verb: Verb,
    /// The request's body.
    pub payload: Bytes,
    /// How it came.
    pub origin: Origin,
}

/// What a patch does to a section.
#[derive(Clone, Copy, Debug)]
pub(super) enum SectionPatch<'a> {
    /// The section was not mentioned.
    Keep,
    /// The section is null.
    Drop,
    /// The section is an object.
    Merge(&'a Members),
}

/// A checked update: shape, version and token are valid; depth and size are judged with the document.
#[derive(Clone, Debug)]
pub(super) struct Update {
    version: Option<u64>,
    /// `None` is `"state":null`.
    state: Option<Members>,
}

impl Update {
    /// The version the shadow must have.
    pub(super) fn version(&self) -> Option<u64> {
        self.version
    }

    /// What was sent as `state`.
    pub(super) fn state(&self) -> Option<&Members> {
        self.state.as_ref()
    }

    pub(super) fn desired(&self) -> SectionPatch<'_> {
        self.section("desired")
    }

    pub(super) fn reported(&self) -> SectionPatch<'_> {
        self.section("reported")
    }

    fn section(&self, name: &str) -> SectionPatch<'_> {
        match self.state.as_ref().map(|state| state.get(name)) {
            None | Some(Some(Json::Null)) => SectionPatch::Drop,
            Some(Some(Json::Object(members))) => SectionPatch::Merge(members),
            Some(_) => SectionPatch::Keep,
        }
    }
}

/// The token and the checked body of an update. The token comes back even when the body is refused, as long as
/// it can be read: a client that waits for its token must not wait for nothing.
pub(super) fn parse_update(
    payload: &[u8],
    limits: &Limits,
) -> (Option<Arc<str>>, Result<Update, ShadowError>) {
    let mut root = match json::read(payload, &limits.json) {
        Ok(Json::Object(root)) => root,
        Ok(_) => {
            return (
                None,
                Err(ShadowError::invalid_json("the payload is not an object")),
            );
        },
        Err(json::JsonError::TooDeep { .. }) => {
            return (
                salvage_token(payload),
                Err(ShadowError::too_deep(limits.depth)),
            );
        },
        Err(error) => return (salvage_token(payload), Err(error.into())),
    };
    match take_token(&mut root) {
        Ok(token) => (token, check_update(root)),
        Err(error) => (None, Err(error)),
    }
}

fn check_update(mut root: Members) -> Result<Update, ShadowError> {
    let version = root.get("version").map(check_version).transpose()?;
    let state = match root.remove("state") {
        None => return Err(ShadowError::missing_state()),
        Some(Json::Null) => None,
        Some(Json::Object(state)) => Some(state),
        Some(_) => return Err(ShadowError::not_an_object("State")),
    };
    for (key, value) in state.iter().flat_map(Members::iter) {
        let node = match key.as_ref() {
            "desired" => "Desired",
            "reported" => "Reported",
            _ => return Err(ShadowError::invalid_node(key)),
        };
        if !matches!(value, Json::Object(_) | Json::Null) {
            return Err(ShadowError::not_an_object(node));
        }
    }
    Ok(Update { version, state })
}

fn check_version(value: &Json) -> Result<u64, ShadowError> {
    let Json::Number(number) = value else {
        return Err(ShadowError::invalid_version());
    };
    if let Some(version) = number.as_u64() {
        return Ok(version);
    }
    // 3.0 is the number 3; a client that counts in floats is not punished for it.
    number
        .as_f64()
        .filter(|float| *float >= 0.0 && float.fract() == 0.0)
        .and_then(|float| format!("{float:.0}").parse().ok())
        .ok_or_else(ShadowError::invalid_version)
}

/// The token of a get or delete. Everything else in the body, JSON or not, is ignored.
pub(super) fn parse_token(
    payload: &[u8],
    limits: &Limits,
) -> Result<Option<Arc<str>>, ShadowError> {
    match json::read(payload, &limits.json) {
        Ok(Json::Object(mut root)) => take_token(&mut root),
        Ok(_) => Ok(None),
        Err(_) => Ok(salvage_token(payload)),
    }
}

fn take_token(root: &mut Members) -> Result<Option<Arc<str>>, ShadowError> {
    match root.remove("clientToken") {
        None => Ok(None),
        Some(Json::Text(token)) if token.len() <= TOKEN_BYTES_MAX => Ok(Some(token)),
        Some(_) => Err(ShadowError::invalid_token()),
    }
}

/// The token of a body that is JSON, but beyond our limits. Reads without building anything else.
pub(super) fn salvage_token(payload: &[u8]) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    struct TokenOnly {
        #[serde(rename = "clientToken")]
        token: Option<String>,
    }
    let TokenOnly { token } = serde_json::from_slice(payload).ok()?;
    token
        .filter(|token| token.len() <= TOKEN_BYTES_MAX)
        .map(Arc::from)
}
