use super::*;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn update(marker: u64, began: u64, ended: u64, outcome: Outcome) -> Operation {
    let action = Action::Update {
        marker,
        expected: None,
    };
    Operation {
        action,
        began: at(began),
        ended: at(ended),
        outcome,
        node: 0,
    }
}

fn read(began: u64, ended: u64, version: u64, marker: u64) -> Operation {
    let outcome = Outcome::Ok {
        version,
        marker: Some(marker),
    };
    Operation {
        action: Action::Read,
        began: at(began),
        ended: at(ended),
        outcome,
        node: 0,
    }
}

fn ok(version: u64) -> Outcome {
    Outcome::Ok {
        version,
        marker: None,
    }
}

fn violations(operations: Vec<Operation>) -> Vec<String> {
    let mut events = Events::default();
    events.devices.insert("d".into(), operations);
    judge(&events).violations
}

#[test]
fn a_linearizable_history_with_lost_answers_passes() {
    let history = vec![
        update(10, 0, 1, ok(1)),
        update(11, 2, 9, Outcome::Unknown),
        read(2, 4, 2, 11),
        update(12, 5, 6, ok(3)),
        read(7, 8, 3, 12),
        update(13, 9, 10, ok(4)),
    ];
    assert_eq!(violations(history), Vec::<String>::new());
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    // Version 2 was told, then the node came back with version 1 and gave 2 away again.
    let reused = vec![
        update(10, 0, 1, ok(1)),
        update(11, 2, 3, ok(2)),
        update(12, 4, 5, ok(2)),
    ];
    assert!(!violations(reused).is_empty());
    let stepped_back = vec![
        update(10, 0, 1, ok(1)),
        update(11, 2, 3, ok(2)),
        read(4, 5, 1, 10),
    ];
    assert!(!violations(stepped_back).is_empty());
    let gone = Operation {
        action: Action::Read,
        began: at(4),
        ended: at(5),
        outcome: Outcome::Missing,
        node: 0,
    };
    assert!(!violations(vec![update(10, 0, 1, ok(1)), gone]).is_empty());
}

#[test]
fn a_version_that_shows_the_marker_of_another_is_found() {
    assert!(!violations(vec![update(10, 0, 1, ok(1)), read(2, 3, 1, 11)]).is_empty());
}

#[test]
fn a_lost_answer_cannot_take_two_versions_or_travel_in_time() {
    let twice = vec![
        update(10, 0, 9, Outcome::Unknown),
        read(1, 2, 1, 10),
        read(3, 4, 2, 10),
    ];
    assert!(!violations(twice).is_empty());
    let early = vec![read(1, 2, 1, 10), update(10, 5, 9, Outcome::Unknown)];
    assert!(!violations(early).is_empty());
}

#[test]
fn versions_that_nobody_wrote_are_found() {
    assert!(!violations(vec![update(10, 0, 1, ok(1)), update(11, 2, 3, ok(3))]).is_empty());
}

#[test]
fn a_conflict_without_a_reason_is_found() {
    let conflict = |began, ended| Operation {
        action: Action::Update {
            marker: 99,
            expected: Some(1),
        },
        began: at(began),
        ended: at(ended),
        outcome: Outcome::Conflict,
        node: 0,
    };
    let base = update(10, 0, 1, ok(1));
    assert!(!violations(vec![base.clone(), conflict(2, 3)]).is_empty());
    let raced = vec![base, update(11, 2, 6, ok(2)), conflict(3, 5)];
    assert_eq!(violations(raced), Vec::<String>::new());
}

#[test]
fn a_repeated_epoch_and_a_lost_message_are_found() {
    let mut events = Events::default();
    events.epochs.insert("c".into(), vec![1, 2, 2]);
    events.acknowledged.insert("q".into(), vec![1, 2, 3]);
    events.received.insert("q".into(), vec![1, 1, 3]);
    let verdict = judge(&events);
    assert_eq!(verdict.violations.len(), 2, "{:?}", verdict.violations);
    assert!(verdict.is_void(), "so little proves nothing");
}
