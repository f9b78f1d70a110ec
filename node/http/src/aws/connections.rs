//! Connections: who is there, what they subscribed to, and how to end it.

use std::{ops::RangeInclusive, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use umbel_core::policy::{Action, client_may_publish};

use super::{
    Plane,
    error::{AwsError, Exception},
    input::{self, Parameters, Segment},
    publish,
    rights::Caller,
};
use crate::{
    cursor,
    edge::RequestId,
    model::Client,
    port::{Direct, Kick},
};

const SUBSCRIPTIONS_PAGE: RangeInclusive<u64> = 1..=200;
const SUBSCRIPTIONS_PAGE_DEFAULT: u64 = 20;
/// Seconds to wait for a confirmation; our own answer timeout is above the most.
const CONFIRMATION: RangeInclusive<u64> = 1..=20;
const CONFIRMATION_DEFAULT: u64 = 10;

/// Fields that do not apply are absent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    client_id: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    thing_name: Option<String>,
    clean_session: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    keep_alive_duration: u16,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<u64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnected_since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<String>,
    session_expiry: u32,
}

impl Connection {
    fn new(client: Client, with_socket: bool) -> Self {
        let Client {
            id,
            kind,
            connected,
            session,
            port,
            ..
        } = client;
        let millis_of_end = client.disconnected_at.map(|at| at.0.millis());
        Self {
            connected,
            thing_name: (kind == "device").then(|| id.clone()),
            client_id: id,
            clean_session: session.clean,
            source_ip: session.ip.filter(|_| with_socket),
            source_port: port.filter(|_| with_socket),
            keep_alive_duration: session.keep_alive_seconds,
            connected_since: session
                .connected_at
                .filter(|_| connected)
                .map(|at| at.0.millis()),
            disconnected_since: millis_of_end.filter(|_| !connected),
            disconnect_reason: client.disconnect_reason.filter(|_| !connected),
            session_expiry: session.expiry_seconds,
        }
    }
}

pub(super) async fn get(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(client): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let client = input::client(&client)?;
    caller.need(Action::GetConnection, client.as_str())?;
    let with_socket = parameters.flag("includeSocketInformation")?;
    let found = plane.backend.client(&client).await?.ok_or_else(unknown)?;
    Ok(Json(Connection::new(found, with_socket)).into_response())
}

pub(super) async fn delete(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(client): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let client = input::client(&client)?;
    caller.need(Action::DeleteConnection, client.as_str())?;
    let how = Kick {
        clean_session: parameters.flag("cleanSession")?,
        prevent_will: parameters.flag("preventWillMessage")?,
    };
    if !plane.backend.kick(&client, how).await? {
        return Err(unknown());
    }
    Ok(Json(json!({})).into_response())
}

pub(super) async fn subscriptions(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Segment(client): Segment,
    parameters: Parameters,
) -> Result<Response, AwsError> {
    let client = input::client(&client)?;
    caller.need(Action::ListSubscriptions, client.as_str())?;
    let limit = parameters.number("maxResults", SUBSCRIPTIONS_PAGE_DEFAULT, SUBSCRIPTIONS_PAGE)?;
    let limit = usize::try_from(limit).unwrap_or_default();
    let after = parameters.next_token()?;
    let all = plane
        .backend
        .subscriptions(&client)
        .await?
        .ok_or_else(unknown)?;
    let mut rest = all
        .into_iter()
        .filter(|one| after.as_ref().is_none_or(|after| one.filter > *after));
    let page: Vec<_> = rest.by_ref().take(limit).collect();
    let is_more = rest.next().is_some();
    let next = page
        .last()
        .filter(|_| is_more)
        .map(|last| cursor::encode(&last.filter));
    let shown: Vec<_> = page
        .iter()
        .map(|one| json!({ "topicFilter": one.filter, "qos": one.qos as u8 }))
        .collect();
    let body = match next {
        Some(token) => json!({ "subscriptions": shown, "nextToken": token }),
        None => json!({ "subscriptions": shown }),
    };
    Ok(Json(body).into_response())
}

/// `SendDirectMessage`: to one client, subscribed or not.
#[expect(clippy::too_many_arguments, reason = "each is one axum extractor")]
pub(super) async fn send(
    State(plane): State<Plane>,
    Extension(caller): Extension<Caller>,
    Extension(request): Extension<RequestId>,
    Segment(client): Segment,
    parameters: Parameters,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<Response, AwsError> {
    let client = input::client(&client)?;
    caller.need(Action::SendDirectMessage, client.as_str())?;
    let topic = parameters
        .get("topic")
        .ok_or_else(|| AwsError::invalid("topic is missing"))?;
    input::check_topic(topic)?;
    if !client_may_publish(topic) {
        return Err(AwsError::new(Exception::Forbidden, "Forbidden"));
    }
    let timeout = parameters.number("timeout", CONFIRMATION_DEFAULT, CONFIRMATION)?;
    let confirm = parameters
        .flag("confirmation")?
        .then(|| Duration::from_secs(timeout));
    let now = plane.backend.now();
    let message = publish::message(now, topic.to_owned(), &headers, &parameters, payload)?;
    match plane.backend.send_direct(&client, message, confirm).await? {
        Direct::Sent => Ok(publish::accepted(&request)),
        Direct::NotConnected => Err(unknown()),
        Direct::NotConfirmed => Err(AwsError::new(
            Exception::GatewayTimeout,
            "the client did not acknowledge the message in time",
        )),
        Direct::Forbidden => Err(AwsError::new(Exception::Forbidden, "Forbidden")),
    }
}

fn unknown() -> AwsError {
    AwsError::not_found("The client is not connected")
}
