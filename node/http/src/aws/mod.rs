//! The data plane of AWS `IoT` (protocol.md 1.10) for unmodified AWS clients.
//!
//! Who calls is known from the client certificate, and every operation is judged by the caller's policy before
//! anything is looked up: what is forbidden and what does not exist look the same to those who may not ask.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rustls::pki_types::CertificateDer;

use crate::{
    edge::{self, Flavor},
    limits::Limits,
    port::{Backend, BoxFuture},
    serve::Peer,
};

mod connections;
mod error;
mod input;
mod publish;
mod retained;
mod rights;
mod shadows;

pub(crate) use error::AwsError;
pub use rights::Caller;

use error::Exception;

/// Tells who a client certificate speaks for.
pub trait Identify: Send + Sync + 'static {
    /// The caller, `None` if the certificate is not one of ours or is no longer good. The chain is verified
    /// already, leaf first.
    fn identify<'a>(
        &'a self,
        certificates: &'a [CertificateDer<'static>],
    ) -> BoxFuture<'a, Option<Caller>>;
}

/// Who may call.
#[derive(Clone)]
pub enum Access {
    /// Everybody, for tests and trusted networks; with the rights of this caller.
    Open(Caller),
    /// Whoever shows a certificate.
    Certificates(Arc<dyn Identify>),
}

/// What handlers need.
#[derive(Clone)]
struct Plane {
    backend: Arc<dyn Backend>,
}

/// The data plane as a router.
pub fn aws_router(backend: Arc<dyn Backend>, access: Access, limits: &Limits) -> Router {
    let router = Router::new()
        .route(
            "/things/{thing}/shadow",
            get(shadows::get)
                .post(shadows::update)
                .delete(shadows::delete),
        )
        .route(
            "/api/things/shadow/ListNamedShadowsForThing/{thing}",
            get(shadows::list_named),
        )
        .route("/topics/{*topic}", post(publish::publish))
        .route("/retainedMessage", get(retained::list))
        .route("/retainedMessage/{*topic}", get(retained::get))
        .route(
            "/connections/{client}",
            get(connections::get).delete(connections::delete),
        )
        .route(
            "/connections/{client}/subscriptions",
            get(connections::subscriptions),
        )
        .route("/connections/{client}/messages", post(connections::send))
        .route_layer(middleware::from_fn_with_state(access, authenticate))
        .with_state(Plane { backend });
    edge::around(router, Flavor::Aws, limits)
}

/// Puts the [`Caller`] where handlers find it.
async fn authenticate(
    State(access): State<Access>,
    peer: Option<Extension<Peer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match access {
        Access::Open(caller) => Some(caller),
        Access::Certificates(identify) => match &peer {
            Some(Extension(peer)) if !peer.certificates.is_empty() => {
                identify.identify(&peer.certificates).await
            },
            Some(_) | None => None,
        },
    };
    let Some(caller) = caller else {
        return AwsError::new(Exception::Forbidden, "Forbidden").into_response();
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}
