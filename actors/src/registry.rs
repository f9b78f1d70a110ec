//! What operators say of devices: create, change, delete.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use umbel_core::{
    device::{Input, Reply},
    ids::{ClientId, DeviceId},
};

use crate::{
    device::Work,
    fleet::{Fleet, unexpected},
    metrics::CommandKind,
    query,
    refused::Refused,
    remote::Call,
    view::DeviceView,
};

/// Why a change of what is said of a device did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
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
    #[error("{0}")]
    Invalid(String),
}

impl Fleet {
    /// Lists a device, with attributes given as a merge patch of none.
    pub async fn create_device(
        &self,
        device: &DeviceId,
        patch: Bytes,
    ) -> Result<DeviceView, EditError> {
        self.edit(device, Input::Create { patch }, None).await
    }

    /// Changes what is said of a device by a JSON merge patch, if it still has the revision named.
    pub async fn set_attributes(
        &self,
        device: &DeviceId,
        patch: Bytes,
        if_match: Option<u64>,
    ) -> Result<DeviceView, EditError> {
        self.edit(device, Input::SetAttributes { patch, if_match }, None)
            .await
    }

    /// Deletes a device, if it still has the revision named. Its connection is ended; its shadows stay.
    pub async fn delete_device(
        &self,
        device: &DeviceId,
        if_match: Option<u64>,
    ) -> Result<(), EditError> {
        self.delete(device, if_match, None).await
    }

    pub(crate) async fn delete(
        &self,
        device: &DeviceId,
        if_match: Option<u64>,
        call: Option<Call>,
    ) -> Result<(), EditError> {
        let client = ClientId::from(device.clone());
        let work = Work::Input(Box::new(Input::Delete { if_match }));
        let asked = self.ask_call(&client, CommandKind::Registry, work, call);
        match asked.await? {
            Some(Reply::Done) => Ok(()),
            other => Err(edit_error(&client, other)),
        }
    }

    pub(crate) async fn edit(
        &self,
        device: &DeviceId,
        input: Input,
        call: Option<Call>,
    ) -> Result<DeviceView, EditError> {
        let client = ClientId::from(device.clone());
        let work = Work::Input(Box::new(input));
        let asked = self.ask_call(&client, CommandKind::Registry, work, call);
        match asked.await? {
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
        Some(Reply::Invalid(why)) => EditError::Invalid(why.to_string()),
        other => EditError::Refused(unexpected(client, other.as_ref())),
    }
}
