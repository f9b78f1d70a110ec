//! A device's shadows through its machine.

use super::*;

fn shadow_request(verb: Verb, payload: &str) -> Request {
    let origin = Origin::Mqtt {
        client: ClientId::parse("d").unwrap(),
    };
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    Request {
        shadow: ShadowKind::Classic,
        verb,
        payload,
        origin,
    }
}

#[test]
fn a_shadow_update_is_durable_before_it_is_answered_and_told() {
    let mut bench = Bench::new("d");
    let request = shadow_request(Verb::Update, r#"{"state":{"desired":{"a":1}}}"#);
    let step = bench.give(Input::Shadow {
        current: Shadow::default(),
        request,
    });
    assert_eq!(
        step.words(),
        ["persist shadow", "reply", "update", "update", "update"]
    );
    let (kind, next) = step.0.shadow.unwrap();
    assert_eq!((kind, next.version()), (ShadowKind::Classic, 1));
    assert!(bench.record.is_none(), "a shadow needs no record");
    let request = shadow_request(Verb::Get, "");
    let step = bench.give(Input::Shadow {
        current: next,
        request,
    });
    assert_eq!(step.words(), ["reply", "get"]);
}

#[test]
fn a_forgotten_tombstone_is_removed_when_it_is_met() {
    let mut bench = Bench::new("d");
    let request = shadow_request(Verb::Update, r#"{"state":{}}"#);
    let step = bench.give(Input::Shadow {
        current: Shadow::default(),
        request,
    });
    let current = step.0.shadow.unwrap().1;
    let request = shadow_request(Verb::Delete, "");
    let tombstone = bench
        .give(Input::Shadow { current, request })
        .0
        .shadow
        .unwrap()
        .1;
    bench.wait(48 * 3600);
    let request = shadow_request(Verb::Get, "");
    let step = bench.give(Input::Shadow {
        current: tombstone,
        request,
    });
    assert_eq!(step.words(), ["persist remove shadow", "reply", "get"]);
}

#[test]
fn shadows_of_unknown_things_are_refused_only_if_the_rules_say_so() {
    let mut bench = Bench::new("d");
    bench.rules.things_must_exist = true;
    let update = || Input::Shadow {
        current: Shadow::default(),
        request: shadow_request(Verb::Update, r#"{"state":{},"clientToken":"t"}"#),
    };
    let step = bench.give(update());
    assert_eq!(step.words(), ["reply", "update"]);
    let Some(Effect::Publish(message)) = step.0.effects.last() else {
        panic!()
    };
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(
        body,
        json!({"code": 404, "message": "Thing not found", "clientToken": "t"})
    );
    bench.give(Input::Create {
        patch: Bytes::new(),
    });
    assert!(bench.give(update()).0.shadow.is_some());
}
