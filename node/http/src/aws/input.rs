//! Reading requests: names, query parameters, and the MQTT 5 headers. boto3 checks none of them.

use std::ops::RangeInclusive;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use umbel_core::{
    ids::{ClientId, DeviceId, ShadowName},
    json::{self, JsonLimits},
    message::Properties,
    topic,
};

use super::error::AwsError;

const USER_PROPERTIES: &str = "x-amz-mqtt5-user-properties";
const FORMAT_INDICATOR: &str = "x-amz-mqtt5-payload-format-indicator";
const CORRELATION_DATA: &str = "x-amz-mqtt5-correlation-data";
/// Most bytes of an MQTT string (MQTT 5.0, 1.5.4).
const STRING_BYTES_MAX: usize = 65_535;

/// The one variable segment of a path, percent-decoded. It must be UTF-8.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = AwsError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AwsError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_not_utf8) => Err(AwsError::invalid("the path is not UTF-8")),
        }
    }
}

/// Query parameters. Unknown ones are ignored, as AWS does; of a repeated one the first counts.
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = AwsError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, AwsError> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_malformed) => Err(AwsError::invalid("the query cannot be read")),
        }
    }
}

impl Parameters {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A number within bounds.
    pub(super) fn number(
        &self,
        name: &str,
        default: u64,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, AwsError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        text.parse()
            .ok()
            .filter(|number| allowed.contains(number))
            .ok_or_else(|| {
                let (start, end) = (allowed.start(), allowed.end());
                AwsError::invalid(format!("{name} must be a number from {start} to {end}"))
            })
    }

    /// Absent is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, AwsError> {
        match self.get(name) {
            None | Some("false" | "False" | "FALSE") => Ok(false),
            Some("true" | "True" | "TRUE") => Ok(true),
            Some(_) => Err(AwsError::invalid(format!("{name} must be true or false"))),
        }
    }

    /// The shadow of `?name=`; none is the classic one.
    pub(super) fn shadow(&self) -> Result<Option<ShadowName>, AwsError> {
        self.get("name")
            .map(ShadowName::parse)
            .transpose()
            .map_err(|error| AwsError::invalid(error.to_string()))
    }

    /// The key inside `nextToken`.
    pub(super) fn next_token(&self) -> Result<Option<String>, AwsError> {
        self.get("nextToken")
            .filter(|token| !token.is_empty())
            .map(|token| {
                crate::cursor::decode(token).ok_or_else(|| AwsError::invalid("Invalid nextToken"))
            })
            .transpose()
    }
}

pub(super) fn thing(text: &str) -> Result<DeviceId, AwsError> {
    DeviceId::parse(text).map_err(|error| AwsError::invalid(error.to_string()))
}

/// A client id of the connections API, where a leading `$` is not allowed.
pub(super) fn client(text: &str) -> Result<ClientId, AwsError> {
    if text.starts_with('$') {
        return Err(AwsError::invalid("a client id must not begin with $"));
    }
    ClientId::parse(text).map_err(|error| AwsError::invalid(error.to_string()))
}

/// The grammar of topic names; whether the caller may use one is for the policy.
pub(super) fn check_topic(text: &str) -> Result<(), AwsError> {
    topic::check_name(text, &topic::Limits::default())
        .map_err(|error| AwsError::invalid(error.to_string()))
}

/// MQTT 5 properties of a message from headers and query; `None` if there are none.
pub(super) fn properties(
    headers: &HeaderMap,
    parameters: &Parameters,
    payload: &[u8],
) -> Result<Option<Box<Properties>>, AwsError> {
    let response_topic = text(parameters, "responseTopic")?;
    if let Some(topic) = &response_topic {
        check_topic(topic)?;
    }
    let correlation_data = header(headers, CORRELATION_DATA)?
        .map(|value| decode(CORRELATION_DATA, value).map(Into::into))
        .transpose()?;
    let user = header(headers, USER_PROPERTIES)?
        .map(user_properties)
        .transpose()?;
    let properties = Properties {
        payload_is_utf8: format_indicator(headers, payload)?,
        content_type: text(parameters, "contentType")?,
        response_topic,
        correlation_data,
        user: user.unwrap_or_default(),
    };
    Ok((properties != Properties::default()).then(|| Box::new(properties)))
}

fn format_indicator(headers: &HeaderMap, payload: &[u8]) -> Result<Option<bool>, AwsError> {
    match header(headers, FORMAT_INDICATOR)? {
        None => Ok(None),
        Some("UNSPECIFIED_BYTES") => Ok(Some(false)),
        Some("UTF8_DATA") if std::str::from_utf8(payload).is_ok() => Ok(Some(true)),
        Some("UTF8_DATA") => Err(AwsError::invalid("the payload is not UTF-8 as indicated")),
        Some(_) => Err(AwsError::invalid(
            "the payload format indicator must be UNSPECIFIED_BYTES or UTF8_DATA",
        )),
    }
}

fn text(parameters: &Parameters, name: &str) -> Result<Option<String>, AwsError> {
    let Some(text) = parameters.get(name) else {
        return Ok(None);
    };
    if text.len() > STRING_BYTES_MAX || text.contains('\0') {
        return Err(AwsError::invalid(format!("{name} is not an MQTT string")));
    }
    Ok(Some(text.to_owned()))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, AwsError> {
    headers
        .get(name)
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_opaque| AwsError::invalid(format!("{name} cannot be read")))
}

fn decode(name: &str, value: &str) -> Result<Vec<u8>, AwsError> {
    STANDARD
        .decode(value)
        .map_err(|_malformed| AwsError::invalid(format!("{name} must be base64")))
}

/// `[{"name":"value"}, …]` in base64. boto3 takes a text and encodes it as JSON once more, hence the inner parse.
fn user_properties(value: &str) -> Result<Vec<(String, String)>, AwsError> {
    let malformed = || {
        AwsError::invalid(format!(
            "{USER_PROPERTIES} must be a JSON array of objects with text values, in base64"
        ))
    };
    let parse =
        |bytes: &[u8]| json::parse(bytes, &JsonLimits::default()).map_err(|_refused| malformed());
    let mut value = parse(&decode(USER_PROPERTIES, value)?)?;
    if let Value::String(inner) = &value {
        value = parse(inner.as_bytes())?;
    }
    let Value::Array(entries) = value else {
        return Err(malformed());
    };
    let mut properties = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Object(members) = entry else {
            return Err(malformed());
        };
        for (name, value) in members {
            let Value::String(value) = value else {
                return Err(malformed());
            };
            properties.push((name, value));
        }
    }
    Ok(properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_properties_are_read_as_boto3_and_as_curl_send_them() {
        let expected = vec![
            ("b".to_owned(), "1".to_owned()),
            ("a".to_owned(), "2".to_owned()),
        ];
        let array = r#"[{"b":"1"},{"a":"2"}]"#;
        let once = STANDARD.encode(array);
        let twice = STANDARD.encode(Value::String(array.to_owned()).to_string());
        for header in [once, twice] {
            assert_eq!(user_properties(&header).expect("valid"), expected);
        }
    }

    #[test]
    fn user_properties_of_another_shape_are_refused() {
        for shape in ["{}", "[1]", r#"[{"a":1}]"#, "\"x\"", "["] {
            assert!(user_properties(&STANDARD.encode(shape)).is_err(), "{shape}");
        }
        assert!(user_properties("not base64").is_err());
    }
}
