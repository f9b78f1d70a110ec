//! What the HTTP edge asks of the world: one narrow trait. [`Api`](crate::Api) gives it the real fleet and
//! broker; tests give it a few maps.
//!
//! Every call here is rare beside MQTT traffic, so futures are boxed and the trait stays object-safe.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use thiserror::Error;
use umbel_core::{
    ids::{ClientId, DeviceId, ShadowName},
    message::{Message, Qos},
    time::Timestamp,
};

use crate::{
    model::{Client, Device, Event, Quarantined, State},
    operator::Operator,
};

/// A future without a name.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a call has no result. Unless said otherwise nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Too much work at once for the shard.
    #[error("the shard of this device has too much to do")]
    Overloaded,
    /// Too many requests of one device at once.
    #[error("too many requests in flight for this device")]
    TooManyInFlight,
    /// The device is owned elsewhere, or by nobody yet.
    #[error("the owner of the device is changing")]
    NotOwner,
    /// Nobody who could decide can be reached.
    #[error("nobody who owns the device can be reached: it moves, or too few nodes answer")]
    NoQuorum,
    /// The disk is full.
    #[error("the disk is full; writes are refused until there is space")]
    StorageFull,
    /// The device's actor failed too often.
    #[error("the device is quarantined")]
    Quarantined,
    /// The node is going down.
    #[error("the node is stopping")]
    Stopping,
    /// Only listed devices are admitted, and this one is not.
    #[error("the device is not on the list of admitted devices")]
    NotListed,
    /// Nothing of this name.
    #[error("there is nothing of this name")]
    NotFound,
    /// There is one already.
    #[error("there is one of this name already")]
    Exists,
    /// The version asked for is not the current one.
    #[error("the version asked for is not the current one")]
    VersionConflict {
        /// The current one, when known.
        current: Option<u64>,
    },
    /// What was sent breaks a rule of the domain.
    #[error("{detail}")]
    Invalid {
        /// JSON pointer into the body, `#` for all of it.
        pointer: String,
        /// The rule.
        detail: String,
    },
    /// What would be stored exceeds its limit.
    #[error("what would be stored exceeds its limit")]
    TooLarge,
    /// A fault of ours, already logged. Whether something was changed is not known.
    #[error("{0}")]
    Internal(String),
}

/// A part of a list, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// The key to go on after, `None` at the end. Not necessarily the key of the last entry: a page that found
    /// too few may stop early and say where.
    pub next: Option<String>,
}

/// Which devices to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Any of these; empty: all.
    pub states: Vec<State>,
    /// Attribute `type`.
    pub kind: Option<String>,
    /// Attribute `site`.
    pub site: Option<String>,
    /// Attribute `region`.
    pub region: Option<String>,
    /// Every one of these tags, with this value.
    pub tags: Vec<(String, String)>,
    /// Devices after this id.
    pub after: Option<DeviceId>,
    /// At most so many.
    pub limit: usize,
}

/// What to do with a shadow; the payload is the request of protocol.md 1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowVerb {
    /// Read.
    Get,
    /// Create or merge.
    Update,
    /// Delete.
    Delete,
}

/// A request to a shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowRequest {
    /// `None`: the classic shadow.
    pub name: Option<ShadowName>,
    /// What to do.
    pub verb: ShadowVerb,
    /// JSON as an MQTT client would send it; empty for get and delete.
    pub payload: Bytes,
    /// The write happens only at this version.
    pub if_version: Option<u64>,
    /// A read may be answered by any copy, however old.
    pub may_be_stale: bool,
}

/// What a shadow answered. The bytes are JSON, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShadowReply {
    /// The accepted document of protocol.md 1.2.
    Accepted(Bytes),
    /// An error of protocol.md 1.9.
    Rejected {
        /// HTTP-like code.
        code: u16,
        /// AWS's words.
        message: String,
    },
}

/// How to end a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kick {
    /// Whether the session goes too.
    pub clean_session: bool,
    /// Whether the will stays unpublished.
    pub prevent_will: bool,
}

/// What became of a message to one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direct {
    /// Sent, and acknowledged if that was asked for.
    Sent,
    /// The client is not connected.
    NotConnected,
    /// Sent, not acknowledged in time.
    NotConfirmed,
    /// The client may not receive this topic.
    Forbidden,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The filter as the client wrote it.
    pub filter: String,
    /// Granted quality of service.
    pub qos: Qos,
}

/// A retained message without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedSummary {
    /// The topic.
    pub topic: String,
    /// Bytes of the payload.
    pub payload_bytes: u64,
    /// Its quality of service.
    pub qos: Qos,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// One thing that has to be well before this node can serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable name, for example `storage`.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// What is wrong, or how well it is.
    pub detail: String,
}

/// What an event feed says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Something happened.
    Event(Event),
    /// Events before `next` are gone: the reader was too slow, or asked for too old ones.
    Lagged {
        /// Sequence number of the next event to come.
        next: u64,
    },
}

/// A feed of events; it ends when the node stops.
pub type EventStream = Pin<Box<dyn Stream<Item = Feed> + Send>>;

/// What the edge needs of the node.
pub trait Backend: Send + Sync + 'static {
    /// Wall time.
    fn now(&self) -> Timestamp;

    /// Devices in id order.
    fn devices(&self, query: DeviceQuery) -> BoxFuture<'_, Result<Page<Device>, Refusal>>;
    /// One device.
    fn device<'a>(&'a self, id: &'a DeviceId) -> BoxFuture<'a, Result<Option<Device>, Refusal>>;
    /// A new device, with a registration in JSON; [`Refusal::Exists`] if there is one.
    fn create_device<'a>(
        &'a self,
        id: &'a DeviceId,
        registration: Bytes,
    ) -> BoxFuture<'a, Result<Device, Refusal>>;
    /// Merges a JSON patch into what people say about a device (RFC 7396); the rules are core's.
    fn patch_device<'a>(
        &'a self,
        id: &'a DeviceId,
        patch: Bytes,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<Device, Refusal>>;
    /// Removes the device and its session. Its shadows stay, as with AWS.
    fn delete_device<'a>(
        &'a self,
        id: &'a DeviceId,
        if_revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), Refusal>>;
    /// Devices whose actor failed too often.
    fn quarantined(&self) -> BoxFuture<'_, Result<Vec<Quarantined>, Refusal>>;
    /// Lets a quarantined device try again; `false` if it was not quarantined.
    fn release<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<bool, Refusal>>;

    /// Reads or writes a shadow.
    fn shadow<'a>(
        &'a self,
        id: &'a DeviceId,
        request: ShadowRequest,
    ) -> BoxFuture<'a, Result<ShadowReply, Refusal>>;
    /// Named shadows of a device, in name order.
    fn named_shadows<'a>(
        &'a self,
        id: &'a DeviceId,
        after: Option<ShadowName>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page<ShadowName>, Refusal>>;

    /// Sessions, connected or not, in client id order.
    fn clients(
        &self,
        after: Option<ClientId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Client>, Refusal>>;
    /// One client, even if it left no session behind.
    fn client<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<Option<Client>, Refusal>>;
    /// Subscriptions of a session, in filter order; `None`: no session.
    fn subscriptions<'a>(
        &'a self,
        id: &'a ClientId,
    ) -> BoxFuture<'a, Result<Option<Vec<Subscription>>, Refusal>>;
    /// Ends a connection; `false` if there is none.
    fn kick<'a>(&'a self, id: &'a ClientId, how: Kick) -> BoxFuture<'a, Result<bool, Refusal>>;

    /// Publishes as an MQTT client would, shadow topics included. Resolves like a PUBACK.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), Refusal>>;
    /// Hands a message to one client, subscribed or not. With `confirm` it goes at QoS 1 and the call waits so
    /// long for the acknowledgement.
    fn send_direct<'a>(
        &'a self,
        id: &'a ClientId,
        message: Message,
        confirm: Option<Duration>,
    ) -> BoxFuture<'a, Result<Direct, Refusal>>;
    /// The retained message of a topic.
    fn retained<'a>(
        &'a self,
        topic: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Message>>, Refusal>>;
    /// Retained messages in topic order.
    fn retained_list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<RetainedSummary>, Refusal>>;

    /// What operators may ask.
    fn operator(&self) -> &dyn Operator;

    /// What has to be well before this node can serve.
    fn checks(&self) -> Vec<Check>;
    /// Events after the one with this number, or from now on. Numbers rise over restarts too, with gaps.
    fn events(&self, after: Option<u64>) -> EventStream;
    /// Metrics in the Prometheus text format.
    fn metrics(&self) -> String;
}
