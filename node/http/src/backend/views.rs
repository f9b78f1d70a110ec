//! What fleet and broker know, as our API shows it.

use umbel_actors::{DeviceView, Filter, FleetEvent, FleetEventKind};
use umbel_core::{
    device::{self, Kind, Link, Presence, Reason},
    ids::{ClientId, DeviceId},
    message::Message,
};
use umbel_mqtt::broker::ClientView;

use crate::{
    api::CLASSIC,
    model::{Change, Client, Device, Event, LastError, Quarantined, Session, State},
    port::{DeviceQuery, RetainedSummary},
};

pub(super) fn filter(query: DeviceQuery) -> (Filter, Option<DeviceId>, usize) {
    let filter = Filter {
        presences: query.states.into_iter().map(presence).collect(),
        flapping: None,
        device_type: query.kind,
        site: query.site,
        region: query.region,
        tags: query.tags,
    };
    (filter, query.after, query.limit)
}

pub(super) fn device(view: &DeviceView) -> Device {
    let record = view.record.as_ref();
    let said = &record.attributes;
    Device {
        id: view.id.as_str().to_owned(),
        state: state(record.presence),
        reason: Some(record.reason.as_str().to_owned()),
        since: Some(record.since.into()),
        evidence: Some(record.evidence.as_str().to_owned()),
        flapping: view.flapping,
        last_seen: view.last_seen.or(record.last_seen).map(Into::into),
        last_error: record.last_error.as_ref().map(|error| LastError {
            at: error.at.into(),
            message: error.message.clone(),
        }),
        epoch: record.epoch.0,
        session: record.session.as_ref().map(session),
        config_version: (record.config_version > 0).then_some(record.config_version),
        r#type: said.device_type.clone(),
        site: said.site.clone(),
        region: said.region.clone(),
        tags: said.tags.clone(),
        attributes: said.free.clone(),
        revision: record.revision,
        listed: record.listed,
        created_at: Some(record.created_at.into()),
    }
}

/// A client from its session in the broker and its record in the fleet. One that never connected is none.
pub(super) fn client(
    id: &ClientId,
    live: Option<&ClientView>,
    view: Option<&DeviceView>,
) -> Option<Client> {
    let record = view.map(|view| view.record.as_ref());
    if live.is_none() && record.is_none_or(|record| record.version_number.is_none()) {
        return None;
    }
    let connection = live.and_then(|live| live.connection.as_ref());
    let past = record.and_then(|record| record.session.as_ref());
    let session = match connection {
        Some(connection) => Session {
            connected_at: Some(connection.since.into()),
            protocol: Some(protocol(connection.protocol)),
            clean: connection.clean_start,
            expiry_seconds: connection.expiry_seconds,
            keep_alive_seconds: connection.keep_alive_seconds,
            principal: Some(connection.principal.clone()),
            ip: Some(connection.address.ip().to_string()),
            listener: Some(connection.listener.clone()),
        },
        None => past.map(session).unwrap_or_default(),
    };
    let (disconnected_at, disconnect_reason) = match connection {
        Some(_) => (None, None),
        None => (ended_at(record), ended_why(record)),
    };
    let is_device = match record {
        Some(record) => record.kind == Kind::Device,
        None => false,
    };
    Some(Client {
        id: id.as_str().to_owned(),
        kind: if is_device { "device" } else { "app" }.to_owned(),
        connected: connection.is_some(),
        epoch: match (connection, record) {
            (Some(connection), _) => connection.epoch.0,
            (None, Some(record)) => record.epoch.0,
            (None, None) => 0,
        },
        session,
        port: connection.map(|connection| connection.address.port()),
        disconnected_at,
        disconnect_reason,
        subscriptions: live.map_or(0, |live| live.subscriptions as u64),
        inflight: live.map_or(0, |live| live.inflight as u64),
        queued: live.map_or(0, |live| live.queued),
    })
}

pub(super) fn quarantined(one: umbel_actors::Quarantined) -> Quarantined {
    Quarantined {
        id: one.device.into(),
        reason: format!("{} failures, the last: {}", one.failures, one.message),
        since: Some(one.since.into()),
    }
}

pub(super) fn retained(message: &Message) -> RetainedSummary {
    RetainedSummary {
        topic: message.topic.clone(),
        payload_bytes: message.payload.len() as u64,
        qos: message.qos,
        stored_at: message.received_at,
    }
}

pub(super) fn event(event: &FleetEvent) -> Event {
    let change = match &event.kind {
        FleetEventKind::Presence {
            presence,
            reason,
            epoch,
            flapping,
        } => Change::Presence {
            state: named(presence),
            reason: Some((*reason).to_owned()),
            epoch: *epoch,
            flapping: *flapping,
        },
        FleetEventKind::Shadow {
            name,
            version,
            deleted,
        } => Change::Shadow {
            shadow: name.clone().unwrap_or_else(|| CLASSIC.to_owned()),
            version: *version,
            deleted: *deleted,
        },
        FleetEventKind::Attributes { version } => Change::Attributes { revision: *version },
        FleetEventKind::Deleted => Change::Deleted,
        FleetEventKind::Quarantined => Change::Quarantined,
        FleetEventKind::Released => Change::Released,
    };
    Event {
        sequence: event.seq,
        at: event.at.into(),
        client: event.device.as_str().to_owned(),
        change,
    }
}

fn session(session: &device::Session) -> Session {
    Session {
        connected_at: Some(session.connected_at.into()),
        protocol: Some(protocol(session.protocol)),
        clean: session.clean,
        expiry_seconds: session.expiry,
        keep_alive_seconds: session.keep_alive,
        principal: Some(session.principal.clone()),
        ip: Some(session.ip.clone()),
        listener: Some(session.listener.clone()),
    }
}

fn ended_at(record: Option<&device::DeviceRecord>) -> Option<crate::time::Moment> {
    let record = record?;
    let link = record.session.as_ref().map(|session| session.link);
    match link {
        Some(Link::Lost { since } | Link::Down { since }) => Some(since.into()),
        Some(Link::Up) | None => {
            (record.presence == Presence::Offline).then(|| record.since.into())
        },
    }
}

fn ended_why(record: Option<&device::DeviceRecord>) -> Option<String> {
    match record?.reason {
        Reason::Disconnected(reason) => Some(reason.as_str().to_owned()),
        Reason::GatewayLost => Some("UNKNOWN".to_owned()),
        Reason::NeverConnected | Reason::Connected | Reason::HeardAgain | Reason::HeartbeatLate => {
            None
        },
    }
}

/// MQTT's protocol levels as people know them (MQTT 5.0, 3.1.2.2).
fn protocol(level: u8) -> String {
    match level {
        3 => "3.1".to_owned(),
        4 => "3.1.1".to_owned(),
        5 => "5.0".to_owned(),
        other => other.to_string(),
    }
}

fn state(presence: Presence) -> State {
    match presence {
        Presence::Never => State::Never,
        Presence::Online => State::Online,
        Presence::Stale => State::Stale,
        Presence::Offline => State::Offline,
    }
}

fn presence(state: State) -> Presence {
    match state {
        State::Never => Presence::Never,
        State::Online => Presence::Online,
        State::Stale => Presence::Stale,
        State::Offline => Presence::Offline,
    }
}

/// The fleet's word for a presence. Words are fixed, so an unknown one cannot come; it would be shown as stale.
fn named(word: &str) -> State {
    State::ALL
        .into_iter()
        .find(|state| state.as_str() == word)
        .unwrap_or(State::Stale)
}
