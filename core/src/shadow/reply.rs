//! Bodies of answers and events, written straight to bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    document::{Document, Section, Shadow},
    error::ShadowError,
    request::Update,
    tree::{Object, write_stamp},
};
use crate::{
    json::{Json, Members, write_list, write_members, write_string, write_u64, write_value},
    time::Timestamp,
};

/// What a shadow request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It was done; the body to send.
    Accepted(Bytes),
    /// It was refused and changed nothing.
    Rejected(Rejection),
}

/// A refusal, with the body that MQTT clients get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Code and message.
    pub error: ShadowError,
    /// The refusal as JSON.
    pub body: Bytes,
}

/// Writes one JSON object, member by member.
struct Body {
    text: String,
}

impl Body {
    fn with_capacity(bytes: usize) -> Self {
        let mut text = String::with_capacity(bytes);
        text.push('{');
        Self { text }
    }

    /// Appends a key whose name needs no escaping, ready for its value.
    fn key(&mut self, name: &str) -> &mut String {
        if !self.text.ends_with('{') {
            self.text.push(',');
        }
        self.text.push('"');
        self.text.push_str(name);
        self.text.push_str("\":");
        &mut self.text
    }

    fn number(&mut self, name: &str, value: u64) {
        write_u64(self.key(name), value);
    }

    fn object(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.key(name).push('{');
        write(self);
        self.text.push('}');
    }

    fn finish(mut self, token: Option<&str>) -> Bytes {
        if let Some(token) = token {
            write_string(self.key("clientToken"), token);
        }
        self.text.push('}');
        self.text.into()
    }

    fn state(&mut self, document: &Document, delta: Option<&Object>) {
        let sections = sections(document);
        self.object("state", |body| {
            for (name, section) in sections {
                body.key(name).push_str(section.json());
            }
            if let Some(delta) = delta {
                delta.write_state(body.key("delta"));
            }
        });
    }

    fn metadata(&mut self, document: &Document) {
        let sections = sections(document);
        self.object("metadata", |body| {
            for (name, section) in sections {
                section.tree().write_metadata(body.key(name));
            }
        });
    }
}

fn sections(document: &Document) -> impl Iterator<Item = (&'static str, &Section)> {
    let desired = document
        .desired
        .as_ref()
        .map(|section| ("desired", section));
    desired.into_iter().chain(
        document
            .reported
            .as_ref()
            .map(|section| ("reported", section)),
    )
}

/// A rough guess that spares most bodies a second allocation.
fn estimate(document: &Document) -> usize {
    256 + document.bytes() * 4
}

pub(super) fn got(
    shadow: &Shadow,
    document: &Document,
    now: Timestamp,
    token: Option<&str>,
) -> Bytes {
    let mut body = Body::with_capacity(estimate(document));
    body.state(document, document.delta().as_ref());
    body.metadata(document);
    body.number("version", shadow.version());
    body.number("timestamp", now.seconds());
    body.finish(token)
}

/// The echo of what was sent, nulls included, and the times it now has.
pub(super) fn updated(update: &Update, version: u64, now: Timestamp, token: Option<&str>) -> Bytes {
    let mut body = Body::with_capacity(1024);
    let at = now.seconds();
    match update.state() {
        None => {
            body.key("state").push_str("null");
            write_stamp(body.key("metadata"), at);
        },
        Some(state) => {
            write_members(body.key("state"), state.iter(), write_value);
            write_patch_metadata(body.key("metadata"), state, at);
        },
    }
    body.number("version", version);
    body.number("timestamp", at);
    body.finish(token)
}

fn write_patch_metadata(out: &mut String, members: &Members, at: u64) {
    write_members(out, members.iter(), |out, value| {
        write_value_metadata(out, value, at);
    });
}

fn write_value_metadata(out: &mut String, value: &Json, at: u64) {
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => write_stamp(out, at),
        Json::Array(items) => {
            write_list(out, items.iter(), |out, item| {
                write_value_metadata(out, item, at);
            });
        },
        Json::Object(members) => write_patch_metadata(out, members, at),
    }
}

pub(super) fn delta(delta: &Object, version: u64, now: Timestamp, token: Option<&str>) -> Bytes {
    let mut body = Body::with_capacity(1024);
    body.number("version", version);
    body.number("timestamp", now.seconds());
    delta.write_state(body.key("state"));
    delta.write_metadata(body.key("metadata"));
    body.finish(token)
}

/// Before and after. There is no "before" of the first version, nor of one that follows a deletion.
pub(super) fn documents(
    previous: &Shadow,
    current: &Shadow,
    now: Timestamp,
    token: Option<&str>,
) -> Bytes {
    let bytes = [previous, current]
        .into_iter()
        .filter_map(Shadow::document)
        .map(estimate)
        .sum();
    let mut body = Body::with_capacity(bytes);
    for (name, shadow) in [("previous", previous), ("current", current)] {
        let Some(document) = shadow.document() else {
            body.key(name).push_str("null");
            continue;
        };
        body.object(name, |body| {
            body.state(document, None);
            body.metadata(document);
            body.number("version", shadow.version());
        });
    }
    body.number("timestamp", now.seconds());
    body.finish(token)
}

pub(super) fn deleted(version: u64, now: Timestamp, token: Option<&str>) -> Bytes {
    let mut body = Body::with_capacity(128);
    body.number("version", version);
    body.number("timestamp", now.seconds());
    body.finish(token)
}

pub(super) fn rejected(error: ShadowError, now: Timestamp, token: Option<&str>) -> Rejection {
    let mut body = Body::with_capacity(192);
    body.number("code", error.code.into());
    write_string(body.key("message"), &error.message);
    // AWS sends a missing shadow's refusal without a time.
    if error.code != 404 {
        body.number("timestamp", now.seconds());
    }
    Rejection {
        body: body.finish(token),
        error,
    }
}
