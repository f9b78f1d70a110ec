//! Clients: MQTT sessions, connected or waiting.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use umbel_core::ids::ClientId;

use super::{
    Context,
    docs::{Always, OnOne},
    input::{ClientPath, Paging, Parameters, Segments},
};
use crate::{
    cursor,
    model::{Client, Clients},
    port::Kick,
    problem::Problem,
};

const CLIENT: &str = "connected client";

/// Clients in id order.
#[utoipa::path(
    get,
    path = "/api/v1/clients",
    operation_id = "listClients",
    tag = "clients",
    params(Paging),
    responses(
        (status = 200, description = "A page of clients", body = Clients,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        Always
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.only(&["limit", "cursor"], &[])?;
    let after = parameters.after(|key| ClientId::parse(key).ok())?;
    let page = context.backend.clients(after, parameters.limit()?).await?;
    let next = page.next.as_deref().map(cursor::encode);
    let link = next
        .as_deref()
        .and_then(|cursor| parameters.next_link(cursor));
    let mut response = Json(Clients {
        items: page.items,
        next,
    })
    .into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// One client.
#[utoipa::path(
    get,
    path = "/api/v1/clients/{id}",
    operation_id = "getClient",
    tag = "clients",
    params(ClientPath),
    responses((status = 200, description = "The client", body = Client), OnOne)
)]
pub(super) async fn get(
    State(context): State<Context>,
    Segments(path): Segments<ClientPath>,
) -> Result<Json<Client>, Problem> {
    let id = path.client(CLIENT)?;
    context
        .backend
        .client(&id)
        .await?
        .map(Json)
        .ok_or_else(|| unknown(&id))
}

/// Ends the client's connection. Its session stays unless `clean_session`, its will is published unless
/// `prevent_will`; a client that wants to will connect again.
#[utoipa::path(
    delete,
    path = "/api/v1/clients/{id}",
    operation_id = "kickClient",
    tag = "clients",
    params(
        ClientPath,
        ("clean_session" = Option<bool>, Query, description = "End the session too"),
        ("prevent_will" = Option<bool>, Query, description = "Do not publish the will")
    ),
    responses((status = 204, description = "The connection is ended"), OnOne)
)]
pub(super) async fn kick(
    State(context): State<Context>,
    Segments(path): Segments<ClientPath>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let id = path.client(CLIENT)?;
    parameters.only(&["clean_session", "prevent_will"], &[])?;
    let how = Kick {
        clean_session: parameters.flag("clean_session")?,
        prevent_will: parameters.flag("prevent_will")?,
    };
    if context.backend.kick(&id, how).await? {
        Ok(StatusCode::NO_CONTENT.into_response())
    } else {
        Err(unknown(&id))
    }
}

fn unknown(id: &ClientId) -> Problem {
    Problem::not_found(CLIENT, id.as_str())
}
