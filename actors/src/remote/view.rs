//! Views of devices on the wire. Wills stay with the owner: nobody who looks at a device is shown them.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};
use umbel_core::{device::DeviceRecord, ids::ClientId, time::Timestamp};

use crate::view::DeviceView;

#[derive(Deserialize)]
#[serde(rename = "DeviceView")]
struct Wire {
    id: ClientId,
    record: DeviceRecord,
    last_seen: Option<Timestamp>,
    flapping: bool,
}

impl Serialize for DeviceView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = self.record.as_ref().clone();
        record.pending_wills.clear();
        if let Some(session) = &mut record.session {
            session.will = None;
        }
        let mut view = serializer.serialize_struct("DeviceView", 4)?;
        view.serialize_field("id", &self.id)?;
        view.serialize_field("record", &record)?;
        view.serialize_field("last_seen", &self.last_seen)?;
        view.serialize_field("flapping", &self.flapping)?;
        view.end()
    }
}

impl<'de> Deserialize<'de> for DeviceView {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire {
            id,
            record,
            last_seen,
            flapping,
        } = Wire::deserialize(deserializer)?;
        Ok(Self {
            id,
            record: Arc::new(record),
            last_seen,
            flapping,
        })
    }
}
