//! The cluster, for those who keep it running.
//!
//! What changes something is a POST with a JSON body: a page of the Internet cannot make a browser send that to us without
//! asking first, and we do not answer such questions.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Context, body,
    docs::{Always, OnChange},
    input::{Parameters, Segments},
};
use crate::{
    operator::{Cluster, Denied, Nodes, Shards, Token},
    problem::{Kind, Problem},
};

/// Longest life of a token: who can wait longer makes another.
const TTL_SECONDS_MAX: u64 = 7 * 24 * 3600;
const TTL_SECONDS_DEFAULT: u64 = 3600;

/// The path of a node.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NodePath {
    /// The node's number.
    #[param(minimum = 1, example = 2)]
    node: u64,
}

/// The path of a shard.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ShardPath {
    /// The shard's number.
    shard: u16,
}

/// Nothing to say; the object is there to be sent as `application/json`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Plain {}

/// How to remove a node.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    /// Even if it keeps shards: their other copies must do.
    #[serde(default)]
    force: bool,
}

/// Where a shard goes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    /// The new owner's number.
    to: u64,
}

/// A token wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenWanted {
    /// How long it is good.
    #[serde(default = "default_ttl")]
    #[schema(minimum = 1, maximum = 604_800)]
    ttl_seconds: u64,
}

const fn default_ttl() -> u64 {
    TTL_SECONDS_DEFAULT
}

/// The cluster in a few numbers.
#[utoipa::path(
    get,
    path = "/api/v1/cluster",
    operation_id = "getCluster",
    tag = "cluster",
    responses((status = 200, description = "The cluster", body = Cluster), Always)
)]
pub(super) async fn get(State(context): State<Context>) -> Json<Cluster> {
    Json(context.backend.operator().cluster().await)
}

/// Every node, those in trouble first.
#[utoipa::path(
    get,
    path = "/api/v1/cluster/nodes",
    operation_id = "listNodes",
    tag = "cluster",
    responses((status = 200, description = "The nodes", body = Nodes), Always)
)]
pub(super) async fn nodes(State(context): State<Context>) -> Json<Nodes> {
    let mut items = context.backend.operator().nodes().await;
    items.sort_by_key(|node| (node.state, node.id));
    Json(Nodes { items })
}

/// Every shard, those in trouble first.
#[utoipa::path(
    get,
    path = "/api/v1/cluster/shards",
    operation_id = "listShards",
    tag = "cluster",
    responses((status = 200, description = "The shards", body = Shards), Always)
)]
pub(super) async fn shards(State(context): State<Context>) -> Json<Shards> {
    let mut items = context.backend.operator().shards().await;
    items.sort_by_key(|shard| (shard.state, shard.id));
    Json(Shards { items })
}

/// Moves shards and then clients away from a node. It goes on by itself; look at the node to see how far it is.
#[utoipa::path(
    post,
    path = "/api/v1/cluster/nodes/{node}/drain",
    operation_id = "drainNode",
    tag = "cluster",
    params(NodePath),
    request_body = Plain,
    responses((status = 204, description = "It is being emptied"), OnChange)
)]
pub(super) async fn drain(
    State(context): State<Context>,
    Segments(NodePath { node }): Segments<NodePath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    set_draining(&context, node, (&headers, &body), true).await
}

/// Lets a drained node have shards and clients again.
#[utoipa::path(
    post,
    path = "/api/v1/cluster/nodes/{node}/undrain",
    operation_id = "undrainNode",
    tag = "cluster",
    params(NodePath),
    request_body = Plain,
    responses((status = 204, description = "It gets shards and clients again"), OnChange)
)]
pub(super) async fn undrain(
    State(context): State<Context>,
    Segments(NodePath { node }): Segments<NodePath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    set_draining(&context, node, (&headers, &body), false).await
}

async fn set_draining(
    context: &Context,
    node: u64,
    (headers, body): (&HeaderMap, &Bytes),
    draining: bool,
) -> Result<Response, Problem> {
    let Plain {} = body::shape(headers, body)?;
    let operator = context.backend.operator();
    operator.set_draining(node, draining).await?;
    tracing::info!(
        peer = node,
        draining,
        "an operator drains a node or ends that"
    );
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes a node out of the cluster for ever.
#[utoipa::path(
    post,
    path = "/api/v1/cluster/nodes/{node}/remove",
    operation_id = "removeNode",
    tag = "cluster",
    params(NodePath),
    request_body = Removal,
    responses((status = 204, description = "It is no part of the cluster any more"), OnChange)
)]
pub(super) async fn remove(
    State(context): State<Context>,
    Segments(NodePath { node }): Segments<NodePath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Removal { force } = body::shape(&headers, &body)?;
    context.backend.operator().remove(node, force).await?;
    tracing::info!(peer = node, force, "an operator removed a node");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes another of its replicas the owner of a shard.
#[utoipa::path(
    post,
    path = "/api/v1/cluster/shards/{shard}/transfer",
    operation_id = "transferShard",
    tag = "cluster",
    params(ShardPath),
    request_body = Transfer,
    responses((status = 204, description = "It has a new owner"), OnChange)
)]
pub(super) async fn transfer(
    State(context): State<Context>,
    Segments(ShardPath { shard }): Segments<ShardPath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let Transfer { to } = body::shape(&headers, &body)?;
    context.backend.operator().transfer(shard, to).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes a token with which one new node may join. It is shown this one time.
#[utoipa::path(
    post,
    path = "/api/v1/cluster/tokens",
    operation_id = "createToken",
    tag = "cluster",
    request_body = TokenWanted,
    responses((status = 201, description = "The token", body = Token), OnChange)
)]
pub(super) async fn create_token(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let TokenWanted { ttl_seconds } = body::shape(&headers, &body)?;
    if !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) {
        let detail = format!("must be from 1 to {TTL_SECONDS_MAX}");
        return Err(Problem::invalid("#/ttl_seconds", "out-of-range", detail));
    }
    let ttl = Duration::from_secs(ttl_seconds);
    let token = context.backend.operator().create_token(ttl).await?;
    tracing::info!(ttl_seconds, "an operator made a token");
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

/// Everything the cluster holds, as `umbel restore` reads it. The connection breaks if it cannot be brought to its end.
#[utoipa::path(
    get,
    path = "/api/v1/cluster/backup",
    operation_id = "backup",
    tag = "cluster",
    responses(
        (status = 200, description = "The backup", body = String, content_type = "application/octet-stream"),
        Always
    )
)]
pub(super) async fn backup(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.only(&[], &[])?;
    let parts = context.backend.operator().backup().await?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(parts)).into_response())
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let kind = match &denied {
            Denied::NotFound(_) => Kind::NotFound,
            Denied::Conflict(_) => Kind::Conflict,
            Denied::NoQuorum(_) => Kind::NoQuorum,
            // The cause is for the log, which has it already.
            Denied::Internal(_) => return Self::new(Kind::Internal),
        };
        Self::new(kind).with_detail(denied.to_string())
    }
}
