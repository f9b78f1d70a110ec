//! Devices: the registry and who is there.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use umbel_core::ids::DeviceId;
use utoipa::openapi::{Array, ArrayBuilder, ObjectBuilder, schema::Type};

use super::{
    Context, body,
    docs::{Always, OnDevice, OnWrite},
    input::{DevicePath, Only, Paging, Parameters, Segments, Unless},
};
use crate::{
    cursor,
    etag::{self, Preconditions},
    limits::{FACT_FILTER_MAX, TAG_FILTER_MAX, TAG_FILTERS_MAX},
    model::{Device, Devices, Registration, State as Presence},
    port::{DeviceQuery, Refusal},
    problem::{Kind, Problem},
};

/// How often a write begins anew after somebody else was faster.
const ATTEMPTS: usize = 3;

/// Which devices.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `query` reads")]
struct Filter {
    /// Any of these states.
    #[param(required = false)]
    state: Vec<Presence>,
    /// Attribute `type`.
    #[param(required = false, min_length = 1, max_length = 128)]
    r#type: String,
    /// Attribute `site`.
    #[param(required = false, min_length = 1, max_length = 128)]
    site: String,
    /// Attribute `region`.
    #[param(required = false, min_length = 1, max_length = 128)]
    region: String,
    /// Every one of these tags: `name=value`.
    #[param(required = false, schema_with = tags)]
    tag: Vec<String>,
}

fn tags() -> Array {
    let tag = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[a-zA-Z0-9_.,@/:#-]+=[^=]*$"))
        .max_length(Some(TAG_FILTER_MAX));
    ArrayBuilder::new()
        .items(tag.build())
        .max_items(Some(TAG_FILTERS_MAX))
        .build()
}

/// Devices in id order. A page may hold fewer than `limit` and still have a `next`.
#[utoipa::path(
    get,
    path = "/api/v1/devices",
    operation_id = "listDevices",
    tag = "devices",
    params(Filter, Paging),
    responses(
        (status = 200, description = "A page of devices", body = Devices,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        Always
    )
)]
pub(super) async fn list(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let page = context.backend.devices(query(&parameters)?).await?;
    let next = page.next.as_deref().map(cursor::encode);
    let link = next
        .as_deref()
        .and_then(|cursor| parameters.next_link(cursor));
    let mut response = Json(Devices {
        items: page.items,
        next,
    })
    .into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// One device with all that is known about its presence.
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}",
    operation_id = "getDevice",
    tag = "devices",
    params(DevicePath),
    responses(
        (status = 200, description = "The device", body = Device,
            headers(("ETag" = String, description = "Revision of the attributes"))),
        OnDevice
    )
)]
pub(super) async fn get(
    State(context): State<Context>,
    Segments(DevicePath { id }): Segments<DevicePath>,
) -> Result<Response, Problem> {
    let device = context
        .backend
        .device(&id)
        .await?
        .ok_or_else(|| unknown(&id))?;
    Ok(answer(StatusCode::OK, device))
}

/// Creates a device before it first connects, or replaces its attributes.
#[utoipa::path(
    put,
    path = "/api/v1/devices/{id}",
    operation_id = "putDevice",
    tag = "devices",
    params(
        DevicePath,
        Only,
        Unless
    ),
    request_body = Registration,
    responses(
        (status = 200, description = "The attributes were replaced", body = Device,
            headers(("ETag" = String, description = "Revision of the attributes"))),
        (status = 201, description = "The device was created", body = Device,
            headers(("ETag" = String, description = "Revision of the attributes"))),
        OnWrite
    )
)]
pub(super) async fn put(
    State(context): State<Context>,
    Segments(DevicePath { id }): Segments<DevicePath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    let wanted: Registration = body::shape(&headers, &body)?;
    for _ in 0..ATTEMPTS {
        let current = context.backend.device(&id).await?;
        conditions.check(current.as_ref().map(|device| device.revision))?;
        let (status, written) = match current {
            None => (
                StatusCode::CREATED,
                context.backend.create_device(&id, body.clone()).await,
            ),
            Some(device) => {
                let patch = replacement(&device, &wanted);
                let revision = Some(device.revision);
                let written = context.backend.patch_device(&id, patch, revision).await;
                (StatusCode::OK, written)
            },
        };
        match written {
            Ok(device) => return Ok(answer(status, device)),
            Err(refusal) if is_race(&refusal) => {},
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(outrun())
}

/// Merges into the attributes (RFC 7396): `null` removes, arrays are replaced whole.
#[utoipa::path(
    patch,
    path = "/api/v1/devices/{id}",
    operation_id = "patchDevice",
    tag = "devices",
    params(
        DevicePath,
        Only
    ),
    request_body(
        content = Registration,
        content_type = "application/merge-patch+json"
    ),
    responses(
        (status = 200, description = "The attributes were changed", body = Device,
            headers(("ETag" = String, description = "Revision of the attributes"))),
        OnWrite
    )
)]
pub(super) async fn patch(
    State(context): State<Context>,
    Segments(DevicePath { id }): Segments<DevicePath>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    body::check_type(&headers, body::MERGE_PATCH)?;
    for _ in 0..ATTEMPTS {
        let revision = checked(&context, &id, &conditions).await?;
        match context
            .backend
            .patch_device(&id, body.clone(), revision)
            .await
        {
            Ok(device) => return Ok(answer(StatusCode::OK, device)),
            Err(Refusal::NotFound) => return Err(unknown(&id)),
            Err(refusal) if is_race(&refusal) => {},
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(outrun())
}

/// Forgets a device: its record, session and attributes; a connection is ended. Its shadows stay, as with AWS. It may
/// come back, unless only listed devices are admitted.
#[utoipa::path(
    delete,
    path = "/api/v1/devices/{id}",
    operation_id = "deleteDevice",
    tag = "devices",
    params(
        DevicePath,
        Only
    ),
    responses((status = 204, description = "It is forgotten"), OnWrite)
)]
pub(super) async fn delete(
    State(context): State<Context>,
    Segments(DevicePath { id }): Segments<DevicePath>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let conditions = Preconditions::read(&headers)?;
    for _ in 0..ATTEMPTS {
        let revision = checked(&context, &id, &conditions).await?;
        match context.backend.delete_device(&id, revision).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Err(Refusal::NotFound) => return Err(unknown(&id)),
            Err(refusal) if is_race(&refusal) => {},
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(outrun())
}

/// The revision a conditional write must still find; `None` when nothing was asked.
async fn checked(
    context: &Context,
    id: &DeviceId,
    conditions: &Preconditions,
) -> Result<Option<u64>, Problem> {
    if conditions.is_empty() {
        return Ok(None);
    }
    let revision = context
        .backend
        .device(id)
        .await?
        .map(|device| device.revision);
    conditions.check(revision)?;
    // A condition can hold of nothing (`If-None-Match`), and a change of nothing is 404.
    revision.map(Some).ok_or_else(|| unknown(id))
}

fn query(parameters: &Parameters) -> Result<DeviceQuery, Problem> {
    parameters.only(
        &["type", "site", "region", "limit", "cursor"],
        &["state", "tag"],
    )?;
    let states = parameters
        .all("state")
        .map(state)
        .collect::<Result<_, _>>()?;
    let tags = parameters
        .all("tag")
        .map(tag)
        .collect::<Result<Vec<_>, _>>()?;
    if tags.len() > TAG_FILTERS_MAX {
        let detail = format!("at most {TAG_FILTERS_MAX} tags");
        return Err(Problem::invalid("query:tag", "too-many", detail));
    }
    Ok(DeviceQuery {
        states,
        kind: text(parameters, "type")?,
        site: text(parameters, "site")?,
        region: text(parameters, "region")?,
        tags,
        after: parameters.after(|key| DeviceId::parse(key).ok())?,
        limit: parameters.limit()?,
    })
}

fn state(text: &str) -> Result<Presence, Problem> {
    Presence::ALL
        .into_iter()
        .find(|state| state.as_str() == text)
        .ok_or_else(|| {
            let detail = "a state is one of never, online, stale, offline";
            Problem::invalid("query:state", "unknown-state", detail)
        })
}

fn tag(text: &str) -> Result<(String, String), Problem> {
    let tag = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let tag = tag.filter(|_| text.chars().count() <= TAG_FILTER_MAX);
    let (name, value) =
        tag.ok_or_else(|| Problem::invalid("query:tag", "malformed", "a tag is `name=value`"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn text(parameters: &Parameters, name: &str) -> Result<Option<String>, Problem> {
    let Some(text) = parameters.one(name) else {
        return Ok(None);
    };
    if text.is_empty() || text.chars().count() > FACT_FILTER_MAX {
        let detail = format!("`{name}` must have 1 to {FACT_FILTER_MAX} characters");
        return Err(Problem::invalid(
            format!("query:{name}"),
            "out-of-range",
            detail,
        ));
    }
    Ok(Some(text.to_owned()))
}

/// The patch that makes of a device what is wanted.
fn replacement(device: &Device, wanted: &Registration) -> Bytes {
    let old = Registration {
        r#type: device.r#type.clone(),
        site: device.site.clone(),
        region: device.region.clone(),
        tags: device.tags.clone(),
        attributes: device.attributes.clone(),
    };
    body::bytes(&body::replacing(
        &body::members(&old),
        body::members(wanted),
    ))
}

fn answer(status: StatusCode, device: Device) -> Response {
    let tag = etag::of(device.revision);
    (status, [(header::ETAG, tag)], Json(device)).into_response()
}

/// Whether the world changed between our read and our write.
fn is_race(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::VersionConflict { .. } | Refusal::NotFound | Refusal::Exists
    )
}

fn outrun() -> Problem {
    Problem::new(Kind::Conflict).with_detail("others change this device faster than this request")
}

fn unknown(id: &DeviceId) -> Problem {
    Problem::not_found("device", id.as_str())
}
