//! The grammar of AWS's reserved topics, both directions.

use std::fmt;

use crate::{
    ids::{ClientId, DeviceId, ShadowName},
    shadow::{ShadowKind, Verb},
};

/// First level of every reserved topic.
const ROOT: &str = "$aws";

/// What a reserved topic is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsTopic {
    /// Something of a shadow.
    Shadow(ShadowTopic),
    /// An event of the cluster (`$aws/events/…`).
    Event,
    /// Reserved, and nothing we know: nobody may publish there.
    Unknown,
}

/// A topic of a shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowTopic {
    /// Whose shadow.
    pub device: DeviceId,
    /// Which of its shadows.
    pub shadow: ShadowKind,
    /// What happens there.
    pub operation: Operation,
}

/// What a shadow topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Client asks for the document.
    Get,
    /// The document.
    GetAccepted,
    /// Why there is none.
    GetRejected,
    /// Client makes or merges.
    Update,
    /// The update was done.
    UpdateAccepted,
    /// The update was refused.
    UpdateRejected,
    /// What the device still has to do.
    UpdateDelta,
    /// The document before and after.
    UpdateDocuments,
    /// Client deletes.
    Delete,
    /// The deletion was done.
    DeleteAccepted,
    /// The deletion was refused.
    DeleteRejected,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 11] = [
        Self::Get,
        Self::GetAccepted,
        Self::GetRejected,
        Self::Update,
        Self::UpdateAccepted,
        Self::UpdateRejected,
        Self::UpdateDelta,
        Self::UpdateDocuments,
        Self::Delete,
        Self::DeleteAccepted,
        Self::DeleteRejected,
    ];

    /// The end of the topic.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetAccepted => "get/accepted",
            Self::GetRejected => "get/rejected",
            Self::Update => "update",
            Self::UpdateAccepted => "update/accepted",
            Self::UpdateRejected => "update/rejected",
            Self::UpdateDelta => "update/delta",
            Self::UpdateDocuments => "update/documents",
            Self::Delete => "delete",
            Self::DeleteAccepted => "delete/accepted",
            Self::DeleteRejected => "delete/rejected",
        }
    }

    /// Where a request of this kind is refused.
    pub const fn rejected(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GetRejected,
            Verb::Update => Self::UpdateRejected,
            Verb::Delete => Self::DeleteRejected,
        }
    }

    /// What a client asks by publishing here; `None` where only the cluster publishes.
    pub const fn request(self) -> Option<Verb> {
        match self {
            Self::Get => Some(Verb::Get),
            Self::Update => Some(Verb::Update),
            Self::Delete => Some(Verb::Delete),
            Self::GetAccepted
            | Self::GetRejected
            | Self::UpdateAccepted
            | Self::UpdateRejected
            | Self::UpdateDelta
            | Self::UpdateDocuments
            | Self::DeleteAccepted
            | Self::DeleteRejected => None,
        }
    }

    fn parse(suffix: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.suffix() == suffix)
    }
}

impl ShadowTopic {
    /// What a client asks by publishing here; `None` where only the cluster publishes.
    pub const fn request(&self) -> Option<Verb> {
        self.operation.request()
    }

    fn parse(rest: &str) -> Option<Self> {
        let (device, rest) = rest.split_once('/')?;
        let rest = rest.strip_prefix("shadow/")?;
        let (shadow, suffix) = match rest.strip_prefix("name/") {
            None => (ShadowKind::Classic, rest),
            Some(named) => {
                let (name, suffix) = named.split_once('/')?;
                (ShadowKind::Named(ShadowName::parse(name).ok()?), suffix)
            },
        };
        let operation = Operation::parse(suffix)?;
        Some(Self {
            device: DeviceId::parse(device).ok()?,
            shadow,
            operation,
        })
    }
}

impl fmt::Display for ShadowTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}/things/{}/shadow/", self.device)?;
        if let Some(name) = self.shadow.name() {
            write!(f, "name/{name}/")?;
        }
        f.write_str(self.operation.suffix())
    }
}

/// Whether a topic is reserved: `$aws` or below it.
pub fn is_reserved(topic: &str) -> bool {
    topic
        .strip_prefix(ROOT)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a reserved topic is; `None` for a topic that is not reserved.
pub fn parse(topic: &str) -> Option<AwsTopic> {
    if !is_reserved(topic) {
        return None;
    }
    let rest = topic.strip_prefix("$aws/").unwrap_or_default();
    if rest.starts_with("events/") {
        return Some(AwsTopic::Event);
    }
    let shadow = rest.strip_prefix("things/").and_then(ShadowTopic::parse);
    Some(shadow.map_or(AwsTopic::Unknown, AwsTopic::Shadow))
}

/// What happened to a client, as a topic under `$aws/events/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LifecycleEvent {
    /// It connected.
    Connected,
    /// Its connection ended.
    Disconnected,
    /// It was refused.
    ConnectFailed,
    /// It subscribed.
    Subscribed,
    /// It unsubscribed.
    Unsubscribed,
}

impl LifecycleEvent {
    /// The event's name, in topic and body.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::ConnectFailed => "connect_failed",
            Self::Subscribed => "subscribed",
            Self::Unsubscribed => "unsubscribed",
        }
    }

    /// The topic of this event of a client; `None` for a client whose id cannot stand in one topic (it holds `#` or
    /// `+`): it gets no events. An id with `/` has an event topic of more levels, as on AWS.
    pub fn topic(self, client: &ClientId) -> Option<String> {
        if client.as_str().contains(['#', '+']) {
            return None;
        }
        let family = match self {
            Self::Connected | Self::Disconnected | Self::ConnectFailed => "presence",
            Self::Subscribed | Self::Unsubscribed => "subscriptions",
        };
        Some(format!("{ROOT}/events/{family}/{}/{client}", self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow_topic(topic: &str) -> ShadowTopic {
        match parse(topic) {
            Some(AwsTopic::Shadow(parsed)) => parsed,
            other => panic!("{topic}: {other:?}"),
        }
    }

    #[test]
    fn every_shadow_topic_is_read_as_it_is_written() {
        for prefix in [
            "$aws/things/t:1_-/shadow",
            "$aws/things/t/shadow/name/$package",
        ] {
            for operation in Operation::ALL {
                let topic = format!("{prefix}/{}", operation.suffix());
                let parsed = shadow_topic(&topic);
                assert_eq!(parsed.operation, operation);
                assert_eq!(parsed.to_string(), topic);
            }
        }
    }

    #[test]
    fn only_get_update_and_delete_are_requests() {
        let requests: Vec<_> = Operation::ALL
            .into_iter()
            .filter(|operation| operation.request().is_some())
            .collect();
        assert_eq!(
            requests,
            [Operation::Get, Operation::Update, Operation::Delete]
        );
    }

    #[test]
    fn the_deepest_shadow_topic_has_seven_slashes() {
        let topic = "$aws/things/t/shadow/name/s/update/accepted";
        assert_eq!(shadow_topic(topic).to_string().matches('/').count(), 7);
    }

    #[test]
    fn a_shadow_named_like_an_operation_is_named() {
        let parsed = shadow_topic("$aws/things/t/shadow/name/get/get");
        assert_eq!(parsed.shadow.name(), Some("get"));
        assert_eq!(
            parse("$aws/things/t/shadow/name/get"),
            Some(AwsTopic::Unknown)
        );
    }

    #[test]
    fn reserved_topics_outside_the_grammar_are_unknown() {
        for topic in [
            "$aws",
            "$aws/",
            "$aws/things",
            "$aws/things/t",
            "$aws/things//shadow/get",
            "$aws/things/a b/shadow/get",
            "$aws/things/t/shadow",
            "$aws/things/t/shadow/",
            "$aws/things/t/shadow/get/",
            "$aws/things/t/shadow/get/other",
            "$aws/things/t/shadow/update/accepted/more",
            "$aws/things/t/shadow/name//get",
            "$aws/things/t/shadow/name/a.b/get",
            "$aws/things/t/jobs/get",
        ] {
            assert_eq!(parse(topic), Some(AwsTopic::Unknown), "{topic}");
        }
    }

    #[test]
    fn other_topics_are_not_reserved() {
        for topic in [
            "",
            "aws/things/t/shadow/get",
            "$awsome/x",
            "$SYS/x",
            "/$aws/things",
        ] {
            assert_eq!(parse(topic), None, "{topic}");
        }
    }

    #[test]
    fn events_have_a_topic_for_each_client_that_can_have_one() {
        let client = ClientId::parse("camera-1").unwrap();
        let topic = LifecycleEvent::Connected.topic(&client);
        assert_eq!(
            topic.as_deref(),
            Some("$aws/events/presence/connected/camera-1")
        );
        assert_eq!(parse(&topic.unwrap()), Some(AwsTopic::Event));
        let topic = LifecycleEvent::Unsubscribed.topic(&client);
        assert_eq!(
            topic.as_deref(),
            Some("$aws/events/subscriptions/unsubscribed/camera-1")
        );
        for id in ["a#", "+"] {
            assert_eq!(
                LifecycleEvent::Disconnected.topic(&ClientId::parse(id).unwrap()),
                None
            );
        }
    }
}
