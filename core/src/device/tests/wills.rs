//! When a will goes out, once, and when it does not.

use super::*;

#[test]
fn a_will_is_noted_before_it_goes_out_and_until_it_did() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(plain(), 0)).opened().epoch;
    bench.wait(1);
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(
        step.words(),
        [
            "persist record",
            "end session",
            "reply",
            "disconnected",
            "will"
        ]
    );
    let Some(Effect::PublishWill { message, .. }) = step.0.effects.last() else {
        panic!()
    };
    assert_eq!(
        (message.received_at, message.topic.as_str()),
        (bench.now, "last/words")
    );
    assert_eq!(
        message.expires_at,
        Some(bench.now + Duration::from_secs(30))
    );
    assert!(bench.record().pending_wills[0].sent);
    assert_eq!(
        bench.give(Input::WillPublished { epoch }).words(),
        ["persist record"]
    );
    assert!(bench.record().pending_wills.is_empty());
    assert!(bench.give(Input::WillPublished { epoch }).is_nothing());
}

fn will_timer(step: &Step) -> Input {
    let found = step.0.effects.iter().find_map(|effect| {
        let Effect::Schedule { what, .. } = effect else {
            return None;
        };
        matches!(what, Timer::WillDue { .. }).then_some(Input::Timer(*what))
    });
    found.expect("a timer")
}

#[test]
fn a_delayed_will_waits_and_goes_out_once() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(persistent(100), 10)).opened().epoch;
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(
        step.words(),
        [
            "persist record",
            "reply",
            "disconnected",
            "will in 10",
            "expiry in 100"
        ]
    );
    let due = will_timer(&step);
    bench.wait(10);
    assert_eq!(bench.give(due.clone()).words(), ["persist record", "will"]);
    assert!(bench.give(due.clone()).is_nothing());
    bench.give(Input::WillPublished { epoch });
    assert!(bench.give(due).is_nothing());
}

#[test]
fn a_reconnect_cancels_a_delayed_will_unless_it_starts_clean() {
    for (clean_start, wills) in [(false, 0), (true, 1)] {
        let mut bench = Bench::new("d");
        let epoch = bench.connect(with_will(persistent(100), 10)).opened().epoch;
        let due = will_timer(&bench.end(DisconnectReason::ConnectionLost));
        bench.wait(5);
        let step = bench.connect(Connect {
            clean_start,
            ..persistent(100)
        });
        assert_eq!(step.wills(), wills);
        bench.wait(5);
        bench.give(Input::WillPublished { epoch });
        assert!(bench.give(due).is_nothing());
    }
}

#[test]
fn a_will_that_was_due_is_not_cancelled_by_a_late_timer() {
    let mut bench = Bench::new("d");
    bench.connect(with_will(persistent(100), 10));
    bench.end(DisconnectReason::ConnectionLost);
    bench.wait(11);
    assert_eq!(bench.connect(persistent(100)).wills(), 1);
}

#[test]
fn the_end_of_a_session_sends_its_delayed_will() {
    let mut bench = Bench::new("d");
    bench.connect(with_will(persistent(3), 10));
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert!(
        step.words().contains(&"will in 3".to_owned()),
        "{:?}",
        step.words()
    );
    bench.wait(3);
    assert_eq!(bench.give(step.timer()).wills(), 1);
    assert!(bench.give(will_timer(&step)).is_nothing());
}
