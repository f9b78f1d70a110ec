//! Who may connect, what of an older session goes on, and take-overs.

use super::*;

#[test]
fn a_connection_is_durable_before_it_is_answered_and_told() {
    let mut bench = Bench::new("camera-1");
    let step = bench.connect(plain());
    assert_eq!(step.words(), ["persist record", "reply", "connected"]);
    let expected = Opened {
        epoch: SessionEpoch(START + 1),
        session_present: false,
        taken_over: None,
    };
    assert_eq!(step.opened(), expected);
    assert_eq!(bench.presence(), (Presence::Online, "CONNECTED"));
    assert!(bench.record().is_connected());
}

#[test]
fn connected_and_disconnected_events_have_the_fields_of_aws() {
    let mut bench = Bench::new("camera-1");
    let connected = bench.connect(plain()).event("connected");
    let session = connected["sessionIdentifier"].clone();
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "connected",
        "sessionIdentifier": session, "principalIdentifier": "cert-1", "ipAddress": "10.0.0.7",
        "versionNumber": 0, "thingName": "camera-1",
    });
    assert_eq!(connected, expected);
    let disconnected = bench
        .end(DisconnectReason::ConnectionLost)
        .event("disconnected");
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "disconnected",
        "sessionIdentifier": session, "principalIdentifier": "cert-1",
        "clientInitiatedDisconnect": false, "disconnectReason": "CONNECTION_LOST",
        "versionNumber": 0, "thingName": "camera-1",
    });
    assert_eq!(disconnected, expected);
}

#[test]
fn an_app_has_no_thing_name() {
    let mut bench = Bench::new("console/7");
    let event = bench
        .connect(Connect {
            kind: Kind::App,
            ..plain()
        })
        .event("connected");
    assert!(event.get("thingName").is_none());
}

#[test]
fn a_client_with_a_wildcard_in_its_id_gets_no_events() {
    let mut bench = Bench::new("a#b");
    let connect = Connect {
        kind: Kind::App,
        ..plain()
    };
    assert_eq!(bench.connect(connect).words(), ["persist record", "reply"]);
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(
        step.words(),
        ["persist record", "end session", "reply", "forget in 3600"]
    );
}

#[test]
fn a_waiting_session_goes_on_and_its_rows_stay() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(
        step.words(),
        ["persist record", "reply", "disconnected", "expiry in 100"]
    );
    bench.wait(99);
    let step = bench.connect(persistent(100));
    assert!(step.opened().session_present);
    assert_eq!(step.words(), ["persist record", "reply", "connected"]);
}

#[test]
fn a_clean_start_drops_the_rows_of_the_old_session_in_the_same_commit() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    bench.end(DisconnectReason::ClientInitiated);
    let step = bench.connect(Connect {
        clean_start: true,
        ..persistent(100)
    });
    assert!(!step.opened().session_present);
    assert_eq!(
        step.words(),
        [
            "persist drop rows+record",
            "end session",
            "reply",
            "connected"
        ]
    );
}

#[test]
fn a_session_that_expired_unnoticed_is_not_resumed() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    bench.end(DisconnectReason::ConnectionLost);
    bench.wait(100);
    let step = bench.connect(persistent(100));
    assert!(!step.opened().session_present);
    assert_eq!(
        step.words(),
        [
            "persist drop rows+record",
            "end session",
            "reply",
            "connected"
        ]
    );
}

#[test]
fn a_session_without_expiry_ends_with_its_connection() {
    let mut bench = Bench::new("d");
    bench.connect(plain());
    let step = bench.end(DisconnectReason::ClientInitiated);
    assert_eq!(
        step.words(),
        ["persist record", "end session", "reply", "disconnected"]
    );
    assert_eq!(bench.record().session, None);
    assert!(!bench.connect(plain()).opened().session_present);
}

#[test]
fn a_session_that_was_continued_to_end_with_its_connection_takes_its_rows_with_it() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    bench.end(DisconnectReason::ConnectionLost);
    assert!(bench.connect(plain()).opened().session_present);
    let step = bench.end(DisconnectReason::ClientInitiated);
    assert!(
        step.words()
            .contains(&"persist drop rows+record".to_owned())
    );
}

#[test]
fn a_take_over_evicts_before_it_answers() {
    let mut bench = Bench::new("d");
    let first = bench.connect(persistent(100)).opened();
    let step = bench.connect(persistent(100));
    assert_eq!(
        step.words(),
        [
            "persist record",
            "evict",
            "reply",
            "disconnected",
            "connected"
        ]
    );
    let opened = step.opened();
    assert_eq!(opened.taken_over, Some(first.epoch));
    assert!(opened.session_present && opened.epoch > first.epoch);
    let event = step.event("disconnected");
    assert_eq!(event["disconnectReason"], "DUPLICATE_CLIENTID");
    assert_eq!(
        (
            &event["versionNumber"],
            &step.event("connected")["versionNumber"]
        ),
        (&json!(0), &json!(1))
    );
    // The old connection's end arrives late, and changes nothing.
    let late = Disconnect {
        epoch: first.epoch,
        reason: DisconnectReason::DuplicateClientId,
        expiry: None,
        with_will: false,
    };
    assert!(bench.give(Input::Disconnect(late)).is_nothing());
    assert_eq!(bench.presence().0, Presence::Online);
}

#[test]
fn a_take_over_sends_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    for (delay, expiry, clean_start, wills) in [
        (0, 100, false, 1),
        (0, 100, true, 1),
        (5, 100, false, 0),
        (5, 100, true, 1),
        (5, 0, false, 1),
    ] {
        let mut bench = Bench::new("d");
        bench.connect(with_will(persistent(expiry), delay));
        let step = bench.connect(Connect {
            clean_start,
            ..persistent(expiry)
        });
        assert_eq!(
            step.wills(),
            wills,
            "delay {delay} expiry {expiry} clean {clean_start}"
        );
    }
}

#[test]
fn only_listed_devices_connect_when_the_rules_say_so() {
    let mut bench = Bench::new("d");
    bench.rules.admission = Admission::Listed;
    let step = bench.connect(plain());
    assert_eq!(step.reply(), Some(&Reply::NotListed));
    assert!(bench.record.is_none());
    assert!(matches!(
        bench
            .connect(Connect {
                kind: Kind::App,
                ..plain()
            })
            .reply(),
        Some(Reply::Opened(_))
    ));
    bench.give(Input::Create {
        patch: Bytes::new(),
    });
    bench.connect(plain()).opened();
}

#[test]
fn an_app_does_not_take_the_name_of_a_device_or_of_another_user() {
    let app = |principal: &str| Connect {
        kind: Kind::App,
        principal: principal.to_owned(),
        ..persistent(100)
    };
    let mut device = Bench::new("camera-1");
    let epoch = device.connect(persistent(100)).opened().epoch;
    assert_eq!(
        device.connect(app("alice")).words(),
        ["reply"],
        "nobody is thrown out"
    );
    device.end(DisconnectReason::ConnectionLost);
    device.wait(1000);
    assert_eq!(
        device.connect(app("alice")).reply(),
        Some(&Reply::NotListed),
        "nor is it seen online because of an app"
    );
    assert_eq!(device.record.as_ref().unwrap().epoch, epoch);

    let mut shared = Bench::new("console/7");
    shared.connect(app("alice")).opened();
    shared.end(DisconnectReason::ConnectionLost);
    assert_eq!(
        shared.connect(app("bob")).reply(),
        Some(&Reply::NotListed),
        "a session that waits is its user's"
    );
    assert!(shared.connect(app("alice")).opened().session_present);
    shared.end(DisconnectReason::ConnectionLost);
    shared.wait(101);
    assert!(!shared.connect(app("bob")).opened().session_present);

    let mut name = Bench::new("lamp");
    name.connect(app("alice")).opened();
    name.connect(plain()).opened();
    assert_eq!(
        name.record.unwrap().kind,
        Kind::Device,
        "a device proves it"
    );
}
