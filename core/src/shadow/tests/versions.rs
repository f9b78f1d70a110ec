//! Versions, conflicts and tombstones.

use super::*;

#[test]
fn the_first_version_is_1_and_each_update_adds_1_even_without_effect() {
    let mut thing = Thing::new();
    for (version, state) in [
        (1, json!({})),
        (2, json!({})),
        (3, json!(null)),
        (4, json!({"desired": {}})),
    ] {
        let heard = thing.update(&json!({ "state": state }));
        assert_eq!(heard.get("update/accepted")["version"], version);
    }
}

#[test]
fn an_update_with_another_version_conflicts() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}}}));
    for version in [0, 2, 7] {
        let refused =
            thing.update_refused(&json!({"state": {"desired": {"a": 2}}, "version": version}));
        assert_eq!(refused, (409, "Version conflict".to_owned()));
    }
    let heard = thing.update(&json!({"state": {"desired": {"a": 2}}, "version": 1}));
    assert_eq!(heard.get("update/accepted")["version"], 2);
    let heard = thing.update(&json!({"state": {"desired": {"a": 2}}, "version": 2.0}));
    assert_eq!(heard.get("update/accepted")["version"], 3);
}

#[test]
fn a_shadow_that_does_not_exist_has_version_0_or_its_tombstones() {
    let mut thing = Thing::new();
    assert_eq!(
        thing.update_refused(&json!({"state": {}, "version": 1})).0,
        409
    );
    thing.update(&json!({"state": {}, "version": 0}));
    thing.ask(Verb::Delete, "");
    assert_eq!(
        thing.update_refused(&json!({"state": {}, "version": 0})).0,
        409
    );
    let heard = thing.update(&json!({"state": {}, "version": 2}));
    assert_eq!(heard.get("update/accepted")["version"], 3);
}

#[test]
fn deletion_counts_as_a_version_and_answers_the_deleted_one() {
    let mut thing = Thing::new();
    for _ in 0..3 {
        thing.update(&json!({"state": {"desired": {"a": 1}}}));
    }
    let heard = thing.ask(Verb::Delete, "");
    assert_eq!(
        heard.get("delete/accepted"),
        &json!({"version": 3, "timestamp": 1000})
    );
    assert!(!thing.shadow.exists());
    assert_eq!(thing.shadow.version(), 4);
    let heard = thing.update(&json!({"state": {"desired": {"b": 1}}}));
    assert_eq!(heard.get("update/accepted")["version"], 5);
    assert_eq!(heard.get("update/documents")["previous"], Value::Null);
    assert_eq!(thing.get()["state"]["desired"], json!({"b": 1}));
}

#[test]
fn a_deleted_version_is_forgotten_after_48_hours() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {}}));
    thing.ask(Verb::Delete, "");
    let (shadow, deleted) = (thing.shadow.clone(), thing.now);
    thing.now = deleted + 48 * 3600 - 1;
    assert_eq!(
        thing.update(&json!({"state": {}})).get("update/accepted")["version"],
        3
    );
    thing.shadow = shadow;
    thing.now = deleted + 48 * 3600;
    assert_eq!(
        thing.update(&json!({"state": {}})).get("update/accepted")["version"],
        1
    );
}
