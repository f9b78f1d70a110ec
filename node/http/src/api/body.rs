//! Reading JSON bodies: content type, then bounded JSON, then shape.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use umbel_core::json::{self, JsonError, JsonLimits};

use crate::problem::{Kind, Problem};

/// A whole resource.
pub(super) const JSON: &[&str] = &["application/json"];
/// A change of a resource. Plain JSON is read as a merge patch too: nothing else could be meant.
pub(super) const MERGE_PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// A body that is a JSON object.
pub(super) fn object(
    headers: &HeaderMap,
    body: &[u8],
    accepted: &[&str],
) -> Result<Map<String, Value>, Problem> {
    check_type(headers, accepted)?;
    match value(body)? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::invalid(
                "#",
                "type",
                "the body must be a JSON object",
            ))
        },
    }
}

/// A body of a known shape.
pub(super) fn shape<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    let members = object(headers, body, JSON)?;
    serde_json::from_value(Value::Object(members))
        .map_err(|error| Problem::invalid("#", "shape", error.to_string()))
}

/// A value of ours as JSON.
pub(super) fn bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("our own types are JSON")
        .into()
}

/// The members of a value of ours that is an object.
pub(super) fn members(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// The merge patch that turns `old` into `new`: what is new, and `null` for what has to go.
pub(super) fn replacing(old: &Map<String, Value>, new: Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in old
        .keys()
        .filter(|key| new.get(*key).is_none_or(Value::is_null))
    {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let value = match (old.get(&key), value) {
            // A null in a whole document means absent, as in a patch.
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(replacing(old, new)),
            (_, value) => value,
        };
        patch.insert(key, value);
    }
    patch
}

/// Whether the body says that it is one of these.
pub(super) fn check_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let given = given.unwrap_or_default();
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    let known = accepted
        .iter()
        .any(|name| essence.trim().eq_ignore_ascii_case(name));
    let parameters = parameters.trim();
    if known && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8")) {
        return Ok(());
    }
    let expected = accepted.join(" or ");
    Err(Problem::new(Kind::UnsupportedMediaType).with_detail(format!("send {expected}")))
}

fn value(body: &[u8]) -> Result<Value, Problem> {
    // The edge has bounded the bytes already.
    let limits = JsonLimits {
        bytes: usize::MAX,
        ..JsonLimits::default()
    };
    json::parse(body, &limits).map_err(|error| {
        let code = match &error {
            JsonError::Utf8 => {
                return Problem::new(Kind::UnsupportedMediaType).with_detail(error.to_string());
            },
            JsonError::TooLarge { .. } => {
                return Problem::new(Kind::TooLarge).with_detail(error.to_string());
            },
            JsonError::TooDeep { .. } => "too-deep",
            JsonError::TooManyNodes { .. } => "too-many-values",
            JsonError::KeyTooLong { .. } => "key-too-long",
            JsonError::Number => "number",
            JsonError::DuplicateKey => "duplicate-key",
            JsonError::Syntax(_) => "syntax",
        };
        Problem::invalid("#", code, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replacing_patch_names_what_has_to_go() {
        let old = members(&json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1], "f": {"g": 1}}));
        let new = members(&json!({"b": {"c": 5}, "e": [2], "f": 1, "h": {}, "i": null}));
        let patch = replacing(&old, new);
        assert_eq!(
            Value::Object(patch),
            json!({"a": null, "b": {"c": 5, "d": null}, "e": [2], "f": 1, "h": {}})
        );
    }

    #[test]
    fn a_body_says_what_it_is() {
        let mut headers = HeaderMap::new();
        assert!(object(&headers, b"{}", JSON).is_err());
        for (given, good) in [
            ("application/json", true),
            ("Application/JSON; charset=UTF-8", true),
            ("application/json; charset=latin1", false),
            ("text/plain", false),
            ("application/merge-patch+json", false),
        ] {
            headers.insert(header::CONTENT_TYPE, given.parse().expect("header"));
            assert_eq!(object(&headers, b"{}", JSON).is_ok(), good, "{given}");
        }
    }
}
