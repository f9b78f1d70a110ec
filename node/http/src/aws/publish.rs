//! Publish: one MQTT message over HTTP.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;
use umbel_core::{
    message::{Message, Qos},
    time::Timestamp,
};

use super::{
    Plane,
    error::{AwsError, Exception},
    input::{self, Parameters, Segment},
    rights::Caller,
};
use crate::{edge::RequestId, limits::PUBLISH_BYTES_MAX};

#[expect(clippy::too_many_arguments, reason = "each is one axum extractor")]
pub(super) async fn publish(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Extension(request): Extension<RequestId>,
    Segment(topic): Segment,
    parameters: Parameters,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Response, AwsError> {
    input::check_topic(&topic)?;
    let retain = parameters.flag("retain")?;
    caller.need_publish(&topic, retain)?;
    let qos = match parameters.number("qos", 0, 0..=1)? {
        0 => Qos::AtMostOnce,
        _ => Qos::AtLeastOnce,
    };
    let draft = message(plane.backend.now(), topic, &headers, &parameters, payload)?;
    plane
        .backend
        .publish(Message {
            qos,
            retain,
            ..draft
        })
        .await?;
    Ok(accepted(&request))
}

/// The message without QoS and retain.
pub(super) fn message(
    now: Timestamp,
    topic: String,
    headers: &HeaderMap,
    parameters: &Parameters,
    payload: Bytes,
) -> Result<Message, AwsError> {
    if payload.len() > PUBLISH_BYTES_MAX {
        return Err(AwsError::new(
            Exception::RequestEntityTooLarge,
            format!("the payload exceeds {PUBLISH_BYTES_MAX} bytes"),
        ));
    }
    // The default lies outside of what can be asked for: no expiry.
    let expiry = parameters.number("messageExpiry", 0, 1..=u64::from(u32::MAX))?;
    let properties = input::properties(headers, parameters, &payload)?;
    Ok(Message {
        expires_at: (expiry > 0).then(|| now + Duration::from_secs(expiry)),
        properties,
        ..Message::from_cluster(topic, payload, Qos::AtMostOnce, now)
    })
}

/// AWS's answer to a message it took.
pub(super) fn accepted(request: &RequestId) -> Response {
    Json(json!({ "message": "OK", "traceId": request.0.as_ref() })).into_response()
}
