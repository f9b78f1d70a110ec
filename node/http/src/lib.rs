//! The HTTP edge: our own API ([`router`]) and the data plane of AWS `IoT` ([`aws_router`]), with the servers that
//! carry them ([`serve`]).
//!
//! What enters here is parsed and bounded here; what is decided is decided behind [`port::Backend`]. A handler
//! reads its input, makes one call and shapes the answer. Deliberately absent: MQTT packets, storage, the
//! actors' messages, and any rule about shadows or presence.

mod api;
mod aws;
mod backend;
mod cursor;
mod edge;
mod etag;
pub mod limits;
pub mod metrics;
pub mod model;
pub mod operator;
pub mod port;
mod problem;
pub mod serve;
pub mod time;

pub use axum::Router;

pub use api::{openapi, router};
pub use aws::{Access, Caller, Identify, aws_router};
pub use backend::{Api, Carried, Elsewhere, Instruments, Nowhere, carried};
pub use limits::Limits;
