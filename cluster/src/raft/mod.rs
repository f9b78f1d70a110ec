//! openraft, kept in one room: outside of this folder nobody names its types.
//!
//! * [`types`]: the type configuration, and the way between openraft's types and bytes.
//! * [`log_store`]: openraft's log over [`umbel_storage::log::GroupLog`].
//! * [`machine`]: how far a shard is applied, and the only way its rows change; snapshots.
//! * [`state_machine`]: openraft's state machine over it; the fence.
//! * [`recent`]: what log, state machine and group have in common; the last entries.
//! * [`recover`]: what has to fit together before a group may run, and the rebuilding of a damaged state.
//! * [`group`]: one running group: serving, electing, changing members, transferring.
//! * [`lease`]: how long an owner may speak without asking.
//! * [`rpc`], [`mux`], [`network`]: what members say to each other, how it travels, and how openraft says it.
//! * [`bulk`]: snapshots on their way.

#![expect(
    clippy::result_large_err,
    reason = "openraft's StorageError is large; its traits ask for it by value"
)]

pub(crate) mod bulk;
pub(crate) mod group;
pub(crate) mod lease;
pub(crate) mod log_store;
pub(crate) mod machine;
pub(crate) mod mux;
pub(crate) mod network;
pub(crate) mod recent;
pub(crate) mod recover;
pub(crate) mod rpc;
pub(crate) mod state_machine;
#[cfg(test)]
mod suite;
pub(crate) mod types;

use std::sync::Arc;

use thiserror::Error;

use crate::codec::CodecError;

/// Ends the process with a message: what was to be durable may not be.
pub(crate) type Fatal = Arc<dyn Fn(String) + Send + Sync>;

/// Why a shard may not serve: something on disk is missing, damaged, or from a newer release.
#[derive(Clone, Debug, Error)]
#[error("{detail}")]
pub(crate) struct Damage {
    detail: String,
    /// Not damaged, but of a release that is newer than this one.
    newer: bool,
}

impl Damage {
    /// In words, for the operator.
    pub(crate) fn new(detail: String) -> Self {
        Self {
            detail,
            newer: false,
        }
    }

    /// Of a record that does not decode.
    pub(crate) fn of_record(what: &str, error: &CodecError) -> Self {
        Self {
            detail: format!("{what}: {error}"),
            newer: matches!(error, CodecError::Format { .. }),
        }
    }

    /// Whether what was found is whole, and this release too old for it. It must not be thrown away.
    pub(crate) fn is_newer(&self) -> bool {
        self.newer
    }
}
