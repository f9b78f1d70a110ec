//! Shadows over REST (protocol.md 1.10).

use std::ops::RangeInclusive;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use umbel_core::{
    ids::{DeviceId, ShadowName},
    policy::Action,
};

use super::{
    Plane,
    error::AwsError,
    input::{self, Parameters, Segment},
    rights::Caller,
};
use crate::{
    cursor,
    port::{ShadowReply, ShadowRequest, ShadowVerb},
};

/// AWS allows 1 to 100 names a page.
const PAGE: RangeInclusive<u64> = 1..=100;
const PAGE_DEFAULT: u64 = 25;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    results: Vec<String>,
    /// Seconds.
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

pub(super) async fn get(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(thing): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let thing = input::thing(&thing)?;
    caller.need(Action::GetThingShadow, thing.as_str())?;
    ask(
        &plane,
        &thing,
        parameters.shadow()?,
        ShadowVerb::Get,
        Bytes::new(),
    )
    .await
}

pub(super) async fn update(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(thing): Segment,
    parameters: Parameters,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let thing = input::thing(&thing)?;
    caller.need(Action::UpdateThingShadow, thing.as_str())?;
    ask(
        &plane,
        &thing,
        parameters.shadow()?,
        ShadowVerb::Update,
        payload,
    )
    .await
}

pub(super) async fn delete(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(thing): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let thing = input::thing(&thing)?;
    caller.need(Action::DeleteThingShadow, thing.as_str())?;
    ask(
        &plane,
        &thing,
        parameters.shadow()?,
        ShadowVerb::Delete,
        Bytes::new(),
    )
    .await
}

pub(super) async fn list_named(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(thing): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let thing = input::thing(&thing)?;
    caller.need(Action::ListNamedShadowsForThing, thing.as_str())?;
    let limit = parameters.number("pageSize", PAGE_DEFAULT, PAGE)?;
    let after = parameters
        .next_token()?
        .map(|name| ShadowName::parse(&name))
        .transpose()
        .map_err(|_foreign| AwsError::invalid("Invalid nextToken"))?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = plane.backend.named_shadows(&thing, after, limit).await?;
    let names = Names {
        results: page.items.into_iter().map(String::from).collect(),
        timestamp: plane.backend.now().seconds(),
        next_token: page.next.as_deref().map(cursor::encode),
    };
    Ok(Json(names).into_response())
}

async fn ask(
    plane: &Plane,
    thing: &DeviceId,
    name: Option<ShadowName>,
    verb: ShadowVerb,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let request = ShadowRequest {
        name,
        verb,
        payload,
        if_version: None,
        may_be_stale: false,
    };
    match plane.backend.shadow(thing, request).await? {
        ShadowReply::Accepted(document) => {
            let json = HeaderValue::from_static("application/json");
            Ok(([(header::CONTENT_TYPE, json)], document).into_response())
        },
        ShadowReply::Rejected { code, message } => Err(AwsError::of_code(code, message)),
    }
}
