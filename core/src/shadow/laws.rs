//! Properties that bear the names of the laws.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    ids::DeviceId,
    json::{self, Json, JsonLimits},
    time::Timestamp,
};

const KEYS: [&str; 6] = ["a", "b", "c", "timestamp", "desired", "ü\"\\"];

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        Just(json!(1.0)),
        Just(json!(0.5)),
        Just(json!(u64::MAX)),
        "[a-c\"\\\\\n]{0,3}".prop_map(Value::from),
    ]
}

fn tree(leaf: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    leaf.prop_recursive(3, 24, 4, |inner| {
        let array = prop::collection::vec(without_null(), 0..3).prop_map(Value::from);
        let object = prop::collection::btree_map(prop::sample::select(&KEYS[..]), inner, 0..4);
        let object = object.prop_map(|members| {
            Value::Object(
                members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect(),
            )
        });
        prop_oneof![object, array]
    })
    .boxed()
}

fn without_null() -> BoxedStrategy<Value> {
    scalar()
        .prop_recursive(2, 8, 3, |inner| {
            let object = prop::collection::btree_map(prop::sample::select(&KEYS[..]), inner, 0..3);
            object.prop_map(|members| {
                Value::Object(
                    members
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            })
        })
        .boxed()
}

/// A patch of a section; nulls anywhere but in arrays.
fn patch() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![4 => scalar(), 1 => Just(Value::Null)].boxed();
    prop::collection::btree_map(prop::sample::select(&KEYS[..]), tree(leaf), 0..5).prop_map(
        |members| {
            members
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()
        },
    )
}

fn patched(section: Option<&Object>, patch: &Map<String, Value>, at: u64) -> Object {
    let text = serde_json::to_string(patch).unwrap();
    let Ok(Json::Object(patch)) = json::read(text.as_bytes(), &JsonLimits::default()) else {
        panic!("not an object: {text}")
    };
    merge(section, Patch::check(&patch, 8).unwrap(), at)
}

fn section(patches: &[Map<String, Value>]) -> Object {
    let mut section = patched(None, &Map::new(), 0);
    for (at, patch) in (1..).zip(patches) {
        section = patched(Some(&section), patch, at);
    }
    section
}

fn state(object: &Object) -> Value {
    let mut text = String::new();
    object.write_state(&mut text);
    serde_json::from_str(&text).unwrap()
}

fn metadata(object: &Object) -> Value {
    let mut text = String::new();
    object.write_metadata(&mut text);
    serde_json::from_str(&text).unwrap()
}

fn mirrors(state: &Value, metadata: &Value) -> bool {
    match (state, metadata) {
        (Value::Object(state), Value::Object(metadata)) => {
            state.len() == metadata.len()
                && state.iter().all(|(key, value)| {
                    metadata
                        .get(key)
                        .is_some_and(|metadata| mirrors(value, metadata))
                })
        },
        (Value::Array(state), Value::Array(metadata)) => {
            state.len() == metadata.len()
                && state
                    .iter()
                    .zip(metadata)
                    .all(|(state, metadata)| mirrors(state, metadata))
        },
        (Value::Object(_) | Value::Array(_), _) => false,
        (_, metadata) => metadata.get("timestamp").is_some_and(Value::is_u64),
    }
}

/// Merging as the tables of protocol.md say it, on plain values.
fn reference_merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (target.get_mut(key), value) {
            (_, Value::Null) => {
                target.remove(key);
            },
            (Some(Value::Object(target)), Value::Object(patch)) => reference_merge(target, patch),
            (_, Value::Object(patch)) => {
                let mut fresh = Map::new();
                reference_merge(&mut fresh, patch);
                if fresh.is_empty() && !patch.is_empty() {
                    target.remove(key);
                } else {
                    target.insert(key.clone(), Value::Object(fresh));
                }
            },
            (_, value) => {
                target.insert(key.clone(), value.clone());
            },
        }
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || (left.is_f64() != right.is_f64() && left.as_f64() == right.as_f64())
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| equal(left, right))
        },
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(key, left)| right.get(key).is_some_and(|right| equal(left, right)))
        },
        (left, right) => left == right,
    }
}

fn is_subset(desired: &Value, reported: &Value) -> bool {
    match (desired, reported) {
        (Value::Object(desired), Value::Object(reported)) => {
            desired.iter().all(|(key, desired)| {
                reported
                    .get(key)
                    .is_some_and(|reported| is_subset(desired, reported))
            })
        },
        (desired, reported) => equal(desired, reported),
    }
}

fn request(verb: Verb, payload: impl Into<Bytes>) -> Request {
    let client = crate::ids::ClientId::parse("t").unwrap();
    let origin = Origin::Mqtt { client };
    Request {
        shadow: ShadowKind::Classic,
        verb,
        payload: payload.into(),
        origin,
    }
}

fn ask(current: &Shadow, request: &Request, seconds: u64) -> Outcome {
    let device = DeviceId::parse("t").unwrap();
    handle(
        &device,
        current,
        request,
        Timestamp::from_millis(seconds * 1000),
        &Limits::default(),
    )
}

fn update(desired: &Map<String, Value>, reported: &Map<String, Value>) -> Request {
    let body = json!({"state": {"desired": desired, "reported": reported}});
    request(Verb::Update, body.to_string())
}

proptest! {
    #[test]
    fn merge_is_what_the_tables_say(patches in prop::collection::vec(patch(), 1..4)) {
        let mut expected = Map::new();
        for patch in &patches {
            reference_merge(&mut expected, patch);
        }
        prop_assert_eq!(state(&section(&patches)), Value::Object(expected));
    }

    #[test]
    fn merge_is_idempotent(patches in prop::collection::vec(patch(), 0..3), patch in patch()) {
        let once = patched(Some(&section(&patches)), &patch, 9);
        prop_assert_eq!(&patched(Some(&once), &patch, 9), &once);
    }

    #[test]
    fn null_removes(patches in prop::collection::vec(patch(), 0..3), key in prop::sample::select(&KEYS[..])) {
        let nothing = json!({ key: null });
        let after = patched(Some(&section(&patches)), nothing.as_object().unwrap(), 9);
        prop_assert_eq!(after.get(key), None);
    }

    #[test]
    fn arrays_are_replaced_whole(
        patches in prop::collection::vec(patch(), 0..3),
        items in prop::collection::vec(without_null(), 0..4),
    ) {
        let replace = json!({ "a": items });
        let after = patched(Some(&section(&patches)), replace.as_object().unwrap(), 9);
        prop_assert_eq!(&state(&after)["a"], &replace["a"]);
    }

    #[test]
    fn metadata_mirrors_state(patches in prop::collection::vec(patch(), 0..4)) {
        let section = section(&patches);
        prop_assert!(mirrors(&state(&section), &metadata(&section)));
    }

    #[test]
    fn untouched_values_keep_their_time(patches in prop::collection::vec(patch(), 1..4), patch in patch()) {
        let before = section(&patches);
        let after = patched(Some(&before), &patch, 99);
        for (key, node) in before.iter().filter(|(key, _)| !patch.contains_key(key.as_ref())) {
            prop_assert_eq!(after.get(key), Some(node));
        }
    }

    #[test]
    fn the_delta_is_empty_exactly_when_desired_is_a_subset_of_reported(
        desired in prop::collection::vec(patch(), 1..3),
        reported in prop::collection::vec(patch(), 1..3),
        shared in patch(),
    ) {
        let desired = patched(Some(&section(&desired)), &shared, 8);
        let reported = patched(Some(&section(&reported)), &shared, 9);
        let difference = delta(&desired, Some(&reported));
        prop_assert_eq!(difference.is_none(), is_subset(&state(&desired), &state(&reported)));
    }

    #[test]
    fn a_device_that_reports_the_delta_has_none_left(
        desired in prop::collection::vec(patch(), 1..3),
        reported in prop::collection::vec(patch(), 1..3),
    ) {
        let (desired, reported) = (section(&desired), section(&reported));
        if let Some(difference) = delta(&desired, Some(&reported)) {
            let report = state(&difference);
            let reported = patched(Some(&reported), report.as_object().unwrap(), 9);
            prop_assert_eq!(delta(&desired, Some(&reported)), None);
        }
    }

    #[test]
    fn each_accepted_update_adds_one_to_the_version(
        updates in prop::collection::vec((patch(), patch()), 1..6),
    ) {
        let mut shadow = Shadow::default();
        for (desired, reported) in updates {
            let outcome = ask(&shadow, &update(&desired, &reported), 1);
            match outcome.next {
                Some(next) => {
                    prop_assert_eq!(next.version(), shadow.version() + 1);
                    shadow = next;
                },
                None => prop_assert!(matches!(outcome.reply, Reply::Rejected(_))),
            }
        }
    }

    #[test]
    fn a_stored_shadow_is_read_back(updates in prop::collection::vec((patch(), patch()), 1..4)) {
        let mut shadow = Shadow::default();
        for (second, (desired, reported)) in (1..).zip(updates) {
            shadow = ask(&shadow, &update(&desired, &reported), second).next.unwrap();
        }
        prop_assert_eq!(&Shadow::from_stored(&shadow.to_stored()).unwrap(), &shadow);
        let tombstone = ask(&shadow, &request(Verb::Delete, ""), 9).next.unwrap();
        prop_assert_eq!(Shadow::from_stored(&tombstone.to_stored()).unwrap(), tombstone);
    }

    #[test]
    fn every_body_is_json_and_carries_the_token(desired in patch(), reported in patch()) {
        let mut shadow = ask(&Shadow::default(), &update(&desired, &reported), 1).next.unwrap();
        let body = json!({"state": {"reported": desired}, "clientToken": "t\"1"}).to_string();
        for verb in [Verb::Get, Verb::Update, Verb::Delete, Verb::Get] {
            let outcome = ask(&shadow, &request(verb, body.clone()), 2);
            for message in &outcome.messages {
                let value: Value = serde_json::from_slice(&message.payload).unwrap();
                prop_assert_eq!(&value["clientToken"], "t\"1", "{}", message.topic);
            }
            shadow = outcome.next.unwrap_or(shadow);
        }
    }

    #[test]
    fn handle_never_panics_on_arbitrary_bytes(
        payload in prop::collection::vec(any::<u8>(), 0..200),
        verb in prop::sample::select(vec![Verb::Get, Verb::Update, Verb::Delete]),
    ) {
        ask(&Shadow::default(), &request(verb, payload), 1);
    }

    #[test]
    fn handle_never_panics_on_arbitrary_json(
        text in r#"(\{|\}|\[|\]|:|,|"state"|"desired"|"version"|"clientToken"|null|-?[0-9]{1,22}|[0-9]e[0-9]{1,3}|"\\u[0-9a-f]{4}"| ){0,30}"#,
    ) {
        ask(&Shadow::default(), &request(Verb::Update, text.into_bytes()), 1);
    }

    #[test]
    fn what_parse_builds_is_what_serde_json_builds(value in tree(scalar().boxed())) {
        let text = value.to_string();
        prop_assert_eq!(json::parse(text.as_bytes(), &JsonLimits::default()), Ok(value));
        let mut written = String::new();
        let read = json::read(text.as_bytes(), &JsonLimits::default()).unwrap();
        json::write_value(&mut written, &read);
        prop_assert_eq!(written, text);
    }
}
