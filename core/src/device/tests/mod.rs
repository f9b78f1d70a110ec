//! Behaviour of the device machine: protocol.md 4.1, and what MQTT says of sessions and wills.

mod announced;
mod connecting;
mod ending;
mod listed;
mod online;
mod shadows;
mod wills;

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::{Message, Qos},
    shadow::{Origin, Request, Shadow, ShadowKind, Verb},
    time::Timestamp,
};

const START: u64 = 1_000_000_000;

/// A client under test and a clock that moves when it is told. Adopts every change, as if each commit succeeded.
struct Bench {
    client: ClientId,
    record: Option<DeviceRecord>,
    now: Timestamp,
    rules: Rules,
}

/// What one input led to.
struct Step(Change);

impl Bench {
    fn new(client: &str) -> Self {
        let client = ClientId::parse(client).unwrap();
        let now = Timestamp::from_millis(START);
        Self {
            client,
            record: None,
            now,
            rules: Rules::default(),
        }
    }

    fn give(&mut self, input: Input) -> Step {
        let change = handle(
            &self.client,
            self.record.as_ref(),
            input,
            self.now,
            &self.rules,
        );
        match &change.record {
            RecordChange::Keep => {},
            RecordChange::Put(record) => self.record = Some(record.as_ref().clone()),
            RecordChange::Remove => self.record = None,
        }
        Step(change)
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn connect(&mut self, connect: Connect) -> Step {
        self.give(Input::Connect(Box::new(connect)))
    }

    fn end(&mut self, reason: DisconnectReason) -> Step {
        let epoch = self.record().epoch;
        self.give(Input::Disconnect(Disconnect {
            epoch,
            reason,
            expiry: None,
            with_will: false,
        }))
    }

    fn record(&self) -> &DeviceRecord {
        self.record.as_ref().expect("a record")
    }

    fn presence(&self) -> (Presence, &'static str) {
        (self.record().presence, self.record().reason.as_str())
    }
}

impl Step {
    fn opened(&self) -> Opened {
        match self.reply() {
            Some(Reply::Opened(opened)) => *opened,
            other => panic!("{other:?}"),
        }
    }

    fn reply(&self) -> Option<&Reply> {
        self.0.effects.iter().find_map(|effect| {
            if let Effect::Reply(reply) = effect {
                Some(reply)
            } else {
                None
            }
        })
    }

    /// The effects in order, each as a word.
    fn words(&self) -> Vec<String> {
        self.0.effects.iter().map(word).collect()
    }

    /// The timer that was asked for, ready to be given back.
    fn timer(&self) -> Input {
        let timers = self.0.effects.iter().filter_map(|effect| match effect {
            Effect::Schedule { what, .. } => Some(*what),
            Effect::Persist(_)
            | Effect::Reply(_)
            | Effect::Publish(_)
            | Effect::PublishWill { .. }
            | Effect::EndSession { .. }
            | Effect::Evict { .. } => None,
        });
        Input::Timer(timers.last().expect("a timer"))
    }

    fn wills(&self) -> usize {
        self.0
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::PublishWill { .. }))
            .count()
    }

    fn event(&self, name: &str) -> Value {
        let level = format!("/{name}/");
        let found = self.0.effects.iter().find_map(|effect| {
            let Effect::Publish(message) = effect else {
                return None;
            };
            message.topic.contains(&level).then_some(&message.payload)
        });
        serde_json::from_slice(found.unwrap_or_else(|| panic!("{:?}", self.words()))).unwrap()
    }

    fn is_nothing(&self) -> bool {
        let silent = self
            .0
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Reply(Reply::Done)));
        silent && matches!(self.0.record, RecordChange::Keep)
    }
}

fn word(effect: &Effect) -> String {
    let text = match effect {
        Effect::Persist(writes) => {
            let writes: Vec<_> = writes
                .iter()
                .map(|write| match write {
                    RecordWrite::Record(_) => "record",
                    RecordWrite::RemoveRecord => "remove",
                    RecordWrite::Shadow { .. } => "shadow",
                    RecordWrite::RemoveShadow { .. } => "remove shadow",
                    RecordWrite::DropSessionRows => "drop rows",
                })
                .collect();
            return format!("persist {}", writes.join("+"));
        },
        Effect::Publish(message) => message.topic.rsplit('/').nth(1).unwrap_or("?"),
        Effect::Reply(_) => "reply",
        Effect::PublishWill { .. } => "will",
        Effect::EndSession { .. } => "end session",
        Effect::Evict { .. } => "evict",
        Effect::Schedule { after, what } => {
            let what = match what {
                Timer::GraceOver { .. } => "grace",
                Timer::SessionExpiry { .. } => "expiry",
                Timer::WillDue { .. } => "will",
                Timer::Forget { .. } => "forget",
            };
            return format!("{what} in {}", after.as_secs());
        },
    };
    text.to_owned()
}

fn plain() -> Connect {
    Connect {
        kind: Kind::Device,
        protocol: 5,
        clean_start: false,
        expiry: 0,
        keep_alive: 60,
        will: None,
        principal: "cert-1".to_owned(),
        ip: "10.0.0.7".to_owned(),
        listener: "mqtts".to_owned(),
        gateway: NodeId(1),
        gateway_boot: 1,
    }
}

fn persistent(expiry: u32) -> Connect {
    Connect { expiry, ..plain() }
}

fn will(delay: u32) -> Will {
    let payload = Bytes::from_static(b"gone");
    let message = Message::from_cluster(
        "last/words".to_owned(),
        payload,
        Qos::AtLeastOnce,
        Timestamp::default(),
    );
    Will {
        message,
        delay,
        expiry: Some(30),
    }
}

fn with_will(connect: Connect, delay: u32) -> Connect {
    Connect {
        will: Some(will(delay)),
        ..connect
    }
}
