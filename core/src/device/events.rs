//! AWS lifecycle events: what watchers are told of clients.
//!
//! A client whose id holds `#` or `+` gets none. Delivery is at least once, without order; consumers that care
//! compare `versionNumber`.

use xxhash_rust::xxh3::xxh3_128;

use super::DisconnectReason;
use super::record::{Kind, Session};
use crate::{
    ids::{ClientId, SessionEpoch},
    json::{write_display, write_list, write_string},
    message::{Message, Qos},
    time::Timestamp,
    topic::aws::LifecycleEvent,
};

/// Whom an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The client.
    pub client: &'a ClientId,
    /// Whether it speaks for the device of the same name.
    pub kind: Kind,
    /// The connection; for a client that was refused, whatever tells its attempts apart.
    pub epoch: SessionEpoch,
    /// Who it proved to be.
    pub principal: &'a str,
}

impl<'a> Subject<'a> {
    fn of(client: &'a ClientId, session: &'a Session) -> Self {
        let Session {
            kind,
            epoch,
            principal,
            ..
        } = session;
        Self {
            client,
            kind: *kind,
            epoch: *epoch,
            principal,
        }
    }
}

/// The name of a session for watchers: opaque, and the same in all events of one connection.
pub fn session_identifier(client: &ClientId, epoch: SessionEpoch) -> String {
    let hash = xxh3_128(format!("{client}\u{0}{}", epoch.0).as_bytes());
    let hex = format!("{hash:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

/// A client connected.
pub fn connected(client: &ClientId, session: &Session, now: Timestamp) -> Option<Message> {
    let subject = Subject::of(client, session);
    let event = Event::new(LifecycleEvent::Connected, subject, now)?
        .text("ipAddress", &session.ip)
        .raw("versionNumber", session.version_number);
    Some(event.finish())
}

/// A connection ended.
pub fn disconnected(
    client: &ClientId,
    session: &Session,
    reason: DisconnectReason,
    now: Timestamp,
) -> Option<Message> {
    let by_client = reason == DisconnectReason::ClientInitiated;
    let subject = Subject::of(client, session);
    let event = Event::new(LifecycleEvent::Disconnected, subject, now)?
        .raw("clientInitiatedDisconnect", by_client)
        .text("disconnectReason", reason.as_str())
        .raw("versionNumber", session.version_number);
    Some(event.finish())
}

/// A client was refused.
pub fn connect_failed(subject: Subject<'_>, ip: &str, now: Timestamp) -> Option<Message> {
    let event = Event::new(LifecycleEvent::ConnectFailed, subject, now)?
        .text("connectFailureReason", "AUTHORIZATION_FAILED")
        .text("ipAddress", ip);
    Some(event.finish())
}

/// A client subscribed to these filters.
pub fn subscribed(subject: Subject<'_>, topics: &[&str], now: Timestamp) -> Option<Message> {
    let event = Event::new(LifecycleEvent::Subscribed, subject, now)?;
    let event = event.topics(topics);
    Some(event.finish())
}

/// A client unsubscribed from these filters.
pub fn unsubscribed(subject: Subject<'_>, topics: &[&str], now: Timestamp) -> Option<Message> {
    let event = Event::new(LifecycleEvent::Unsubscribed, subject, now)?;
    let event = event.topics(topics);
    Some(event.finish())
}

/// An event on its way to being written.
struct Event {
    topic: String,
    body: String,
    now: Timestamp,
}

impl Event {
    fn new(event: LifecycleEvent, subject: Subject<'_>, now: Timestamp) -> Option<Self> {
        let topic = event.topic(subject.client)?;
        let event_body = Self {
            topic,
            body: String::from("{"),
            now,
        }
        .text("clientId", subject.client.as_str())
        .raw("timestamp", now.millis())
        .text("eventType", event.name())
        .text(
            "sessionIdentifier",
            &session_identifier(subject.client, subject.epoch),
        )
        .text("principalIdentifier", subject.principal);
        Some(match subject.kind {
            Kind::Device => event_body.text("thingName", subject.client.as_str()),
            Kind::App => event_body,
        })
    }

    fn key(&mut self, name: &str) {
        if !self.body.ends_with('{') {
            self.body.push(',');
        }
        write_string(&mut self.body, name);
        self.body.push(':');
    }

    fn text(mut self, name: &str, value: &str) -> Self {
        self.key(name);
        write_string(&mut self.body, value);
        self
    }

    fn raw(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.key(name);
        write_display(&mut self.body, value);
        self
    }

    fn topics(mut self, topics: &[&str]) -> Self {
        self.key("topics");
        write_list(&mut self.body, topics.iter(), |out, topic| {
            write_string(out, topic);
        });
        self
    }

    fn finish(mut self) -> Message {
        self.body.push('}');
        let body = self.body.into();
        Message::from_cluster(self.topic, body, Qos::AtLeastOnce, self.now)
    }
}
