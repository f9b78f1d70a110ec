//! Our HTTP API, described by the OpenAPI document that is made from this code.
//!
//! The classic shadow of a device is `$classic` here: `classic` could be the name of a named shadow of yours.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderValue, header},
    response::IntoResponse,
    routing::get,
};
use tokio::sync::{Semaphore, watch};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    edge::{self, Flavor},
    limits::Limits,
    port::Backend,
    problem::ProblemBody,
};

mod body;
mod clients;
mod cluster;
mod devices;
mod docs;
mod events;
mod health;
mod input;
mod quarantine;
mod shadows;

pub(crate) use input::CLASSIC;

/// What handlers need.
#[derive(Clone)]
struct Context {
    backend: Arc<dyn Backend>,
    limits: Arc<Limits>,
    /// One permit per event stream.
    streams: Arc<Semaphore>,
    /// Becomes true when the server stops: streams end, for nothing else would end them.
    stop: watch::Receiver<bool>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Umbel",
        description = "Devices, their presence and their shadows. Times are RFC 3339 in UTC; lists are keyset \
                       pages; versions are entity tags; errors are problem details (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
        contact(name = "Umbel")
    ),
    components(schemas(ProblemBody, crate::model::Event)),
    tags(
        (name = "devices", description = "The registry and who is there"),
        (name = "shadows", description = "What devices are and should be"),
        (name = "clients", description = "MQTT sessions"),
        (name = "cluster", description = "Nodes and shards"),
        (name = "operation", description = "For those who keep the node running")
    )
)]
struct Document;

/// Our API as a router. Event streams end once `stop` holds true.
pub fn router(backend: Arc<dyn Backend>, limits: &Limits, stop: watch::Receiver<bool>) -> Router {
    let context = Context {
        backend,
        streams: Arc::new(Semaphore::new(limits.streams_max)),
        limits: Arc::new(limits.clone()),
        stop,
    };
    let (router, document) = described().split_for_parts();
    let text = serde_json::to_string(&document).expect("an OpenAPI document is JSON");
    let text: Arc<str> = Arc::from(text);
    let router = router
        .route(
            "/api/openapi.json",
            get(async move || {
                let json = HeaderValue::from_static("application/json");
                ([(header::CONTENT_TYPE, json)], text.as_ref().to_owned()).into_response()
            }),
        )
        .route("/api/problems/{slug}", get(docs::explain))
        .with_state(context);
    edge::around(router, Flavor::Api, limits)
}

/// The OpenAPI document.
pub fn openapi() -> utoipa::openapi::OpenApi {
    described().into_openapi()
}

fn described() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(devices::list))
        .routes(routes!(
            devices::get,
            devices::put,
            devices::patch,
            devices::delete
        ))
        .routes(routes!(shadows::list))
        .routes(routes!(
            shadows::get,
            shadows::put,
            shadows::patch,
            shadows::delete
        ))
        .routes(routes!(clients::list))
        .routes(routes!(clients::get, clients::kick))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::release))
        .routes(routes!(events::stream))
        .merge(of_the_cluster())
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

fn of_the_cluster() -> OpenApiRouter<Context> {
    OpenApiRouter::new()
        .routes(routes!(cluster::get))
        .routes(routes!(cluster::nodes))
        .routes(routes!(cluster::drain))
        .routes(routes!(cluster::undrain))
        .routes(routes!(cluster::remove))
        .routes(routes!(cluster::shards))
        .routes(routes!(cluster::transfer))
        .routes(routes!(cluster::create_token))
        .routes(routes!(cluster::backup))
}
