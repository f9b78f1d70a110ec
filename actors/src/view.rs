//! What the fleet tells of a device: the committed record, and the signs of life since.

use std::sync::Arc;

use umbel_core::{
    device::DeviceRecord,
    ids::ClientId,
    time::{Tick, Timestamp},
};

use crate::{ports::Clock, slot::Slot};

/// A device or application as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceView {
    /// Which.
    pub id: ClientId,
    /// What is known of it.
    pub record: Arc<DeviceRecord>,
    /// The last sign of life, as far as it is known.
    pub last_seen: Option<Timestamp>,
    /// Whether it comes and goes too often.
    pub flapping: bool,
}

/// A sign of life in wall time. Ticks are exact; the wall may have jumped since.
pub(crate) fn seen_at(slot: Option<&Slot>, clock: &dyn Clock) -> Option<Timestamp> {
    let seen: Tick = slot.and_then(Slot::last_seen)?;
    let ago = clock.tick() - seen;
    let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
    Some(Timestamp::from_millis(
        clock.wall().millis().saturating_sub(ago),
    ))
}
