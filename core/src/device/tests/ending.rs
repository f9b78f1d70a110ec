//! How a connection ends, and what stays of its session.

use super::*;

#[test]
fn each_end_has_its_word_and_sends_the_will_or_not() {
    use DisconnectReason as Why;
    for (reason, word, wills) in [
        (Why::ClientInitiated, "CLIENT_INITIATED_DISCONNECT", 0),
        (Why::AuthError, "AUTH_ERROR", 1),
        (Why::ForbiddenAccess, "FORBIDDEN_ACCESS", 1),
        (Why::ClientError, "CLIENT_ERROR", 1),
        (Why::ConnectionLost, "CONNECTION_LOST", 1),
        (Why::DuplicateClientId, "DUPLICATE_CLIENTID", 1),
        (Why::KeepAliveTimeout, "MQTT_KEEP_ALIVE_TIMEOUT", 1),
        (Why::ServerError, "SERVER_ERROR", 1),
        (Why::ServerInitiated, "SERVER_INITIATED_DISCONNECT", 1),
        (Why::Throttled, "THROTTLED", 1),
        (Why::WebsocketTtlExpired, "WEBSOCKET_TTL_EXPIRATION", 1),
        (Why::CustomAuthTtlExpired, "CUSTOMAUTH_TTL_EXPIRATION", 1),
        (
            Why::ApiInitiated {
                prevent_will: false,
            },
            "API_INITIATED_DISCONNECT",
            1,
        ),
        (
            Why::ApiInitiated { prevent_will: true },
            "API_INITIATED_DISCONNECT",
            0,
        ),
    ] {
        let mut bench = Bench::new("d");
        bench.connect(with_will(plain(), 0));
        let step = bench.end(reason);
        let event = step.event("disconnected");
        assert_eq!(event["disconnectReason"], word);
        assert_eq!(
            event["clientInitiatedDisconnect"],
            reason == Why::ClientInitiated
        );
        assert_eq!(step.wills(), wills, "{word}");
        assert_eq!(bench.presence(), (Presence::Offline, word));
        assert_eq!(bench.record().pending_wills.len(), wills);
    }
}

#[test]
fn a_farewell_with_reason_4_sends_the_will() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(plain(), 0)).opened().epoch;
    let reason = DisconnectReason::ClientInitiated;
    let step = bench.give(Input::Disconnect(Disconnect {
        epoch,
        reason,
        expiry: None,
        with_will: true,
    }));
    assert_eq!(step.wills(), 1);
    assert_eq!(
        step.event("disconnected")["clientInitiatedDisconnect"],
        true
    );
}

#[test]
fn a_farewell_may_change_the_session_expiry_but_not_from_zero() {
    for (opened_with, asked, expected) in [
        (100, Some(7), Some("expiry in 7")),
        (100, Some(0), None),
        (100, None, Some("expiry in 100")),
        (0, Some(50), None),
    ] {
        let mut bench = Bench::new("d");
        let epoch = bench.connect(persistent(opened_with)).opened().epoch;
        let reason = DisconnectReason::ClientInitiated;
        let end = Disconnect {
            epoch,
            reason,
            expiry: asked,
            with_will: false,
        };
        let words = bench.give(Input::Disconnect(end)).words();
        assert_eq!(
            words
                .iter()
                .find(|word| word.starts_with("expiry"))
                .map(String::as_str),
            expected
        );
        assert_eq!(bench.record().session.is_some(), expected.is_some());
        // What was opened with rows is closed with rows.
        assert_eq!(
            words.contains(&"persist drop rows+record".to_owned()),
            asked == Some(0)
        );
    }
}

#[test]
fn a_session_that_never_expires_waits_without_a_timer() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(NEVER_EXPIRES));
    let step = bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(step.words(), ["persist record", "reply", "disconnected"]);
    bench.wait(1_000_000_000);
    assert!(
        bench
            .connect(persistent(NEVER_EXPIRES))
            .opened()
            .session_present
    );
}

#[test]
fn a_session_expires_when_its_time_is_over() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    let first = bench.end(DisconnectReason::ConnectionLost).timer();
    bench.wait(40);
    bench.connect(persistent(100));
    bench.wait(10);
    let second = bench.end(DisconnectReason::ConnectionLost).timer();
    assert!(
        bench.give(first).is_nothing(),
        "the client was back meanwhile"
    );
    bench.wait(100);
    let step = bench.give(second.clone());
    assert_eq!(step.words(), ["persist drop rows+record", "end session"]);
    assert!(bench.give(second).is_nothing());
}

#[test]
fn deadlines_hold_when_wall_time_is_set_back() {
    let mut bench = Bench::new("d");
    bench.connect(with_will(persistent(100), 10));
    let epoch = bench.record().epoch;
    let grace = bench.give(Input::GatewayLost { epoch }).timer();
    bench.now = Timestamp::from_millis(0);
    let step = bench.give(grace);
    assert_eq!(bench.presence().0, Presence::Offline);
    assert_eq!(
        step.words(),
        [
            "persist record",
            "disconnected",
            "will in 10",
            "expiry in 100"
        ]
    );
    let step = bench.give(Input::Recover {
        gateway: Gateway::Gone,
    });
    assert_eq!(step.words(), ["will in 10", "expiry in 100"]);
    bench.give(step.timer());
    assert_eq!(bench.record().session, None);
}
