//! Attributes, listing, deleting and forgetting.

use super::*;

fn patch(bench: &mut Bench, patch: &str, if_match: Option<u64>) -> Step {
    let patch = Bytes::copy_from_slice(patch.as_bytes());
    bench.give(Input::SetAttributes { patch, if_match })
}

#[test]
fn attributes_are_merged_and_counted() {
    let mut bench = Bench::new("d");
    assert_eq!(
        patch(&mut bench, "{}", None).reply(),
        Some(&Reply::NotFound)
    );
    let all = r#"{"type":"camera","site":"s1","tags":{"a":"1","b":"2"},"attributes":{"rack":"7"}}"#;
    bench.give(Input::Create {
        patch: Bytes::copy_from_slice(all.as_bytes()),
    });
    assert_eq!(
        (bench.record().revision, bench.presence().0),
        (1, Presence::Never)
    );
    let step = patch(
        &mut bench,
        r#"{"site":null,"region":"eu","tags":{"a":null,"c":"3"}}"#,
        Some(1),
    );
    assert_eq!(step.words(), ["persist record", "reply"]);
    let attributes = &bench.record().attributes;
    assert_eq!(attributes.device_type.as_deref(), Some("camera"));
    assert_eq!(
        (&attributes.site, attributes.region.as_deref()),
        (&None, Some("eu"))
    );
    let tags: Vec<_> = attributes
        .tags
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(tags, [("b", "2"), ("c", "3")]);
    assert_eq!(attributes.free["rack"], "7");
    let step = patch(&mut bench, r#"{"attributes":null}"#, Some(1));
    assert_eq!(
        step.reply(),
        Some(&Reply::PreconditionFailed { revision: 2 })
    );
    assert!(!bench.record().attributes.free.is_empty());
}

#[test]
fn attributes_have_limits() {
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("k{n}"), json!("v"))).collect();
    for bad in [
        json!({"type": 1}),
        json!({"site": "x".repeat(129)}),
        json!({"region": "a\nb"}),
        json!({"tags": []}),
        json!({"tags": {"a": 1}}),
        json!({"tags": {"": "x"}}),
        json!({"tags": {"a b": "x"}}),
        json!({"tags": {"a": "x".repeat(257)}}),
        json!({"attributes": {"a": "x".repeat(801)}}),
        json!({ "attributes": many }),
        json!({"color": "red"}),
        json!([]),
        json!({"tags": {"a": {"b": {"c": 1}}}}),
    ] {
        let mut bench = Bench::new("d");
        bench.give(Input::Create {
            patch: Bytes::new(),
        });
        let step = patch(&mut bench, &bad.to_string(), None);
        assert!(matches!(step.reply(), Some(Reply::Invalid(_))), "{bad}");
        assert_eq!(bench.record().revision, 1);
    }
}

#[test]
fn a_device_is_listed_once() {
    let mut bench = Bench::new("d");
    bench.connect(plain());
    let step = bench.give(Input::Create {
        patch: Bytes::new(),
    });
    assert!(matches!(step.reply(), Some(Reply::Record(record)) if record.listed));
    assert!(
        bench.record().is_connected(),
        "listing a device leaves its session alone"
    );
    let step = bench.give(Input::Create {
        patch: Bytes::new(),
    });
    assert_eq!(step.reply(), Some(&Reply::Exists));
    let mut bench = Bench::new("not/a/device");
    assert_eq!(
        bench
            .give(Input::Create {
                patch: Bytes::new()
            })
            .reply(),
        Some(&Reply::NotFound)
    );
}

#[test]
fn deleting_a_device_ends_its_session() {
    let mut bench = Bench::new("d");
    assert_eq!(
        bench.give(Input::Delete { if_match: None }).reply(),
        Some(&Reply::NotFound)
    );
    let epoch = bench.connect(with_will(persistent(100), 10)).opened().epoch;
    let step = bench.give(Input::Delete { if_match: Some(9) });
    assert_eq!(
        step.reply(),
        Some(&Reply::PreconditionFailed { revision: 1 })
    );
    let step = bench.give(Input::Delete { if_match: Some(1) });
    let words = [
        "persist drop rows+remove",
        "evict",
        "end session",
        "reply",
        "disconnected",
        "will",
    ];
    assert_eq!(step.words(), words);
    assert!(bench.record.is_none());
    assert!(bench.give(Input::WillPublished { epoch }).is_nothing());
    bench.wait(1);
    assert!(bench.connect(plain()).opened().epoch > epoch);
}

#[test]
fn an_app_is_forgotten_an_hour_after_it_went_and_a_device_is_not() {
    for (kind, forgotten) in [(Kind::App, true), (Kind::Device, false)] {
        let mut bench = Bench::new("c");
        let epoch = bench.connect(Connect { kind, ..plain() }).opened().epoch;
        let forget = || Input::Timer(Timer::Forget { epoch });
        assert!(bench.give(forget()).is_nothing());
        let step = bench.end(DisconnectReason::ClientInitiated);
        assert_eq!(
            step.words().contains(&"forget in 3600".to_owned()),
            forgotten
        );
        bench.wait(3600);
        bench.give(forget());
        assert_eq!(bench.record.is_none(), forgotten);
    }
}

#[test]
fn an_app_that_came_back_is_not_forgotten() {
    let mut bench = Bench::new("c");
    let app = || Connect {
        kind: Kind::App,
        ..plain()
    };
    let epoch = bench.connect(app()).opened().epoch;
    bench.end(DisconnectReason::ClientInitiated);
    bench.connect(app());
    bench.wait(3600);
    assert!(
        bench
            .give(Input::Timer(Timer::Forget { epoch }))
            .is_nothing()
    );
}

#[test]
fn the_last_error_is_kept_and_cut() {
    let mut bench = Bench::new("d");
    assert!(
        bench
            .give(Input::Failed {
                message: "unknown client".to_owned()
            })
            .is_nothing()
    );
    bench.connect(plain());
    bench.give(Input::Failed {
        message: "ä".repeat(300),
    });
    let error = bench.record().last_error.as_ref().unwrap();
    assert_eq!((error.message.len(), error.at), (256, bench.now));
}
