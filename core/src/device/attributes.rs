//! What people say of a device: a few named facts, tags, and free attributes; changed by JSON merge patch.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::json::{self, JsonError, JsonLimits};

/// Most bytes of type, site and region.
pub const FACT_BYTES_MAX: usize = 128;
/// Most tags, and most free attributes (AWS: 50 each).
pub const ENTRIES_MAX: usize = 50;
/// Most bytes of a tag's or attribute's name.
pub const NAME_BYTES_MAX: usize = 128;
/// Most bytes of a tag's value.
pub const TAG_BYTES_MAX: usize = 256;
/// Most bytes of a free attribute's value.
pub const ATTRIBUTE_BYTES_MAX: usize = 800;

/// A patch has at most three levels: the record, a map, and nothing below. Bytes and values leave room for a patch
/// that replaces every tag and attribute.
const PATCH_LIMITS: JsonLimits = JsonLimits {
    bytes: 128 * 1024,
    depth: 3,
    nodes: 512,
    key_bytes: 1024,
};

/// What people say of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// What it is: camera, controller, …
    pub device_type: Option<String>,
    /// Where it is.
    pub site: Option<String>,
    /// Where the site is.
    pub region: Option<String>,
    /// For grouping.
    pub tags: BTreeMap<String, String>,
    /// Anything else; `attributes` in a patch.
    pub free: BTreeMap<String, String>,
}

/// Why attributes are not acceptable. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AttributesError {
    /// The patch is not acceptable JSON.
    #[error("invalid JSON: {0}")]
    Json(#[from] JsonError),
    /// The patch, or a map in it, is not an object.
    #[error("{field} must be an object")]
    NotAnObject {
        /// Which part.
        field: &'static str,
    },
    /// There is no such fact.
    #[error("unknown member '{0}'")]
    Unknown(String),
    /// A value is not text.
    #[error("{field} must hold text")]
    NotText {
        /// Which part.
        field: &'static str,
    },
    /// A text is too long or holds control characters.
    #[error("{field} must be at most {max} bytes without control characters")]
    Text {
        /// Which part.
        field: &'static str,
        /// Most bytes allowed.
        max: usize,
    },
    /// A name is empty, too long or holds a character that names cannot hold.
    #[error("{field}: '{name}' is not a name: 1 to 128 of a-z, A-Z, 0-9 and _.,@/:#-")]
    Name {
        /// Which part.
        field: &'static str,
        /// The name, cut.
        name: String,
    },
    /// There would be too many entries.
    #[error("{field} may have at most {max} entries")]
    TooMany {
        /// Which part.
        field: &'static str,
        /// Most entries allowed.
        max: usize,
    },
}

impl Attributes {
    /// The attributes after a JSON merge patch: null removes, maps are merged, everything else is replaced.
    pub fn patched(&self, patch: &Bytes) -> Result<Self, AttributesError> {
        let mut next = self.clone();
        if patch.iter().all(u8::is_ascii_whitespace) {
            return Ok(next);
        }
        let Value::Object(members) = json::parse(patch, &PATCH_LIMITS)? else {
            return Err(AttributesError::NotAnObject { field: "the patch" });
        };
        for (key, value) in members {
            match key.as_str() {
                "type" => next.device_type = fact("type", value)?,
                "site" => next.site = fact("site", value)?,
                "region" => next.region = fact("region", value)?,
                "tags" => merge("tags", &mut next.tags, value, TAG_BYTES_MAX)?,
                "attributes" => {
                    merge("attributes", &mut next.free, value, ATTRIBUTE_BYTES_MAX)?;
                },
                _ => return Err(AttributesError::Unknown(cut(&key))),
            }
        }
        Ok(next)
    }
}

fn fact(field: &'static str, value: Value) -> Result<Option<String>, AttributesError> {
    if value.is_null() {
        Ok(None)
    } else {
        text(field, value, FACT_BYTES_MAX).map(Some)
    }
}

fn merge(
    field: &'static str,
    entries: &mut BTreeMap<String, String>,
    patch: Value,
    value_bytes_max: usize,
) -> Result<(), AttributesError> {
    let members: Map<String, Value> = match patch {
        Value::Null => {
            entries.clear();
            return Ok(());
        },
        Value::Object(members) => members,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(AttributesError::NotAnObject { field });
        },
    };
    for (name, value) in members {
        if value.is_null() {
            entries.remove(&name);
            continue;
        }
        if !is_name(&name) {
            return Err(AttributesError::Name {
                field,
                name: cut(&name),
            });
        }
        entries.insert(name, text(field, value, value_bytes_max)?);
    }
    if entries.len() > ENTRIES_MAX {
        return Err(AttributesError::TooMany {
            field,
            max: ENTRIES_MAX,
        });
    }
    Ok(())
}

fn text(field: &'static str, value: Value, max: usize) -> Result<String, AttributesError> {
    let Value::String(text) = value else {
        return Err(AttributesError::NotText { field });
    };
    if text.len() > max || text.chars().any(char::is_control) {
        return Err(AttributesError::Text { field, max });
    }
    Ok(text)
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.,@/:#-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// A stranger's text, short enough to be shown.
fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}
