//! Reading paths and queries. What does not parse is refused with the place named, and so is what nobody
//! knows: a misspelt filter must not list the whole fleet.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderValue, Uri, request::Parts},
};
use serde::{Deserialize, de::DeserializeOwned};
use umbel_core::ids::{ClientId, DeviceId, ShadowName};

use crate::{
    cursor,
    limits::{PAGE_DEFAULT, PAGE_MAX},
    problem::Problem,
};

/// The classic shadow's name in our API.
pub(crate) const CLASSIC: &str = "$classic";

/// The path of a device.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct DevicePath {
    /// The device.
    #[param(value_type = String, pattern = "^[a-zA-Z0-9:_-]{1,128}$", example = "camera-1")]
    pub(super) id: DeviceId,
}

/// The path of a shadow.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ShadowPath {
    /// The device.
    #[param(value_type = String, pattern = "^[a-zA-Z0-9:_-]{1,128}$", example = "camera-1")]
    pub(super) id: DeviceId,
    /// The shadow; `$classic` is the one without a name.
    #[param(value_type = String, pattern = "^[a-zA-Z0-9:_$-]{1,64}$", example = "$classic")]
    pub(super) name: ShadowName,
}

impl ShadowPath {
    /// The name as storage has it: none for the classic shadow.
    pub(super) fn shadow(&self) -> Option<ShadowName> {
        (self.name.as_str() != CLASSIC).then(|| self.name.clone())
    }
}

/// The path of a client.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ClientPath {
    /// The client id.
    #[param(min_length = 1, example = "app-1")]
    id: String,
}

impl ClientPath {
    /// The id; a text that cannot be one is the name of nobody.
    pub(super) fn client(&self, what: &str) -> Result<ClientId, Problem> {
        ClientId::parse(&self.id).map_err(|_no_id| Problem::not_found(what, &self.id))
    }
}

/// The condition of a read.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `Preconditions` reads")]
pub(super) struct Unless {
    /// Only if the entity tag is another one.
    #[param(
        rename = "If-None-Match",
        required = false,
        pattern = r#"^(\*|(W/)?"[^"]*"( *, *(W/)?"[^"]*")*)$"#,
        example = "\"1\""
    )]
    if_none_match: String,
}

/// The condition of a change.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes what `Preconditions` reads")]
pub(super) struct Only {
    /// Only if the entity tag is one of these.
    #[param(
        rename = "If-Match",
        required = false,
        pattern = r#"^(\*|(W/)?"[^"]*"( *, *(W/)?"[^"]*")*)$"#,
        example = "\"1\""
    )]
    if_match: String,
}

/// How fresh a read must be.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Parameters` reads")]
pub(super) struct Consistency {
    /// `stale`: any copy may answer, even one that is behind or cannot be sure. Otherwise the owner answers, and only
    /// while nobody else can be the owner.
    #[param(required = false, pattern = "^(linearizable|stale)$")]
    consistency: String,
}

/// How to page.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Parameters` reads")]
pub(super) struct Paging {
    /// Most entries to answer.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: u16,
    /// The `next` of the page before, unchanged.
    #[param(required = false)]
    cursor: String,
}

/// Variable segments of a path.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(error) => Err(Problem::invalid("path", "invalid", error.body_text())),
        }
    }
}

/// The parameters of a query.
pub(super) struct Parameters {
    uri: Uri,
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Self {
                uri: parts.uri.clone(),
                pairs,
            }),
            Err(error) => Err(Problem::invalid("query", "malformed", error.body_text())),
        }
    }
}

impl Parameters {
    /// Refuses what is not in `single` or `repeated`, and a `single` one given twice.
    pub(super) fn only(&self, single: &[&str], repeated: &[&str]) -> Result<(), Problem> {
        for (index, (name, _)) in self.pairs.iter().enumerate() {
            let pointer = format!("query:{name}");
            if single.contains(&name.as_str()) {
                if self
                    .pairs
                    .iter()
                    .take(index)
                    .any(|(before, _)| before == name)
                {
                    return Err(Problem::invalid(
                        pointer,
                        "repeated",
                        format!("the parameter `{name}` is given twice"),
                    ));
                }
            } else if !repeated.contains(&name.as_str()) {
                return Err(Problem::invalid(
                    pointer,
                    "unknown",
                    format!("there is no parameter `{name}`"),
                ));
            }
        }
        Ok(())
    }

    /// A parameter that is given at most once.
    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// A parameter that may be given more than once.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// `true` or `false`; absent is false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => {
                let detail = format!("`{name}` must be true or false");
                Err(Problem::invalid(format!("query:{name}"), "type", detail))
            },
        }
    }

    /// Whether a read may be answered by any copy; the only parameter there is.
    pub(super) fn may_be_stale(&self) -> Result<bool, Problem> {
        self.only(&["consistency"], &[])?;
        match self.one("consistency") {
            None | Some("linearizable") => Ok(false),
            Some("stale") => Ok(true),
            Some(_) => Err(Problem::invalid(
                "query:consistency",
                "unknown",
                "a consistency is `linearizable` or `stale`",
            )),
        }
    }

    /// How many entries to answer.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.one("limit") else {
            return Ok(PAGE_DEFAULT);
        };
        text.parse()
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| {
                let detail = format!("limit must be a number from 1 to {PAGE_MAX}");
                Problem::invalid("query:limit", "out-of-range", detail)
            })
    }

    /// The key to go on after.
    pub(super) fn after<T>(
        &self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.one("cursor") else {
            return Ok(None);
        };
        let key = cursor::decode(text).and_then(|key| parse(&key));
        key.map(Some).ok_or_else(|| {
            Problem::invalid(
                "query:cursor",
                "foreign",
                "this cursor does not come from this list",
            )
        })
    }

    /// The `Link` to the page behind `cursor`.
    pub(super) fn next_link(&self, cursor: &str) -> Option<HeaderValue> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.pairs.iter().filter(|(name, _)| name != "cursor"));
        query.append_pair("cursor", cursor);
        let link = format!("<{}?{}>; rel=\"next\"", self.uri.path(), query.finish());
        HeaderValue::try_from(link).ok()
    }
}
