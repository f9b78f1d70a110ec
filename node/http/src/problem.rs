//! Errors of our API: RFC 9457 problem details with stable types.
//!
//! A handler returns a [`Problem`]; the edge renders it once the request id is known.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::port::Refusal;

/// The kinds of problem there are. The slug is part of the API and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    InvalidRequest,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    Conflict,
    PreconditionFailed,
    TooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    HeadersTooLarge,
    Internal,
    Overloaded,
    NotOwner,
    NoQuorum,
    StorageFull,
    Quarantined,
    Stopping,
}

impl Kind {
    pub(crate) const ALL: [Self; 18] = [
        Self::InvalidRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::HeadersTooLarge,
        Self::Internal,
        Self::Overloaded,
        Self::NotOwner,
        Self::NoQuorum,
        Self::StorageFull,
        Self::Quarantined,
        Self::Stopping,
    ];

    /// The stable name.
    pub(crate) const fn slug(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition-failed",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::TooManyRequests => "too-many-requests",
            Self::HeadersTooLarge => "headers-too-large",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::NotOwner => "not-owner",
            Self::NoQuorum => "no-quorum",
            Self::StorageFull => "storage-full",
            Self::Quarantined => "quarantined",
            Self::Stopping => "stopping",
        }
    }

    /// The HTTP status.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded
            | Self::NotOwner
            | Self::NoQuorum
            | Self::StorageFull
            | Self::Quarantined
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The kind in words.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::Conflict => "In conflict with the current state",
            Self::PreconditionFailed => "The condition of the request does not hold",
            Self::TooLarge => "Too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::TooManyRequests => "Too many requests for this device",
            Self::HeadersTooLarge => "Headers too large",
            Self::Internal => "A fault of the server",
            Self::Overloaded => "Overloaded",
            Self::NotOwner => "The owner of this device is changing",
            Self::NoQuorum => "Too few nodes answer",
            Self::StorageFull => "The disk is full",
            Self::Quarantined => "The device is quarantined",
            Self::Stopping => "The node is stopping",
        }
    }

    /// What the caller can do about it.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::InvalidRequest => "Correct what `errors` names and send it again.",
            Self::Forbidden => {
                "The caller may not do this, or the device is not on the list of admitted devices."
            },
            Self::NotFound => "There is nothing of this name. Names are case-sensitive.",
            Self::MethodNotAllowed => "Use one of the methods in the `Allow` header.",
            Self::RequestTimeout => "Nothing was changed. Send the body without pauses.",
            Self::Conflict => "Read the resource again and decide anew.",
            Self::PreconditionFailed => {
                "Somebody else changed the resource. Read it again and decide anew."
            },
            Self::TooLarge => {
                "The body, or the document it would produce, exceeds its limit. Nothing was changed."
            },
            Self::UnsupportedMediaType => {
                "Send `application/json`, or `application/merge-patch+json` with PATCH, in UTF-8."
            },
            Self::TooManyRequests => "Wait as long as `Retry-After` says.",
            Self::HeadersTooLarge => "Send fewer or shorter headers.",
            Self::Internal => "Report it with the request id in `instance`.",
            Self::Overloaded | Self::NotOwner => {
                "Wait as long as `Retry-After` says. Nothing was changed."
            },
            Self::NoQuorum => {
                "Wait as long as `Retry-After` says. It works again when enough nodes are back: see \
                 /api/v1/cluster/shards."
            },
            Self::StorageFull => {
                "Reads go on. Writes work again, without a restart, when there is space."
            },
            Self::Quarantined => "Its actor failed again and again. See /api/v1/quarantine.",
            Self::Stopping => "Use another node, or wait as long as `Retry-After` says.",
        }
    }

    const fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::TooManyRequests | Self::Overloaded | Self::NotOwner | Self::NoQuorum => Some(1),
            Self::Stopping => Some(5),
            Self::StorageFull | Self::Quarantined => Some(30),
            Self::InvalidRequest
            | Self::Forbidden
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::Conflict
            | Self::PreconditionFailed
            | Self::TooLarge
            | Self::UnsupportedMediaType
            | Self::HeadersTooLarge
            | Self::Internal => None,
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where: a JSON pointer into the body (`#/attributes/type`), or `query:limit`, `path:id`, `header:If-Match`.
    pub(crate) pointer: String,
    /// What kind of mistake, for programs.
    pub(crate) code: String,
    /// What is wrong, for people.
    pub(crate) detail: String,
}

/// An error that the edge will render.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) detail: Option<String>,
    pub(crate) errors: Vec<FieldError>,
    pub(crate) current: Option<u64>,
}

/// RFC 9457 problem details, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Stable name of the kind of problem: the path of a page that explains it.
    #[serde(rename = "type")]
    #[schema(example = "/api/problems/not-found")]
    pub(crate) kind: String,
    /// The kind in words.
    pub(crate) title: &'static str,
    /// HTTP status.
    pub(crate) status: u16,
    /// This occurrence in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// The request id, as in `X-Request-Id` and the server's log.
    pub(crate) instance: String,
    /// What is wrong, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) errors: Vec<FieldError>,
}

impl Problem {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            detail: None,
            errors: Vec::new(),
            current: None,
        }
    }

    #[must_use]
    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A mistake at one place of the request.
    pub(crate) fn invalid(
        pointer: impl Into<String>,
        code: &str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = detail.into();
        let error = FieldError {
            pointer: pointer.into(),
            code: code.to_owned(),
            detail: detail.clone(),
        };
        Self {
            errors: vec![error],
            ..Self::new(Kind::InvalidRequest).with_detail(detail)
        }
    }

    /// A header that cannot be read.
    pub(crate) fn header(name: &str) -> Self {
        Self::invalid(
            format!("header:{name}"),
            "malformed",
            format!("{name} cannot be read"),
        )
    }

    /// A condition of the request that does not hold.
    pub(crate) fn precondition_failed(header: &str, current: Option<u64>) -> Self {
        let detail = match current {
            Some(version) => format!("{header} does not hold: the current version is {version}"),
            None => format!("{header} does not hold: there is no such resource"),
        };
        Self {
            current,
            ..Self::new(Kind::PreconditionFailed).with_detail(detail)
        }
    }

    /// Nothing of this name.
    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::new(Kind::NotFound).with_detail(format!("there is no {what} `{name}`"))
    }

    /// The body, once the request id is known.
    pub(crate) fn render(self, request_id: &str) -> ProblemBody {
        ProblemBody {
            kind: format!("/api/problems/{}", self.kind.slug()),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: self.detail,
            instance: request_id.to_owned(),
            errors: self.errors,
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::Overloaded => Kind::Overloaded,
            Refusal::TooManyInFlight => Kind::TooManyRequests,
            Refusal::NotOwner => Kind::NotOwner,
            Refusal::NoQuorum => Kind::NoQuorum,
            Refusal::StorageFull => Kind::StorageFull,
            Refusal::Quarantined => Kind::Quarantined,
            Refusal::Stopping => Kind::Stopping,
            Refusal::NotListed => Kind::Forbidden,
            Refusal::NotFound => Kind::NotFound,
            Refusal::Exists => Kind::Conflict,
            Refusal::VersionConflict { current } => {
                return Self::precondition_failed("If-Match", *current);
            },
            Refusal::Invalid { pointer, detail } => {
                return Self::invalid(pointer.clone(), "invalid", detail.clone());
            },
            Refusal::TooLarge => Kind::TooLarge,
            // The cause is for the log, which has it already.
            Refusal::Internal(_) => return Self::new(Kind::Internal),
        };
        Self::new(kind).with_detail(refusal.to_string())
    }
}

impl IntoResponse for Problem {
    /// Status and headers; the body follows when the edge meets the [`Problem`] in the extensions.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if let Some(seconds) = self.kind.retry_after_seconds() {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(version) = self.current {
            response
                .headers_mut()
                .insert(header::ETAG, crate::etag::of(version));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The content type of [`ProblemBody`].
pub(crate) const CONTENT_TYPE: (HeaderName, HeaderValue) = (
    header::CONTENT_TYPE,
    HeaderValue::from_static("application/problem+json"),
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let slugs: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), Kind::ALL.len());
    }

    #[test]
    fn whoever_is_told_to_wait_is_told_how_long() {
        for kind in Kind::ALL {
            let waits = matches!(kind.status().as_u16(), 429 | 503);
            assert_eq!(kind.retry_after_seconds().is_some(), waits, "{kind:?}");
        }
    }
}
