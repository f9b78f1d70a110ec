//! Devices whose actor failed again and again.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{
    Context,
    docs::{Always, OnOne},
    input::{ClientPath, Segments},
};
use crate::{model::Quarantine, problem::Problem};

const QUARANTINED: &str = "quarantined device";

/// All quarantined devices, with the reason. Few: a device gets here by a bug of ours.
#[utoipa::path(
    get,
    path = "/api/v1/quarantine",
    operation_id = "listQuarantine",
    tag = "operation",
    responses((status = 200, description = "The devices", body = Quarantine), Always)
)]
pub(super) async fn list(State(context): State<Context>) -> Result<Json<Quarantine>, Problem> {
    let items = context.backend.quarantined().await?;
    Ok(Json(Quarantine { items }))
}

/// Releases a device: its actor is started again with the next request for it.
#[utoipa::path(
    delete,
    path = "/api/v1/quarantine/{id}",
    operation_id = "releaseFromQuarantine",
    tag = "operation",
    params(ClientPath),
    responses((status = 204, description = "It is released"), OnOne)
)]
pub(super) async fn release(
    State(context): State<Context>,
    Segments(path): Segments<ClientPath>,
) -> Result<Response, Problem> {
    let id = path.client(QUARANTINED)?;
    if context.backend.release(&id).await? {
        tracing::info!(client = %id, "released from quarantine by an operator");
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(Problem::not_found(QUARANTINED, id.as_str()))
    }
}
