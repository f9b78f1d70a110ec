//! Errors as AWS clients expect them: status, `x-amzn-ErrorType`, and `message` with `traceId` in the body.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    port::Refusal,
    problem::{Kind, Problem},
};

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// The exceptions of the data plane; boto3 makes a class of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exception {
    InvalidRequest,
    Unauthorized,
    Forbidden,
    ResourceNotFound,
    MethodNotAllowed,
    Conflict,
    RequestEntityTooLarge,
    UnsupportedDocumentEncoding,
    Throttling,
    InternalFailure,
    ServiceUnavailable,
    GatewayTimeout,
}

impl Exception {
    const fn facts(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("InvalidRequestException", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UnauthorizedException", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("ForbiddenException", StatusCode::FORBIDDEN),
            Self::ResourceNotFound => ("ResourceNotFoundException", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("MethodNotAllowedException", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict => ("ConflictException", StatusCode::CONFLICT),
            Self::RequestEntityTooLarge => (
                "RequestEntityTooLargeException",
                StatusCode::PAYLOAD_TOO_LARGE,
            ),
            Self::UnsupportedDocumentEncoding => (
                "UnsupportedDocumentEncodingException",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Self::Throttling => ("ThrottlingException", StatusCode::TOO_MANY_REQUESTS),
            Self::InternalFailure => (
                "InternalFailureException",
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
            Self::ServiceUnavailable => (
                "ServiceUnavailableException",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            Self::GatewayTimeout => ("GatewayTimeoutException", StatusCode::GATEWAY_TIMEOUT),
        }
    }

    /// The exception of a shadow error's code (protocol.md 1.9).
    const fn of_code(code: u16) -> Self {
        match code {
            400 => Self::InvalidRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::ResourceNotFound,
            405 => Self::MethodNotAllowed,
            409 => Self::Conflict,
            413 => Self::RequestEntityTooLarge,
            415 => Self::UnsupportedDocumentEncoding,
            429 => Self::Throttling,
            503 => Self::ServiceUnavailable,
            _ => Self::InternalFailure,
        }
    }
}

/// A failure that the edge will render.
#[derive(Clone, Debug)]
pub(crate) struct AwsError {
    exception: Exception,
    message: String,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    #[serde(rename = "traceId")]
    trace_id: &'a str,
}

impl AwsError {
    pub(crate) fn new(exception: Exception, message: impl Into<String>) -> Self {
        Self {
            exception,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exception::InvalidRequest, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exception::ResourceNotFound, message)
    }

    pub(crate) fn of_code(code: u16, message: impl Into<String>) -> Self {
        Self::new(Exception::of_code(code), message)
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.exception.facts().1
    }

    /// The body and what names the error, once the request id is known.
    pub(crate) fn render(&self, request_id: &str) -> Response {
        let (name, status) = self.exception.facts();
        let body = Json(Body {
            message: &self.message,
            trace_id: request_id,
        });
        (status, [(ERROR_TYPE, HeaderValue::from_static(name))], body).into_response()
    }
}

impl IntoResponse for AwsError {
    /// Status and headers; the body follows at the edge.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if matches!(
            self.exception,
            Exception::Throttling | Exception::ServiceUnavailable
        ) {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(1));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for AwsError {
    fn from(refusal: Refusal) -> Self {
        let exception = match &refusal {
            Refusal::Overloaded
            | Refusal::NotOwner
            | Refusal::NoQuorum
            | Refusal::StorageFull
            | Refusal::Quarantined
            | Refusal::Stopping => Exception::ServiceUnavailable,
            Refusal::TooManyInFlight => Exception::Throttling,
            Refusal::NotListed => Exception::Forbidden,
            Refusal::NotFound => Exception::ResourceNotFound,
            Refusal::Exists | Refusal::VersionConflict { .. } => Exception::Conflict,
            Refusal::Invalid { .. } => Exception::InvalidRequest,
            Refusal::TooLarge => Exception::RequestEntityTooLarge,
            // The cause is for the log, which has it already.
            Refusal::Internal(_) => {
                return Self::new(Exception::InternalFailure, "Internal service failure");
            },
        };
        Self::new(exception, refusal.to_string())
    }
}

impl From<Problem> for AwsError {
    /// What the edge itself refused.
    fn from(problem: Problem) -> Self {
        let exception = match problem.kind {
            Kind::InvalidRequest | Kind::RequestTimeout | Kind::HeadersTooLarge => {
                Exception::InvalidRequest
            },
            Kind::Forbidden => Exception::Forbidden,
            Kind::NotFound => Exception::ResourceNotFound,
            Kind::MethodNotAllowed => Exception::MethodNotAllowed,
            Kind::Conflict | Kind::PreconditionFailed => Exception::Conflict,
            Kind::TooLarge => Exception::RequestEntityTooLarge,
            Kind::UnsupportedMediaType => Exception::UnsupportedDocumentEncoding,
            Kind::TooManyRequests => Exception::Throttling,
            Kind::Internal => Exception::InternalFailure,
            Kind::Overloaded
            | Kind::NotOwner
            | Kind::NoQuorum
            | Kind::StorageFull
            | Kind::Quarantined
            | Kind::Stopping => Exception::ServiceUnavailable,
        };
        let title = problem.kind.title();
        Self::new(
            exception,
            problem.detail.unwrap_or_else(|| title.to_owned()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shadow_error_code_has_its_exception() {
        for code in [400, 401, 403, 404, 405, 409, 413, 415, 429, 500, 503] {
            assert_eq!(AwsError::of_code(code, "").status().as_u16(), code);
        }
        assert_eq!(AwsError::of_code(418, "").status().as_u16(), 500);
    }
}
