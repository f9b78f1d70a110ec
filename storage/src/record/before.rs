//! Client records as format 1 had them: sessions did not know their gateway.

use serde::Deserialize;
use umbel_core::{
    device::{
        Attributes, DeviceRecord, Evidence, Flaps, Kind, LastError, Link, PendingWill, Presence,
        Reason, Session, VersionNumber, Will,
    },
    ids::{NodeId, SessionEpoch},
    time::Timestamp,
};

#[derive(Deserialize)]
pub(super) struct DeviceRecord1 {
    kind: Kind,
    listed: bool,
    presence: Presence,
    reason: Reason,
    since: Timestamp,
    evidence: Evidence,
    flaps: Flaps,
    epoch: SessionEpoch,
    version_number: Option<VersionNumber>,
    session: Option<Session1>,
    pending_wills: Vec<PendingWill>,
    attributes: Attributes,
    revision: u64,
    created_at: Timestamp,
    last_seen: Option<Timestamp>,
    last_error: Option<LastError>,
    config_version: u64,
}

#[derive(Deserialize)]
struct Session1 {
    epoch: SessionEpoch,
    kind: Kind,
    protocol: u8,
    clean: bool,
    expiry: u32,
    durable: bool,
    will: Option<Will>,
    keep_alive: u16,
    principal: String,
    ip: String,
    listener: String,
    connected_at: Timestamp,
    version_number: u64,
    link: Link,
}

impl From<DeviceRecord1> for DeviceRecord {
    fn from(before: DeviceRecord1) -> Self {
        Self {
            kind: before.kind,
            listed: before.listed,
            presence: before.presence,
            reason: before.reason,
            since: before.since,
            evidence: before.evidence,
            flaps: before.flaps,
            epoch: before.epoch,
            version_number: before.version_number,
            session: before.session.map(Session::from),
            pending_wills: before.pending_wills,
            attributes: before.attributes,
            revision: before.revision,
            created_at: before.created_at,
            last_seen: before.last_seen,
            last_error: before.last_error,
            config_version: before.config_version,
        }
    }
}

impl From<Session1> for Session {
    fn from(before: Session1) -> Self {
        Self {
            epoch: before.epoch,
            kind: before.kind,
            protocol: before.protocol,
            clean: before.clean,
            expiry: before.expiry,
            durable: before.durable,
            will: before.will,
            keep_alive: before.keep_alive,
            principal: before.principal,
            ip: before.ip,
            listener: before.listener,
            connected_at: before.connected_at,
            version_number: before.version_number,
            link: before.link,
            // Nobody wrote it down.
            gateway: NodeId(0),
            gateway_boot: 0,
        }
    }
}
