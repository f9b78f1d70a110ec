//! What our API shows: wire types with their schema. Field names are part of the API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use umbel_core::device::{
    ATTRIBUTE_BYTES_MAX, ENTRIES_MAX, FACT_BYTES_MAX, NAME_BYTES_MAX, TAG_BYTES_MAX,
};
use utoipa::{
    ToSchema,
    openapi::{
        ObjectBuilder,
        schema::{AdditionalProperties, Object, SchemaType, Type},
    },
};

use crate::time::Moment;

/// Whether a device is there, as its owner knows it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Listed, never connected.
    Never,
    /// Connected.
    Online,
    /// Its gateway is gone or its heartbeat is late; the grace period is not over.
    Stale,
    /// Not connected.
    Offline,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Never, Self::Online, Self::Stale, Self::Offline];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Offline => "offline",
        }
    }
}

/// A device and what is known about its presence.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Device {
    /// Its name.
    #[schema(pattern = "^[a-zA-Z0-9:_-]{1,128}$", example = "camera-1")]
    pub id: String,
    /// Whether it is there.
    pub state: State,
    /// Why it is in this state, for example `KEEP_ALIVE_TIMEOUT`.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Moment>,
    /// What this rests on, for example `socket closed`.
    pub evidence: Option<String>,
    /// It came and went too often lately.
    pub flapping: bool,
    /// When something was last heard of it. Exact while connected to this node; kept in memory only.
    pub last_seen: Option<Moment>,
    /// The last thing that went wrong with it.
    pub last_error: Option<LastError>,
    /// Of its last accepted connection. Rises with each, not by one, and never repeats.
    pub epoch: u64,
    /// Its MQTT session, if it has one.
    pub session: Option<Session>,
    /// The configuration version it reported.
    pub config_version: Option<u64>,
    /// What it is: camera, controller, …
    pub r#type: Option<String>,
    /// Where it is.
    pub site: Option<String>,
    /// Where the site is.
    pub region: Option<String>,
    /// For grouping.
    pub tags: BTreeMap<String, String>,
    /// Anything else that people say about it.
    pub attributes: BTreeMap<String, String>,
    /// Counts the changes of type, site, region, tags and attributes; the entity tag.
    pub revision: u64,
    /// Whether somebody put it on the list of devices, or it came by itself.
    pub listed: bool,
    /// When it became known.
    pub created_at: Option<Moment>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastError {
    /// When.
    pub at: Moment,
    /// What.
    pub message: String,
}

/// An MQTT session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Session {
    /// When the present or last connection was accepted.
    pub connected_at: Option<Moment>,
    /// `3.1`, `3.1.1` or `5.0`.
    pub protocol: Option<String>,
    /// Whether it ends with the connection.
    pub clean: bool,
    /// How long it outlives the connection.
    pub expiry_seconds: u32,
    /// Keep-alive asked for.
    pub keep_alive_seconds: u16,
    /// Who the client proved to be.
    pub principal: Option<String>,
    /// Where it came from.
    pub ip: Option<String>,
    /// The listener it came through.
    pub listener: Option<String>,
}

/// A client of the broker: a device or an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Client {
    /// Client id.
    pub id: String,
    /// `device` or `app`.
    pub kind: String,
    /// Whether it is connected to this node.
    pub connected: bool,
    /// Of its last accepted connection. Rises with each, not by one, and never repeats.
    pub epoch: u64,
    /// Its session; of a client that left nothing behind, an empty one.
    pub session: Session,
    /// Port it came from.
    pub port: Option<u16>,
    /// When it was disconnected, if it is.
    pub disconnected_at: Option<Moment>,
    /// Why, in AWS's words.
    pub disconnect_reason: Option<String>,
    /// How many filters it subscribed to.
    pub subscriptions: u64,
    /// Messages sent to it and not yet acknowledged.
    pub inflight: u64,
    /// Messages waiting for it.
    pub queued: u64,
}

/// A device whose actor failed too often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quarantined {
    /// Its name.
    pub id: String,
    /// What went wrong.
    pub reason: String,
    /// Since when.
    pub since: Option<Moment>,
}

/// Something that happened to a device or application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// Rises from event to event; with gaps after a restart. Counts on the node that is asked: on another node the same
    /// event has another number.
    pub sequence: u64,
    /// When it happened.
    pub at: Moment,
    /// The device or application.
    pub client: String,
    /// What happened.
    #[serde(flatten)]
    pub change: Change,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Change {
    /// Presence.
    Presence {
        /// The new state.
        state: State,
        /// Why.
        reason: Option<String>,
        /// Of which connection.
        epoch: u64,
        /// It came and went too often lately.
        flapping: bool,
    },
    /// A shadow.
    Shadow {
        /// Its name, `$classic` for the classic one.
        shadow: String,
        /// Its version.
        version: u64,
        /// Whether it was deleted.
        deleted: bool,
    },
    /// What people say about the device.
    Attributes {
        /// The new revision.
        revision: u64,
    },
    /// The device was deleted.
    Deleted,
    /// The device's actor failed too often.
    Quarantined,
    /// The device was released from quarantine.
    Released,
}

/// The names of [`Change`].
pub const CHANGES: [&str; 6] = [
    "presence",
    "shadow",
    "attributes",
    "deleted",
    "quarantined",
    "released",
];

impl Change {
    /// The SSE event name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Presence { .. } => "presence",
            Self::Shadow { .. } => "shadow",
            Self::Attributes { .. } => "attributes",
            Self::Deleted => "deleted",
            Self::Quarantined => "quarantined",
            Self::Released => "released",
        }
    }
}

/// A page of devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct Devices {
    /// The devices, in id order.
    pub items: Vec<Device>,
    /// Cursor of the next page, absent on the last. The `Link` header has the whole URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of clients.
#[derive(Debug, Serialize, ToSchema)]
pub struct Clients {
    /// The clients, in id order.
    pub items: Vec<Client>,
    /// Cursor of the next page, absent on the last. The `Link` header has the whole URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A page of shadow names.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shadows {
    /// The names, in order; the classic shadow, if there is one, comes first on the first page as `$classic`.
    pub items: Vec<String>,
    /// Cursor of the next page, absent on the last. The `Link` header has the whole URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// All quarantined devices.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quarantine {
    /// The devices, in id order.
    pub items: Vec<Quarantined>,
}

/// What people say about a device. With PATCH it is merged (RFC 7396: `null` removes), with PUT what is absent
/// is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// What it is: camera, controller, …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = fact)]
    pub r#type: Option<String>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = fact)]
    pub site: Option<String>,
    /// Where the site is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = fact)]
    pub region: Option<String>,
    /// For grouping.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = tags, required = false)]
    pub tags: BTreeMap<String, String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = attributes, required = false)]
    pub attributes: BTreeMap<String, String>,
}

const TEXT: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
const NAME: &str = "^[a-zA-Z0-9_.,@/:#-]+$";

fn fact() -> Object {
    let types = SchemaType::from_iter([Type::String, Type::Null]);
    text(FACT_BYTES_MAX).schema_type(types).build()
}

fn tags() -> Object {
    entries(TAG_BYTES_MAX)
}

fn attributes() -> Object {
    entries(ATTRIBUTE_BYTES_MAX)
}

/// Bounds are in bytes and a schema counts characters: what it admits may still be too long.
fn text(bytes_max: usize) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(TEXT))
        .max_length(Some(bytes_max))
}

fn entries(bytes_max: usize) -> Object {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(NAME))
        .min_length(Some(1))
        .max_length(Some(NAME_BYTES_MAX));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(name.build()))
        .additional_properties(Some(AdditionalProperties::RefOr(
            text(bytes_max).build().into(),
        )))
        .max_properties(Some(ENTRIES_MAX))
        .build()
}

/// A shadow document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Shadow {
    /// Its device.
    pub device: String,
    /// Its name, `$classic` for the classic shadow.
    pub name: String,
    /// Counts its changes; the entity tag.
    pub version: u64,
    /// What it should be.
    #[schema(value_type = Object)]
    pub desired: Value,
    /// What the device says it is.
    #[schema(value_type = Object)]
    pub reported: Value,
    /// What of `desired` is not yet `reported`.
    #[schema(value_type = Object)]
    pub delta: Value,
    /// When each leaf of `desired` and `reported` was set, in seconds since 1970 as AWS has it.
    #[schema(value_type = Object)]
    pub metadata: Value,
}

/// Both sections of a shadow. With PATCH a section is merged (RFC 7396: `null` removes, arrays replace) and
/// `null` clears it; with PUT what is absent is cleared.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowSections {
    /// What it should be.
    #[schema(value_type = Option<Object>, required = false)]
    pub desired: Option<Map<String, Value>>,
    /// What the device says it is.
    #[schema(value_type = Option<Object>, required = false)]
    pub reported: Option<Map<String, Value>>,
}

/// An accepted write.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShadowWritten {
    /// Its device.
    pub device: String,
    /// The shadow's name.
    pub name: String,
    /// The version of this write; the entity tag.
    pub version: u64,
}

/// Whether this node can serve.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// All checks are well.
    pub ready: bool,
    /// With `?verbose` every check, otherwise those that fail.
    pub checks: Vec<CheckResult>,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckResult {
    /// Its stable name.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What is wrong, or how well it is.
    pub detail: String,
}
