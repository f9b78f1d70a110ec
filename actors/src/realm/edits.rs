//! What operators change, wherever the device lives.

use bytes::Bytes;
use umbel_core::{device::Input, ids::DeviceId};

use super::{Realm, odd};
use crate::{
    refused::Refused,
    registry::EditError,
    remote::{Answer, Edit, Verb},
    view::DeviceView,
};

impl Realm {
    /// Lists a device, with attributes given as a merge patch of none.
    pub async fn create_device(
        &self,
        device: &DeviceId,
        patch: Bytes,
    ) -> Result<DeviceView, EditError> {
        let input = Input::Create {
            patch: patch.clone(),
        };
        self.edit(device, input, Edit::Create { patch }).await
    }

    /// Changes what is said of a device by a JSON merge patch, if it still has the revision named.
    pub async fn set_attributes(
        &self,
        device: &DeviceId,
        patch: Bytes,
        if_match: Option<u64>,
    ) -> Result<DeviceView, EditError> {
        let input = Input::SetAttributes {
            patch: patch.clone(),
            if_match,
        };
        self.edit(device, input, Edit::SetAttributes { patch, if_match })
            .await
    }

    /// Deletes a device, if it still has the revision named. Its connection is ended; its shadows stay.
    pub async fn delete_device(
        &self,
        device: &DeviceId,
        if_match: Option<u64>,
    ) -> Result<(), EditError> {
        let fleet = &self.0.fleet;
        if fleet.shard(&device.clone().into()).term().is_ok() {
            match fleet.delete(device, if_match, None).await {
                Err(EditError::Refused(Refused::NotOwner)) => {},
                done => return done,
            }
        }
        let answer = self.ask_edit(device, Edit::Delete { if_match }).await?;
        if answer == Answer::Done {
            Ok(())
        } else {
            Err(edit_error(device, answer))
        }
    }

    async fn edit(
        &self,
        device: &DeviceId,
        input: Input,
        edit: Edit,
    ) -> Result<DeviceView, EditError> {
        let fleet = &self.0.fleet;
        if fleet.shard(&device.clone().into()).term().is_ok() {
            match fleet.edit(device, input, None).await {
                Err(EditError::Refused(Refused::NotOwner)) => {},
                done => return done,
            }
        }
        let answer = self.ask_edit(device, edit).await?;
        if let Answer::Edited(view) = answer {
            Ok(*view)
        } else {
            Err(edit_error(device, answer))
        }
    }

    async fn ask_edit(&self, device: &DeviceId, edit: Edit) -> Result<Answer, Refused> {
        let verb = Verb::Edit {
            call: self.0.call(),
            device: device.clone(),
            edit,
        };
        let shard = self.0.fleet.shard(&device.clone().into());
        self.0.route(shard, verb).await
    }
}

fn edit_error(device: &DeviceId, answer: Answer) -> EditError {
    if let Answer::NotEdited(why) = answer {
        why
    } else {
        EditError::Refused(odd(device, &answer))
    }
}
