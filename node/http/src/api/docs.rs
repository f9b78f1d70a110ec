//! The failures that operations declare, and the pages that explain them.

use std::collections::BTreeMap;

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use utoipa::{
    IntoResponses,
    openapi::{
        ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, ResponseBuilder, schema::Type,
    },
};

use crate::problem::{Kind, Problem};

type Responses = BTreeMap<String, RefOr<utoipa::openapi::Response>>;

/// What any operation may answer.
pub(super) struct Always;

/// What an operation on one thing may answer besides.
pub(super) struct OnOne;

/// What a read of one shadow or device may answer besides.
pub(super) struct OnDevice;

/// What a conditional write may answer besides.
pub(super) struct OnWrite;

/// What a change of the cluster may answer besides.
pub(super) struct OnChange;

const ALWAYS: [Kind; 6] = [
    Kind::InvalidRequest,
    Kind::RequestTimeout,
    Kind::TooLarge,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::Overloaded,
];

impl IntoResponses for Always {
    fn responses() -> Responses {
        declare(&ALWAYS)
    }
}

impl IntoResponses for OnOne {
    fn responses() -> Responses {
        let mut responses = declare(&ALWAYS);
        responses.extend(declare(&[Kind::NotFound]));
        responses
    }
}

impl IntoResponses for OnDevice {
    fn responses() -> Responses {
        let mut responses = OnOne::responses();
        responses.extend(declare(&[Kind::Forbidden, Kind::TooManyRequests]));
        responses
    }
}

impl IntoResponses for OnWrite {
    fn responses() -> Responses {
        let mut responses = OnDevice::responses();
        responses.extend(declare(&[
            Kind::Conflict,
            Kind::PreconditionFailed,
            Kind::UnsupportedMediaType,
        ]));
        responses
    }
}

impl IntoResponses for OnChange {
    fn responses() -> Responses {
        let mut responses = OnOne::responses();
        responses.extend(declare(&[Kind::Conflict, Kind::UnsupportedMediaType]));
        responses
    }
}

fn declare(kinds: &[Kind]) -> Responses {
    kinds.iter().map(|kind| declared(*kind)).collect()
}

fn declared(kind: Kind) -> (String, RefOr<utoipa::openapi::Response>) {
    let status = kind.status();
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let mut response = ResponseBuilder::new()
        .description(kind.title())
        .content("application/problem+json", content);
    if matches!(status.as_u16(), 429 | 503) {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
            .build();
        let header = HeaderBuilder::new()
            .schema(seconds)
            .description(Some("Seconds to wait before trying again"))
            .build();
        response = response.header("Retry-After", header);
    }
    (status.as_u16().to_string(), response.build().into())
}

/// The page behind a problem's `type`.
pub(super) async fn explain(Path(slug): Path<String>) -> Result<Response, Problem> {
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.slug() == slug)
        .ok_or_else(|| Problem::not_found("problem", &slug))?;
    let (title, status, advice) = (kind.title(), kind.status(), kind.advice());
    Ok(format!("{title} ({status})\n\n{advice}\n").into_response())
}
