//! Shadows: what devices are and should be. The rules of merge, delta and version are `umbel-core`'s; here its
//! requests are built from resources and its answers taken apart.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use umbel_core::ids::{DeviceId, ShadowName};

use super::{
    Context, body,
    docs::{OnDevice, OnWrite},
    input::{
        CLASSIC, Consistency, DevicePath, Only, Paging, Parameters, Segments, ShadowPath, Unless,
    },
};
use crate::{
    cursor,
    etag::{self, Preconditions},
    model::{Shadow, ShadowSections, ShadowWritten, Shadows},
    port::{Page, ShadowReply, ShadowRequest, ShadowVerb},
    problem::{Kind, Problem},
};

/// How often a write begins anew after somebody else was faster.
const ATTEMPTS: usize = 3;

/// A document as the shadow service answers it (protocol.md 1.2).
#[derive(Default, Deserialize)]
struct Accepted {
    version: u64,
    #[serde(default)]
    state: Sections,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// What counts of the answer to a write; the rest repeats what was sent, nulls included.
#[derive(Deserialize)]
struct Done {
    version: u64,
}

#[derive(Default, Deserialize)]
struct Sections {
    #[serde(default)]
    desired: Map<String, Value>,
    #[serde(default)]
    reported: Map<String, Value>,
    #[serde(default)]
    delta: Map<String, Value>,
}

/// The names of a device's shadows. A device nobody knows has none.
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}/shadows",
    operation_id = "listShadows",
    tag = "shadows",
    params(DevicePath, Paging),
    responses(
        (status = 200, description = "A page of names", body = Shadows,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        OnDevice
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    Segments(DevicePath { id }): Segments<DevicePath>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.only(&["limit", "cursor"], &[])?;
    let limit = parameters.limit()?;
    let after = parameters.after(|key| ShadowName::parse(key).ok())?;
    let classic = classic_of(id);
    let shows_classic = after.is_none() && read(&context, &classic).await?.is_some();
    // A page that ended with the classic shadow goes on with the first named one.
    let after = after.filter(|name| *name != classic.name);
    let room = limit - usize::from(shows_classic);
    let mut page = context
        .backend
        .named_shadows(&classic.id, after, room.max(1))
        .await?;
    if room == 0 {
        let is_more = !page.items.is_empty();
        page = Page {
            items: Vec::new(),
            next: is_more.then(|| CLASSIC.to_owned()),
        };
    }
    let mut items: Vec<String> = page.items.into_iter().map(String::from).collect();
    if shows_classic {
        items.insert(0, CLASSIC.to_owned());
    }
    let next = page.next.as_deref().map(cursor::encode);
    let link = next
        .as_deref()
        .and_then(|cursor| parameters.next_link(cursor));
    let mut response = Json(Shadows { items, next }).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// One shadow, with the difference between what it is and should be.
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}/shadows/{name}",
    operation_id = "getShadow",
    tag = "shadows",
    params(
        ShadowPath,
        Consistency,
        Unless
    ),
    responses(
        (status = 200, description = "The shadow", body = Shadow,
            headers(("ETag" = String, description = "Its version"))),
        (status = 304, description = "It has not changed"),
        OnDevice
    )
)]
pub(super) async fn get(
    State(context): State<Context>,
    Segments(path): Segments<ShadowPath>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let any_copy = parameters.may_be_stale()?;
    let conditions = Preconditions::read(&headers)?;
    let accepted = read_from(&context, &path, any_copy).await?;
    let accepted = accepted.ok_or_else(|| unknown(&path))?;
    let tag = (header::ETAG, etag::of(accepted.version));
    if conditions
        .if_none_match
        .is_some_and(|condition| condition.holds(Some(accepted.version)))
    {
        return Ok((StatusCode::NOT_MODIFIED, [tag]).into_response());
    }
    let shadow = Shadow {
        device: path.id.into(),
        name: path.name.into(),
        version: accepted.version,
        desired: accepted.state.desired.into(),
        reported: accepted.state.reported.into(),
        delta: accepted.state.delta.into(),
        metadata: accepted.metadata.into(),
    };
    Ok(([tag], Json(shadow)).into_response())
}

/// Merges into one or both sections, and creates the shadow if there is none.
#[utoipa::path(
    patch,
    path = "/api/v1/devices/{id}/shadows/{name}",
    operation_id = "patchShadow",
    tag = "shadows",
    params(
        ShadowPath,
        Only
    ),
    request_body(content = ShadowSections, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "Merged", body = ShadowWritten,
            headers(("ETag" = String, description = "The new version"))),
        OnWrite
    )
)]
pub(super) async fn patch(
    State(context): State<Context>,
    Segments(path): Segments<ShadowPath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    let state = body::object(&headers, &body, body::MERGE_PATCH)?;
    let version = if conditions.is_empty() {
        None
    } else {
        let current = read(&context, &path)
            .await?
            .map(|accepted| accepted.version);
        conditions.check(current)?;
        current
    };
    let done = write(&context, &path, state, version).await?;
    Ok(written(StatusCode::OK, path, done.version))
}

/// Replaces both sections. What is not in the body is removed.
#[utoipa::path(
    put,
    path = "/api/v1/devices/{id}/shadows/{name}",
    operation_id = "putShadow",
    tag = "shadows",
    params(
        ShadowPath,
        Only,
        Unless
    ),
    request_body = ShadowSections,
    responses(
        (status = 200, description = "Replaced", body = ShadowWritten,
            headers(("ETag" = String, description = "The new version"))),
        (status = 201, description = "Created", body = ShadowWritten,
            headers(("ETag" = String, description = "The new version"))),
        OnWrite
    )
)]
pub(super) async fn put(
    State(context): State<Context>,
    Segments(path): Segments<ShadowPath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    let wanted = body::object(&headers, &body, body::JSON)?;
    for attempt in 0..ATTEMPTS {
        let current = read(&context, &path).await?;
        let version = current.as_ref().map(|accepted| accepted.version);
        conditions.check(version)?;
        let status = if version.is_some() {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        // Version 0 is "never written". A deleted shadow goes on counting and its number is not told, so that
        // after one refusal, and still without a shadow, the write goes without a version.
        let version = version.or_else(|| (attempt == 0).then_some(0));
        let state = replacement(current, &wanted);
        match write(&context, &path, state, version).await {
            Ok(done) => return Ok(written(status, path, done.version)),
            Err(problem) if problem.kind == Kind::PreconditionFailed => {},
            Err(problem) => return Err(problem),
        }
    }
    Err(Problem::new(Kind::Conflict)
        .with_detail("others change this shadow faster than this request"))
}

/// Deletes a shadow. Its version goes on counting if it is created again within 48 hours.
#[utoipa::path(
    delete,
    path = "/api/v1/devices/{id}/shadows/{name}",
    operation_id = "deleteShadow",
    tag = "shadows",
    params(
        ShadowPath,
        Only
    ),
    responses((status = 204, description = "Deleted"), OnWrite)
)]
pub(super) async fn delete(
    State(context): State<Context>,
    Segments(path): Segments<ShadowPath>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    let if_version = if conditions.is_empty() {
        None
    } else {
        let current = read(&context, &path)
            .await?
            .map(|accepted| accepted.version);
        conditions.check(current)?;
        current
    };
    let _: Done = ask(
        &context,
        &path,
        ShadowVerb::Delete,
        Bytes::new(),
        if_version,
        false,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn classic_of(id: DeviceId) -> ShadowPath {
    let name = ShadowName::parse(CLASSIC).expect("the classic shadow's name is a name");
    ShadowPath { id, name }
}

/// The sections of an update that turns `current` into `wanted`.
fn replacement(current: Option<Accepted>, wanted: &Map<String, Value>) -> Map<String, Value> {
    let old = current.unwrap_or_default().state;
    let mut state = wanted.clone();
    for (name, old) in [("desired", old.desired), ("reported", old.reported)] {
        let section = match state.remove(name) {
            None | Some(Value::Null) if old.is_empty() => continue,
            None | Some(Value::Null) => Value::Null,
            Some(Value::Object(new)) => Value::Object(body::replacing(&old, new)),
            // Not a section: the shadow service says so in its own words.
            Some(other) => other,
        };
        state.insert(name.to_owned(), section);
    }
    state
}

async fn read(context: &Context, path: &ShadowPath) -> Result<Option<Accepted>, Problem> {
    read_from(context, path, false).await
}

async fn read_from(
    context: &Context,
    path: &ShadowPath,
    any_copy: bool,
) -> Result<Option<Accepted>, Problem> {
    match ask(context, path, ShadowVerb::Get, Bytes::new(), None, any_copy).await {
        Ok(accepted) => Ok(Some(accepted)),
        Err(problem) if problem.kind == Kind::NotFound => Ok(None),
        Err(problem) => Err(problem),
    }
}

async fn write(
    context: &Context,
    path: &ShadowPath,
    state: Map<String, Value>,
    if_version: Option<u64>,
) -> Result<Done, Problem> {
    let mut request = json!({ "state": state });
    if let (Some(version), Some(members)) = (if_version, request.as_object_mut()) {
        members.insert("version".to_owned(), version.into());
    }
    let payload = Bytes::from(request.to_string());
    ask(
        context,
        path,
        ShadowVerb::Update,
        payload,
        if_version,
        false,
    )
    .await
}

async fn ask<T: DeserializeOwned>(
    context: &Context,
    path: &ShadowPath,
    verb: ShadowVerb,
    payload: Bytes,
    if_version: Option<u64>,
    may_be_stale: bool,
) -> Result<T, Problem> {
    let request = ShadowRequest {
        name: path.shadow(),
        verb,
        payload,
        if_version,
        may_be_stale,
    };
    match context.backend.shadow(&path.id, request).await? {
        ShadowReply::Accepted(body) => serde_json::from_slice(&body).map_err(|error| {
            tracing::error!(%error, "the shadow service answered what cannot be read");
            Problem::new(Kind::Internal)
        }),
        ShadowReply::Rejected { code, message } => Err(rejected(code, message, path)),
    }
}

/// A shadow error (protocol.md 1.9) as a problem.
fn rejected(code: u16, message: String, path: &ShadowPath) -> Problem {
    let kind = match code {
        400 => return Problem::invalid("#", "invalid", message),
        404 => return unknown(path),
        401 | 403 => Kind::Forbidden,
        // A version is only ever sent for the sake of a condition.
        409 => Kind::PreconditionFailed,
        413 => Kind::TooLarge,
        415 => Kind::UnsupportedMediaType,
        429 => Kind::TooManyRequests,
        503 => Kind::Overloaded,
        _ => Kind::Internal,
    };
    Problem::new(kind).with_detail(message)
}

fn written(status: StatusCode, path: ShadowPath, version: u64) -> Response {
    let body = ShadowWritten {
        device: path.id.into(),
        name: path.name.into(),
        version,
    };
    (status, [(header::ETAG, etag::of(version))], Json(body)).into_response()
}

fn unknown(path: &ShadowPath) -> Problem {
    Problem::not_found("shadow", path.name.as_str())
}
