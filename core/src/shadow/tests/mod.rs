//! Behaviour of the shadow service, row by row of protocol.md 1.2 to 1.9.

mod answers;
mod merging;
mod refusals;
mod tokens;
mod versions;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    ids::{ClientId, DeviceId, ShadowName},
    message::Qos,
    time::Timestamp,
};

/// A thing's shadow under test, with a clock that stands still until it is told.
struct Thing {
    shadow: Shadow,
    kind: ShadowKind,
    now: u64,
    http: bool,
}

/// What was published, by the last levels of its topic.
struct Heard(Vec<(String, Value)>);

impl Heard {
    fn suffixes(&self) -> Vec<&str> {
        self.0.iter().map(|(suffix, _)| suffix.as_str()).collect()
    }

    fn get(&self, suffix: &str) -> &Value {
        let found = self.0.iter().find(|(topic, _)| topic == suffix);
        &found
            .unwrap_or_else(|| panic!("no {suffix} in {:?}", self.suffixes()))
            .1
    }
}

impl Thing {
    fn new() -> Self {
        Self {
            shadow: Shadow::default(),
            kind: ShadowKind::Classic,
            now: 1_000,
            http: false,
        }
    }

    fn outcome(&mut self, verb: Verb, payload: impl Into<Bytes>) -> Outcome {
        let device = DeviceId::parse("thing-1").unwrap();
        let origin = if self.http {
            Origin::Http
        } else {
            Origin::Mqtt {
                client: ClientId::parse("someone").unwrap(),
            }
        };
        let request = Request {
            shadow: self.kind.clone(),
            verb,
            payload: payload.into(),
            origin,
        };
        let now = Timestamp::from_millis(self.now * 1000 + 999);
        let outcome = handle(&device, &self.shadow, &request, now, &Limits::default());
        if let Some(next) = &outcome.next {
            self.shadow = next.clone();
        }
        outcome
    }

    fn ask(&mut self, verb: Verb, payload: impl Into<Bytes>) -> Heard {
        let prefix = match self.kind.name() {
            None => "$aws/things/thing-1/shadow/".to_owned(),
            Some(name) => format!("$aws/things/thing-1/shadow/name/{name}/"),
        };
        let messages = self.outcome(verb, payload).messages;
        Heard(
            messages
                .into_iter()
                .map(|message| {
                    assert!(message.qos == Qos::AtLeastOnce && !message.retain);
                    let suffix = message
                        .topic
                        .strip_prefix(&prefix)
                        .expect("topic")
                        .to_owned();
                    (
                        suffix,
                        serde_json::from_slice(&message.payload).expect("JSON"),
                    )
                })
                .collect(),
        )
    }

    fn update(&mut self, body: &Value) -> Heard {
        self.ask(Verb::Update, body.to_string())
    }

    fn get(&mut self) -> Value {
        self.ask(Verb::Get, "").get("get/accepted").clone()
    }

    fn refused(&mut self, verb: Verb, payload: impl Into<Bytes>) -> (u64, String) {
        let before = self.shadow.clone();
        let heard = self.ask(verb, payload);
        assert_eq!(heard.0.len(), 1, "{:?}", heard.suffixes());
        assert_eq!(self.shadow, before, "a refusal changes nothing");
        let (topic, body) = &heard.0[0];
        assert!(topic.ends_with("/rejected"), "{topic}");
        (
            body["code"].as_u64().unwrap(),
            body["message"].as_str().unwrap().to_owned(),
        )
    }

    fn update_refused(&mut self, body: &Value) -> (u64, String) {
        self.refused(Verb::Update, body.to_string())
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "n": inner }))
}
