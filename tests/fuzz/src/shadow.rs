//! The life of a shadow: a request a line.

use bytes::Bytes;
use umbel_core::{
    ids::{ClientId, DeviceId},
    json::{self, JsonLimits},
    shadow::{Limits, Origin, Outcome, Reply, Request, Shadow, ShadowKind, Verb, handle},
    time::Timestamp,
    topic,
};

/// Lines that are looked at, so that one input does not become a long story.
const REQUESTS_MAX: usize = 4;

/// `g…` reads, `d…` deletes, any other line is the body of an update. Laws: an accepted update or deletion adds one to
/// the version and nothing else changes it; what is stored reads the same; answers are JSON on proper topics.
pub fn run(data: &[u8]) -> bool {
    let device = DeviceId::parse("d").expect("a device id");
    let limits = Limits::default();
    let mut current = Shadow::default();
    let mut accepted = false;
    let lines: Vec<_> = data
        .split(|byte| *byte == b'\n')
        .take(REQUESTS_MAX)
        .collect();
    for (index, line) in lines.iter().enumerate() {
        let request = request(line);
        let now = Timestamp::from_millis(1_000_000 * (1 + index as u64));
        let outcome = handle(&device, &current, &request, now, &limits);
        check_step(&current, &outcome, request.verb, &limits);
        accepted |= matches!(outcome.reply, Reply::Accepted(_)) && request.verb == Verb::Update;
        // whatever is true of the last of any number of requests is true of each
        if index + 1 == lines.len() {
            agrees_with_serde(line);
            check_words(&outcome);
        }
        current = outcome.next.unwrap_or(current);
    }
    accepted
}

fn request(line: &[u8]) -> Request {
    let (verb, payload) = match line.split_first() {
        Some((b'g', rest)) => (Verb::Get, rest),
        Some((b'd', rest)) => (Verb::Delete, rest),
        _ => (Verb::Update, line),
    };
    let client = ClientId::parse("d").expect("a client id");
    Request {
        shadow: ShadowKind::Classic,
        verb,
        payload: Bytes::copy_from_slice(payload),
        origin: Origin::Mqtt { client },
    }
}

/// Our reader is stricter than `serde_json`, and never of another opinion.
fn agrees_with_serde(line: &[u8]) {
    if let Ok(value) = json::parse(line, &JsonLimits::default()) {
        let other: serde_json::Value = serde_json::from_slice(line).expect("valid for us");
        assert_eq!(value, other);
    }
}

fn check_step(current: &Shadow, outcome: &Outcome, verb: Verb, limits: &Limits) {
    match (&outcome.reply, &outcome.next) {
        (Reply::Accepted(_), Some(next)) => {
            assert_ne!(verb, Verb::Get);
            assert_eq!(next.version(), current.version() + 1);
            assert_eq!(next.exists(), verb == Verb::Update);
            let bytes = next
                .document()
                .map_or(0, umbel_core::shadow::Document::bytes);
            assert!(bytes <= limits.document_bytes, "{bytes} bytes");
        },
        (Reply::Accepted(_), None) => assert_eq!(verb, Verb::Get),
        (Reply::Rejected(_), next) => assert_eq!(*next, None),
    }
}

/// What is stored and what is said.
fn check_words(outcome: &Outcome) {
    if let Some(next) = &outcome.next {
        assert_eq!(Shadow::from_stored(&next.to_stored()).as_ref(), Ok(next));
    }
    let body = match &outcome.reply {
        Reply::Accepted(body) => body,
        Reply::Rejected(rejection) => &rejection.body,
    };
    let messages = outcome.messages.iter();
    for body in messages
        .clone()
        .map(|message| &message.payload)
        .chain([body])
    {
        serde_json::from_slice::<serde_json::Value>(body).expect("an answer is JSON");
    }
    for message in messages {
        let checked = topic::check_name(&message.topic, &topic::Limits::default());
        assert_eq!(checked, Ok(()), "{}", message.topic);
    }
}
