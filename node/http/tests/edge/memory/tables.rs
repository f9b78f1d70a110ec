//! The maps, and what is blank in them.

use super::*;

#[derive(Default)]
pub struct Tables {
    pub devices: BTreeMap<String, Device>,
    pub shadows: BTreeMap<(String, ShadowKind), shadow::Shadow>,
    pub clients: BTreeMap<String, Client>,
    pub subscriptions: BTreeMap<String, Vec<Subscription>>,
    pub retained: BTreeMap<String, Arc<Message>>,
    pub published: Vec<Message>,
    pub direct: Vec<(String, Message, Option<Duration>)>,
    pub kicked: Vec<(String, Kick)>,
    pub quarantined: Vec<Quarantined>,
    pub checks: Vec<Check>,
    /// What every call answers instead of working.
    pub refusal: Option<Refusal>,
    pub history: Vec<Event>,
    /// Runs before the next write of a device, as somebody faster would.
    pub faster: Option<fn(&mut Tables)>,
}

impl Tables {
    pub fn put(&mut self, id: &str, patch: &str) -> Result<Device, Refusal> {
        let old = self.devices.get(id).cloned();
        let said = old.as_ref().map(said).unwrap_or_default();
        let next = said
            .patched(&Bytes::from(patch.to_owned()))
            .map_err(|error| Refusal::Invalid {
                pointer: "#".to_owned(),
                detail: error.to_string(),
            })?;
        let device = Device {
            r#type: next.device_type,
            site: next.site,
            region: next.region,
            tags: next.tags,
            attributes: next.free,
            revision: old.as_ref().map_or(1, |device| device.revision + 1),
            ..old.unwrap_or_else(|| blank(id))
        };
        self.devices.insert(id.to_owned(), device.clone());
        Ok(device)
    }

    pub fn overtake(&mut self) {
        if let Some(faster) = self.faster.take() {
            faster(self);
        }
    }

    pub fn check_revision(&self, id: &str, wanted: Option<u64>) -> Result<(), Refusal> {
        let device = self.devices.get(id).ok_or(Refusal::NotFound)?;
        if wanted.is_some_and(|wanted| wanted != device.revision) {
            return Err(Refusal::VersionConflict {
                current: Some(device.revision),
            });
        }
        Ok(())
    }
}

fn said(device: &Device) -> Attributes {
    Attributes {
        device_type: device.r#type.clone(),
        site: device.site.clone(),
        region: device.region.clone(),
        tags: device.tags.clone(),
        free: device.attributes.clone(),
    }
}

pub fn blank(id: &str) -> Device {
    Device {
        id: id.to_owned(),
        state: State::Never,
        reason: None,
        since: None,
        evidence: None,
        flapping: false,
        last_seen: None,
        last_error: None,
        epoch: 0,
        session: None,
        config_version: None,
        r#type: None,
        site: None,
        region: None,
        tags: BTreeMap::new(),
        attributes: BTreeMap::new(),
        revision: 1,
        listed: true,
        created_at: Some(Moment(NOW)),
    }
}

pub fn page<T>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> String) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(key) } else { None };
    Page { items, next }
}

pub fn retained(topic: &str, payload: &str) -> Arc<Message> {
    Arc::new(Message {
        retain: true,
        ..Message::from_cluster(
            topic.to_owned(),
            Bytes::from(payload.to_owned()),
            Qos::AtLeastOnce,
            NOW,
        )
    })
}
