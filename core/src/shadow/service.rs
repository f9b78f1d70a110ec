//! The shadow service: one request against one shadow.

use bytes::Bytes;

use super::{
    Limits,
    document::Shadow,
    error::ShadowError,
    reply::{self, Reply},
    request::{Origin, Request, Verb, parse_token, parse_update, salvage_token},
};
use crate::{
    ids::DeviceId,
    message::{Message, Qos},
    time::Timestamp,
    topic::aws::{Operation, ShadowTopic},
};

/// What a request comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The shadow to store and then adopt; `None` when nothing changed.
    pub next: Option<Shadow>,
    /// The answer, valid once `next` is stored.
    pub reply: Reply,
    /// What to publish once `next` is stored, in this order.
    ///
    /// Delta comes before accepted: old clients drop a delta whose version they have seen in an accepted.
    pub messages: Vec<Message>,
}

/// Decides a request. `current` is the shadow it names; a default one if there is none.
pub fn handle(
    device: &DeviceId,
    current: &Shadow,
    request: &Request,
    now: Timestamp,
    limits: &Limits,
) -> Outcome {
    let call = Call {
        device,
        current,
        request,
        now,
        limits,
    };
    match request.verb {
        Verb::Get => call.get(),
        Verb::Update => call.update(),
        Verb::Delete => call.delete(),
    }
}

/// The answer to a request that was applied before, as `version` at `at`, and is asked again because the answer was
/// lost. What was to be published then may be lost, too: the answer is published again, after the delta as it is now.
/// `current` is the shadow as it is now.
pub fn again(
    device: &DeviceId,
    current: &Shadow,
    request: &Request,
    (version, at): (u64, Timestamp),
    limits: &Limits,
) -> Outcome {
    let call = Call {
        device,
        current,
        request,
        now: at,
        limits,
    };
    match request.verb {
        Verb::Get => call.get(),
        Verb::Update => call.updated_before(version),
        Verb::Delete => call.deleted_before(version),
    }
}

/// The refusal of a request that is decided elsewhere (too many in flight, not allowed, a fault of ours), and the
/// message that tells an MQTT client. A refused HTTP request is silent on MQTT.
pub fn reject(
    device: &DeviceId,
    request: &Request,
    error: ShadowError,
    now: Timestamp,
) -> (Reply, Option<Message>) {
    // Refusing must stay cheap: nothing is built but the token.
    let token = salvage_token(&request.payload);
    let rejection = reply::rejected(error, now, token.as_deref());
    let message = match request.origin {
        Origin::Http => None,
        Origin::Mqtt { .. } => Some(answer(
            device,
            request,
            Operation::rejected(request.verb),
            &rejection.body,
            now,
        )),
    };
    (Reply::Rejected(rejection), message)
}

/// A message of the service. At least once, because a device that is away must find its delta when it is back.
fn answer(
    device: &DeviceId,
    request: &Request,
    operation: Operation,
    body: &Bytes,
    now: Timestamp,
) -> Message {
    let topic = ShadowTopic {
        device: device.clone(),
        shadow: request.shadow.clone(),
        operation,
    };
    Message::from_cluster(topic.to_string(), body.clone(), Qos::AtLeastOnce, now)
}

#[derive(Clone, Copy)]
struct Call<'a> {
    device: &'a DeviceId,
    current: &'a Shadow,
    request: &'a Request,
    now: Timestamp,
    limits: &'a Limits,
}

impl Call<'_> {
    fn get(self) -> Outcome {
        let token = match parse_token(&self.request.payload, self.limits) {
            Ok(token) => token,
            Err(error) => return self.rejected(error, None),
        };
        let Some(document) = self.current.document() else {
            return self.not_found(token.as_deref());
        };
        let body = reply::got(self.current, document, self.now, token.as_deref());
        let messages = match self.request.origin {
            // Nobody on MQTT asked.
            Origin::Http => Vec::new(),
            Origin::Mqtt { .. } => vec![self.message(Operation::GetAccepted, &body)],
        };
        Outcome {
            next: None,
            reply: Reply::Accepted(body),
            messages,
        }
    }

    fn update(self) -> Outcome {
        let (token, update) = parse_update(&self.request.payload, self.limits);
        let token = token.as_deref();
        let decided = update.and_then(|update| {
            let next = self.current.updated(&update, self.now, self.limits)?;
            Ok((update, next))
        });
        let (update, next) = match decided {
            Ok(decided) => decided,
            Err(error) => return self.rejected(error, token),
        };
        let version = next.version();
        let accepted = reply::updated(&update, version, self.now, token);
        let documents = reply::documents(self.current, &next, self.now, token);
        let mut messages = Vec::with_capacity(3);
        if let Some(delta) = next.document().and_then(super::Document::delta) {
            let body = reply::delta(&delta, version, self.now, token);
            messages.push(self.message(Operation::UpdateDelta, &body));
        }
        messages.push(self.message(Operation::UpdateDocuments, &documents));
        messages.push(self.message(Operation::UpdateAccepted, &accepted));
        Outcome {
            next: Some(next),
            reply: Reply::Accepted(accepted),
            messages,
        }
    }

    fn delete(self) -> Outcome {
        let token = match parse_token(&self.request.payload, self.limits) {
            Ok(token) => token,
            Err(error) => return self.rejected(error, None),
        };
        if !self.current.exists() {
            return self.not_found(token.as_deref());
        }
        let body = reply::deleted(self.current.version(), self.now, token.as_deref());
        Outcome {
            next: Some(self.current.deleted(self.now)),
            messages: vec![self.message(Operation::DeleteAccepted, &body)],
            reply: Reply::Accepted(body),
        }
    }

    fn updated_before(self, version: u64) -> Outcome {
        let (token, update) = parse_update(&self.request.payload, self.limits);
        let token = token.as_deref();
        let update = match update {
            Ok(update) => update,
            Err(error) => return self.rejected(error, token),
        };
        let accepted = reply::updated(&update, version, self.now, token);
        let mut messages = Vec::with_capacity(2);
        if let Some(delta) = self.current.document().and_then(super::Document::delta) {
            let body = reply::delta(&delta, self.current.version(), self.now, token);
            messages.push(self.message(Operation::UpdateDelta, &body));
        }
        messages.push(self.message(Operation::UpdateAccepted, &accepted));
        Outcome {
            next: None,
            reply: Reply::Accepted(accepted),
            messages,
        }
    }

    fn deleted_before(self, version: u64) -> Outcome {
        let token = parse_token(&self.request.payload, self.limits).unwrap_or_default();
        let body = reply::deleted(version, self.now, token.as_deref());
        Outcome {
            next: None,
            messages: vec![self.message(Operation::DeleteAccepted, &body)],
            reply: Reply::Accepted(body),
        }
    }

    fn not_found(self, token: Option<&str>) -> Outcome {
        let name = self.request.shadow.name().unwrap_or(self.device.as_str());
        self.rejected(ShadowError::not_found(name), token)
    }

    fn rejected(self, error: ShadowError, token: Option<&str>) -> Outcome {
        let rejection = reply::rejected(error, self.now, token);
        let messages = match self.request.origin {
            Origin::Http => Vec::new(),
            Origin::Mqtt { .. } => {
                vec![self.message(Operation::rejected(self.request.verb), &rejection.body)]
            },
        };
        Outcome {
            next: None,
            reply: Reply::Rejected(rejection),
            messages,
        }
    }

    fn message(self, operation: Operation, body: &Bytes) -> Message {
        answer(self.device, self.request, operation, body, self.now)
    }
}
