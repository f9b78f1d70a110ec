//! What operators say of devices: create, change, delete.

use bytes::Bytes;
use thiserror::Error;
use umbel_core::{
    device::{AttributesError, Input, Reply},
    ids::{ClientId, DeviceId},
};

use crate::{
    device::Work,
    fleet::{Fleet, unexpected},
    metrics::CommandKind,
    query,
    refused::Refused,
    view::DeviceView,
};

/// Why a change of what is said of a device did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EditError {
    /// The fleet refused to work on it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no such device.
    #[error("there is no such device")]
    NotFound,
    /// There is such a device already.
    #[error("the device exists already")]
    Exists,
    /// The record is not the one the caller has seen.
    #[error("the record has revision {revision}")]
    PreconditionFailed {
        /// The revision it has.
        revision: u64,
    },
    /// The attributes are not acceptable.
    #[error(transparent)]
    Invalid(#[from] AttributesError),
}

impl Fleet {
    /// Lists a device, with attributes given as a merge patch of none.
    pub async fn create_device(
        &self,
        device: &DeviceId,
        patch: Bytes,
    ) -> Result<DeviceView, EditError> {
        self.edit(device, Input::Create { patch }).await
    }

    /// Changes what is said of a device by a JSON merge patch, if it still has the revision named.
    pub async fn set_attributes(
        &self,
        device: &DeviceId,
        patch: Bytes,
        if_match: Option<u64>,
    ) -> Result<DeviceView, EditError> {
        self.edit(device, Input::SetAttributes { patch, if_match })
            .await
    }

    /// Deletes a device, if it still has the revision named. Its connection is ended; its shadows stay.
    pub async fn delete_device(
        &self,
        device: &DeviceId,
        if_match: Option<u64>,
    ) -> Result<(), EditError> {
        let client = ClientId::from(device.clone());
        let work = Work::Input(Box::new(Input::Delete { if_match }));
        match self.ask(&client, CommandKind::Registry, work).await? {
            Some(Reply::Done) => Ok(()),
            other => Err(edit_error(&client, other)),
        }
    }

    async fn edit(&self, device: &DeviceId, input: Input) -> Result<DeviceView, EditError> {
        let client = ClientId::from(device.clone());
        let work = Work::Input(Box::new(input));
        match self.ask(&client, CommandKind::Registry, work).await? {
            Some(Reply::Record(_)) => {
                query::device(self.shard(&client), &client)?.ok_or(EditError::NotFound)
            },
            other => Err(edit_error(&client, other)),
        }
    }
}

fn edit_error(client: &ClientId, reply: Option<Reply>) -> EditError {
    match reply {
        Some(Reply::NotFound) => EditError::NotFound,
        Some(Reply::Exists) => EditError::Exists,
        Some(Reply::PreconditionFailed { revision }) => EditError::PreconditionFailed { revision },
        Some(Reply::Invalid(why)) => EditError::Invalid(why),
        other => EditError::Refused(unexpected(client, other.as_ref())),
    }
}
