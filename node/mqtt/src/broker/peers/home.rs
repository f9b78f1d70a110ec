//! What gateways and homes of durable sessions say to each other.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use umbel_actors::ports::BoxFuture;
use umbel_core::ids::NodeId;

use crate::broker::Broker;

/// A question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {}

/// Its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {}

/// A notice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Tell {}

/// See [`Broker::serve_ask`].
pub(super) fn serve_ask(
    _broker: &Arc<Broker>,
    _from: NodeId,
    ask: Ask,
) -> BoxFuture<'static, Result<Reply, String>> {
    match ask {}
}

/// See [`Broker::serve_tell`].
pub(super) fn serve_tell(_broker: &Arc<Broker>, _from: NodeId, tell: Tell) {
    match tell {}
}
