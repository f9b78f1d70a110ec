//! Retained messages.

use std::ops::RangeInclusive;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::{Map, Value};
use umbel_core::{message::Message, policy::Action};

use super::{
    Plane,
    error::AwsError,
    input::{self, Parameters, Segment},
    rights::Caller,
};
use crate::cursor;

/// AWS allows 1 to 200 topics a page.
const PAGE: RangeInclusive<u64> = 1..=200;
const PAGE_DEFAULT: u64 = 200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retained<'a> {
    topic: &'a str,
    /// Base64.
    payload: String,
    qos: u8,
    /// Milliseconds.
    last_modified_time: u64,
    /// Base64 of a JSON array, or null.
    user_properties: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Topics {
    retained_topics: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    topic: String,
    payload_size: u64,
    qos: u8,
    /// Milliseconds.
    last_modified_time: u64,
}

pub(super) async fn get(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(topic): Segment,
) -> Result<Response, AwsError> {
    input::check_topic(&topic)?;
    caller.need(Action::GetRetainedMessage, &topic)?;
    let found = plane.backend.retained(&topic).await?;
    let message = found.ok_or_else(|| {
        AwsError::not_found(format!("No retained message exists for topic: '{topic}'"))
    })?;
    let retained = Retained {
        topic: &message.topic,
        payload: STANDARD.encode(&message.payload),
        qos: message.qos as u8,
        last_modified_time: message.received_at.millis(),
        user_properties: user_properties(&message),
    };
    Ok(Json(retained).into_response())
}

pub(super) async fn list(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    caller.need(Action::ListRetainedMessages, "")?;
    let limit = parameters.number("maxResults", PAGE_DEFAULT, PAGE)?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let page = plane
        .backend
        .retained_list(parameters.next_token()?, limit)
        .await?;
    let retained_topics = page
        .items
        .into_iter()
        .map(|summary| Summary {
            topic: summary.topic,
            payload_size: summary.payload_bytes,
            qos: summary.qos as u8,
            last_modified_time: summary.stored_at.millis(),
        })
        .collect();
    let next_token = page.next.as_deref().map(cursor::encode);
    Ok(Json(Topics {
        retained_topics,
        next_token,
    })
    .into_response())
}

/// Order and repeated names are kept: one object per property.
fn user_properties(message: &Message) -> Option<String> {
    let user = &message.properties.as_ref()?.user;
    if user.is_empty() {
        return None;
    }
    let entries = user
        .iter()
        .map(|(name, value)| {
            Value::Object(Map::from_iter([(
                name.clone(),
                Value::String(value.clone()),
            )]))
        })
        .collect();
    Some(STANDARD.encode(Value::Array(entries).to_string()))
}
