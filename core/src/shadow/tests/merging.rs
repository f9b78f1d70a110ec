//! How an update changes the document, its times and its delta.

use super::*;

// 1.5 times

#[test]
fn untouched_keys_keep_their_time_and_removed_ones_lose_it() {
    let mut thing = Thing::new();
    thing.update(
        &json!({"state": {"reported": {"a": 1, "b": [1, 2], "c": {"d": 1, "timestamp": 5}}}}),
    );
    thing.now = 2000;
    thing.update(&json!({"state": {"reported": {"a": 2, "b": null}}}));
    let (old, new) = (json!({"timestamp": 1000}), json!({"timestamp": 2000}));
    let expected = json!({"reported": {"a": new, "c": {"d": old, "timestamp": old}}});
    assert_eq!(thing.get()["metadata"], expected);
}

#[test]
fn arrays_have_an_entry_for_each_element() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"reported": {"a": [1, {"b": true}, [], {}]}}}));
    let at = json!({"timestamp": 1000});
    assert_eq!(
        thing.get()["metadata"]["reported"]["a"],
        json!([at, {"b": at}, [], {}])
    );
}

// 1.6 merge

#[test]
fn merge_follows_the_table() {
    for (before, patch, after) in [
        (
            json!({"o": {"a": 1}}),
            json!({"o": {"b": 2}}),
            json!({"o": {"a": 1, "b": 2}}),
        ),
        (
            json!({"a": 1, "b": 2}),
            json!({"a": null, "x": null}),
            json!({"b": 2}),
        ),
        (json!({"o": {"a": 1}}), json!({"o": 5}), json!({"o": 5})),
        (json!({"o": {"a": 1}}), json!({"o": [1]}), json!({"o": [1]})),
        (
            json!({"o": 5}),
            json!({"o": {"a": 1}}),
            json!({"o": {"a": 1}}),
        ),
        (
            json!({"l": [1, 2, 3]}),
            json!({"l": [4]}),
            json!({"l": [4]}),
        ),
        (json!({"a": 1}), json!({"e": {}}), json!({"a": 1, "e": {}})),
        (
            json!({"a": 1}),
            json!({"n": {"x": null, "y": {"z": null}}}),
            json!({"a": 1}),
        ),
        (
            json!({"o": {"a": 1}}),
            json!({"o": {"a": null}}),
            json!({"o": {}}),
        ),
    ] {
        let mut thing = Thing::new();
        thing.update(&json!({"state": {"desired": before}}));
        thing.update(&json!({"state": {"desired": patch}}));
        assert_eq!(thing.get()["state"]["desired"], after, "{patch}");
    }
}

#[test]
fn a_section_disappears_with_its_last_key() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}, "reported": {"a": 1}}}));
    thing.update(&json!({"state": {"desired": {"a": null}}}));
    let got = thing.get();
    assert_eq!(got["state"], json!({"reported": {"a": 1}}));
    assert!(got["metadata"].get("desired").is_none());
}

#[test]
fn an_empty_state_makes_an_empty_shadow() {
    for state in [json!({}), json!({"desired": {}}), json!(null)] {
        let mut thing = Thing::new();
        let heard = thing.update(&json!({ "state": state }));
        assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]);
        let got = thing.get();
        let expected = json!({"state": {}, "metadata": {}, "version": 1, "timestamp": 1000});
        assert_eq!(got, expected);
    }
}

#[test]
fn a_null_inside_an_array_is_refused() {
    for value in [
        json!([null]),
        json!([1, [null]]),
        json!({"x": [{"y": null}]}),
    ] {
        let refused = Thing::new().update_refused(&json!({"state": {"desired": {"a": value}}}));
        assert_eq!(refused.0, 400);
    }
}

// 1.7 delta

#[test]
fn delta_follows_the_table() {
    for (desired, reported, delta) in [
        (
            json!({"a": 1, "b": 2}),
            json!({"a": 1}),
            Some(json!({"b": 2})),
        ),
        (json!({"a": 1}), json!({"a": 1, "z": 2}), None),
        (
            json!({"o": {"x": 1, "y": 2}}),
            json!({"o": {"x": 1, "y": 3}}),
            Some(json!({"o": {"y": 2}})),
        ),
        (
            json!({"l": [1, 2]}),
            json!({"l": [1, 3]}),
            Some(json!({"l": [1, 2]})),
        ),
        (
            json!({"l": [1, {"a": 1}]}),
            json!({"l": [1.0, {"a": 1}]}),
            None,
        ),
        (
            json!({"v": {"a": 1}}),
            json!({"v": 1}),
            Some(json!({"v": {"a": 1}})),
        ),
        (json!({"v": "1"}), json!({"v": 1}), Some(json!({"v": "1"}))),
        (json!({"a": 1}), json!({"a": 1.0}), None),
        (json!({"e": {}}), json!({"a": 1}), Some(json!({"e": {}}))),
        (
            json!({"a": {"b": 1}}),
            json!({}),
            Some(json!({"a": {"b": 1}})),
        ),
    ] {
        let mut thing = Thing::new();
        let heard = thing.update(&json!({"state": {"desired": desired, "reported": reported}}));
        let got = thing.get();
        assert_eq!(
            got["state"].get("delta"),
            delta.as_ref(),
            "{desired} {reported}"
        );
        match delta {
            Some(delta) => assert_eq!(heard.get("update/delta")["state"], delta),
            None => assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]),
        }
    }
}

#[test]
fn a_delta_holds_differences_set_earlier_and_follows_reports_too() {
    let mut thing = Thing::new();
    thing.update(&json!({"state": {"desired": {"a": 1}}}));
    let heard = thing.update(&json!({"state": {"desired": {"b": 2}}}));
    assert_eq!(heard.get("update/delta")["state"], json!({"a": 1, "b": 2}));
    let heard = thing.update(&json!({"state": {"reported": {"a": 1}}}));
    assert_eq!(heard.get("update/delta")["state"], json!({"b": 2}));
    let heard = thing.update(&json!({"state": {"reported": {"b": 2}}}));
    assert_eq!(heard.suffixes(), ["update/documents", "update/accepted"]);
}
