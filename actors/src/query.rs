//! Reads that wake nobody: what is committed, and what the table knows.

use std::{collections::VecDeque, sync::Arc};

use serde::{Deserialize, Serialize};
use umbel_core::{
    device::{Kind, Presence},
    ids::{ClientId, DeviceId, ShadowName},
    shadow::ShadowKind,
};
use umbel_storage::table::Table;

use crate::{
    common::Common,
    records,
    refused::Refused,
    shard::Shard,
    slot::Slot,
    troubles::Quarantined,
    view::{DeviceView, seen_at},
};

/// Most devices in a page.
pub const PAGE_MAX: usize = 1_000;
/// Most records looked at for one page. A page of a rare kind may be short or empty and still have a next one.
const LOOKS_MAX: usize = 5_000;
/// Slots looked at for one page, which cost no read of a record.
const SLOTS_MAX: usize = 200_000;

/// Which devices to list. Empty means all; several conditions must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// One of these.
    pub presences: Vec<Presence>,
    /// Only those that come and go too often, or only those that do not.
    pub flapping: Option<bool>,
    /// This type.
    pub device_type: Option<String>,
    /// This site.
    pub site: Option<String>,
    /// This region.
    pub region: Option<String>,
    /// All of these tags, with these values.
    pub tags: Vec<(String, String)>,
}

impl Filter {
    fn takes_slot(&self, slot: &Slot) -> bool {
        slot.is_stored()
            && slot.is_device()
            && (self.presences.is_empty() || self.presences.contains(&slot.presence()))
            && self
                .flapping
                .is_none_or(|wanted| wanted == slot.is_flapping())
    }

    fn takes_view(&self, view: &DeviceView) -> bool {
        let said = &view.record.attributes;
        let fits = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        view.record.kind == Kind::Device
            && (self.presences.is_empty() || self.presences.contains(&view.record.presence))
            && fits(&self.device_type, &said.device_type)
            && fits(&self.site, &said.site)
            && fits(&self.region, &said.region)
            && self
                .tags
                .iter()
                .all(|(name, value)| said.tags.get(name) == Some(value))
    }
}

/// Devices in id order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The devices.
    pub devices: Vec<DeviceView>,
    /// Where the next page begins (after it), if there may be more.
    pub next: Option<DeviceId>,
}

/// Names of a device's shadows in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPage {
    /// The names.
    pub names: Vec<ShadowName>,
    /// Where the next page begins (after it), if there are more.
    pub next: Option<ShadowName>,
}

/// One device or application.
pub(crate) fn device(shard: &Shard, id: &ClientId) -> Result<Option<DeviceView>, Refused> {
    let term = shard.term()?;
    let slot = shard.find(id);
    let view = view(shard, id, slot.as_deref())?;
    // A read is only true if this node is still the owner after it was made.
    shard.still(term)?;
    Ok(view)
}

fn view(shard: &Shard, id: &ClientId, slot: Option<&Slot>) -> Result<Option<DeviceView>, Refused> {
    let common = &shard.common;
    let Some(record) = records::load_device(shard, id)? else {
        return Ok(None);
    };
    let now = common.clock.wall();
    let last_seen = seen_at(slot, common.clock.as_ref()).max(record.last_seen);
    let flapping = record.is_flapping(now, &common.config.rules.flapping);
    Ok(Some(DeviceView {
        id: id.clone(),
        record,
        last_seen,
        flapping,
    }))
}

/// A page of devices over all shards of this node.
pub(crate) fn devices(
    common: &Common,
    shards: &[Arc<Shard>],
    filter: &Filter,
    after: Option<DeviceId>,
    limit: usize,
) -> Result<Page, Refused> {
    if common.is_stopping() {
        return Err(Refused::Stopping);
    }
    let limit = limit.clamp(1, PAGE_MAX);
    let mut walk = Walk::new(shards, after.map(ClientId::from).as_ref(), limit);
    let mut page = Page::default();
    let mut looks = 0;
    for _ in 0..SLOTS_MAX {
        let Some((shard, slot)) = walk.next() else {
            page.next = None;
            return Ok(page);
        };
        let Some(device) = slot.id().as_device() else {
            continue;
        };
        page.next = Some(device);
        if !filter.takes_slot(&slot) {
            continue;
        }
        looks += 1;
        // The record may have gone since the table was read.
        if let Some(view) =
            view(shard, slot.id(), Some(&slot))?.filter(|view| filter.takes_view(view))
        {
            page.devices.push(view);
        }
        if page.devices.len() == limit || looks == LOOKS_MAX {
            break;
        }
    }
    if walk.next().is_none() {
        page.next = None;
    }
    Ok(page)
}

/// What a page weighs at most when it goes to another node. A device with all its attributes full weighs 65 KB, so a
/// thousand of them are more than a message may hold.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Cuts a page that would be too large for a message. What is cut off is on the next.
pub(crate) fn shorten(page: &mut Page) {
    let mut bytes = 0;
    let mut fits = |view: &DeviceView| {
        bytes += weight(view);
        bytes <= PAGE_BYTES_MAX
    };
    let kept = page.devices.iter().take_while(|view| fits(view)).count();
    if kept < page.devices.len() {
        page.devices.truncate(kept.max(1));
        page.next = page.devices.last().and_then(|view| view.id.as_device());
    }
}

fn weight(view: &DeviceView) -> usize {
    let said = &view.record.attributes;
    let pairs = said.tags.iter().chain(&said.free);
    1_024
        + pairs
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>()
}

/// The devices in quarantine of some shards, in id order.
pub(crate) fn quarantined(shards: &[Arc<Shard>]) -> Vec<Quarantined> {
    let mut all: Vec<_> = shards
        .iter()
        .flat_map(|shard| shard.troubles.lock().quarantined().collect::<Vec<_>>())
        .collect();
    all.sort_by(|one, other| one.device.cmp(&other.device));
    all
}

/// Walks the tables of all shards in the order of ids, reading each a piece at a time.
struct Walk<'a> {
    lanes: Vec<Lane<'a>>,
    piece: usize,
}

struct Lane<'a> {
    shard: &'a Arc<Shard>,
    slots: VecDeque<Arc<Slot>>,
    after: Option<ClientId>,
    is_at_end: bool,
}

impl<'a> Walk<'a> {
    fn new(shards: &'a [Arc<Shard>], after: Option<&ClientId>, limit: usize) -> Self {
        let lanes = shards
            .iter()
            .map(|shard| Lane {
                shard,
                slots: VecDeque::new(),
                after: after.cloned(),
                is_at_end: false,
            })
            .collect();
        Self {
            lanes,
            piece: 2 * limit / shards.len().max(1) + 16,
        }
    }

    fn next(&mut self) -> Option<(&'a Shard, Arc<Slot>)> {
        for lane in &mut self.lanes {
            lane.fill(self.piece);
        }
        let lane = self
            .lanes
            .iter_mut()
            .filter(|lane| !lane.slots.is_empty())
            .min_by(|one, other| one.first().cmp(&other.first()))?;
        let slot = lane.slots.pop_front()?;
        Some((lane.shard, slot))
    }
}

impl Lane<'_> {
    fn first(&self) -> Option<&ClientId> {
        self.slots.front().map(|slot| slot.id())
    }

    fn fill(&mut self, piece: usize) {
        if !self.slots.is_empty() || self.is_at_end {
            return;
        }
        self.slots = self.shard.slots_after(self.after.as_ref(), piece).into();
        self.is_at_end = self.slots.len() < piece;
        if let Some(last) = self.slots.back() {
            self.after = Some(last.id().clone());
        }
    }
}

/// A page of the names of a device's shadows. The classic one has no name and is not among them.
pub(crate) fn named(
    shard: &Shard,
    device: &ClientId,
    after: Option<&ShadowName>,
    limit: usize,
) -> Result<NamedPage, Refused> {
    let term = shard.term()?;
    let limit = limit.clamp(1, PAGE_MAX);
    let prefix = records::prefix(device);
    // After the classic one, whose key is the prefix itself.
    let mut cursor = match after {
        Some(name) => records::shadow_key(device, &ShadowKind::Named(name.clone())),
        None => prefix.clone(),
    };
    let mut page = NamedPage::default();
    loop {
        let ledger = &shard.common.ledger;
        let rows = ledger
            .scan(shard.id, Table::Shadow, &prefix, Some(&cursor), limit + 1)
            .map_err(|why| records::refusal(shard, &why))?;
        let is_last = rows.len() <= limit;
        for (key, value) in rows {
            let name = key
                .get(prefix.len()..)
                .and_then(|name| std::str::from_utf8(name).ok());
            let Some(name) = name.and_then(|name| ShadowName::parse(name).ok()) else {
                return Err(Refused::Unreadable);
            };
            // Tombstones remember a version; they are no shadows.
            if records::decode_shadow(shard, &value)?.document.is_some() {
                if page.names.len() == limit {
                    page.next = page.names.last().cloned();
                    shard.still(term)?;
                    return Ok(page);
                }
                page.names.push(name);
            }
            cursor = key;
        }
        if is_last {
            shard.still(term)?;
            return Ok(page);
        }
    }
}
