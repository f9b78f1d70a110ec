//! Devices and apps: presence, sessions, wills, and what people say of them, as one pure machine.
//!
//! [`handle`] takes a record and one [`Input`] and returns a [`Change`]: the next record and an ordered list of
//! [`Effect`]s. Nothing is mutated; the shell adopts the next record after its writes are committed. Laws, each with
//! a test: *epochs never repeat*, *at most one will per epoch*, *an epoch that is over changes nothing*,
//! *a timer that is late, early or doubled does no harm*.

mod attributes;
mod effect;
pub mod events;
mod input;
mod machine;
mod presence;
mod record;
mod registry;
mod session;
mod will;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

pub use attributes::{
    ATTRIBUTE_BYTES_MAX, Attributes, AttributesError, ENTRIES_MAX, FACT_BYTES_MAX, NAME_BYTES_MAX,
    TAG_BYTES_MAX,
};
pub use effect::{Change, Effect, EvictReason, Opened, RecordChange, RecordWrite, Reply};
pub use input::{
    Admission, Connect, Disconnect, DisconnectReason, FlappingRule, Gateway, Input, Rules, Timer,
};
pub use machine::handle;
pub use record::{
    DeviceRecord, Evidence, Flaps, Kind, LastError, Link, NEVER_EXPIRES, PendingWill, Presence,
    Reason, Session, VersionNumber, Will,
};
