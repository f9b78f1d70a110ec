//! For probes and scrapers.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Context, docs::Always, input::Parameters};
use crate::{
    model::{CheckResult, Readiness},
    problem::Problem,
};

/// The process answers. Depends on nothing, so that a slow disk never gets a node killed.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "livez",
    tag = "operation",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain"), Always)
)]
pub(super) async fn livez() -> &'static str {
    "ok"
}

/// How much to tell.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `readyz` reads")]
struct Detail {
    /// Show the checks that are well, too; `?verbose` is enough.
    #[param(required = false, pattern = "^(true|false)?$")]
    verbose: String,
}

/// Whether this node can serve. Names the checks that fail, with `?verbose` all of them.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "operation",
    params(Detail),
    responses(
        Always,
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot", content(
            (Readiness = "application/json"),
            (crate::problem::ProblemBody = "application/problem+json")
        ))
    )
)]
pub(super) async fn readyz(
    State(context): State<Context>,
    parameters: Parameters,
) -> Result<Response, Problem> {
    parameters.only(&["verbose"], &[])?;
    let verbose = parameters.one("verbose") == Some("") || parameters.flag("verbose")?;
    let stopping = *context.stop.borrow();
    let mut checks: Vec<_> = context
        .backend
        .checks()
        .into_iter()
        .map(|check| CheckResult {
            name: check.name.to_owned(),
            ok: check.ok,
            detail: check.detail,
        })
        .collect();
    if stopping {
        checks.push(CheckResult {
            name: "running".to_owned(),
            ok: false,
            detail: "the node is stopping".to_owned(),
        });
    }
    let ready = checks.iter().all(|check| check.ok);
    checks.retain(|check| verbose || !check.ok);
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok((status, Json(Readiness { ready, checks })).into_response())
}

/// Metrics in the Prometheus text format.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operation",
    responses((status = 200, description = "All metrics", body = String, content_type = "text/plain"), Always)
)]
pub(super) async fn metrics(State(context): State<Context>) -> Response {
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, format)], context.backend.metrics()).into_response()
}
