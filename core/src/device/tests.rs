//! Behaviour of the device machine: protocol.md 4.1, and what MQTT says of sessions and wills.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    ids::{ClientId, NodeId, SessionEpoch},
    message::{Message, Qos},
    shadow::{Origin, Request, Shadow, ShadowKind, Verb},
    time::Timestamp,
};

const START: u64 = 1_000_000_000;

/// A client under test and a clock that moves when it is told. Adopts every change, as if each commit succeeded.
struct Bench {
    client: ClientId,
    record: Option<DeviceRecord>,
    now: Timestamp,
    rules: Rules,
}

/// What one input led to.
struct Step(Change);

impl Bench {
    fn new(client: &str) -> Self {
        let client = ClientId::parse(client).unwrap();
        let now = Timestamp::from_millis(START);
        Self {
            client,
            record: None,
            now,
            rules: Rules::default(),
        }
    }

    fn give(&mut self, input: Input) -> Step {
        let change = handle(
            &self.client,
            self.record.as_ref(),
            input,
            self.now,
            &self.rules,
        );
        match &change.record {
            RecordChange::Keep => {},
            RecordChange::Put(record) => self.record = Some(record.as_ref().clone()),
            RecordChange::Remove => self.record = None,
        }
        Step(change)
    }

    fn wait(&mut self, seconds: u64) {
        self.now = self.now + Duration::from_secs(seconds);
    }

    fn connect(&mut self, connect: Connect) -> Step {
        self.give(Input::Connect(Box::new(connect)))
    }

    fn end(&mut self, reason: DisconnectReason) -> Step {
        let epoch = self.record().epoch;
        self.give(Input::Disconnect(Disconnect {
            epoch,
            reason,
            expiry: None,
            with_will: false,
        }))
    }

    fn record(&self) -> &DeviceRecord {
        self.record.as_ref().expect("a record")
    }

    fn presence(&self) -> (Presence, &'static str) {
        (self.record().presence, self.record().reason.as_str())
    }
}

impl Step {
    fn opened(&self) -> Opened {
        match self.reply() {
            Some(Reply::Opened(opened)) => *opened,
            other => panic!("{other:?}"),
        }
    }

    fn reply(&self) -> Option<&Reply> {
        self.0.effects.iter().find_map(|effect| {
            if let Effect::Reply(reply) = effect {
                Some(reply)
            } else {
                None
            }
        })
    }

    /// The effects in order, each as a word.
    fn words(&self) -> Vec<String> {
        self.0.effects.iter().map(word).collect()
    }

    /// The timer that was asked for, ready to be given back.
    fn timer(&self) -> Input {
        let timers = self.0.effects.iter().filter_map(|effect| match effect {
            Effect::Schedule { what, .. } => Some(*what),
            Effect::Persist(_)
            | Effect::Reply(_)
            | Effect::Publish(_)
            | Effect::PublishWill { .. }
            | Effect::EndSession { .. }
            | Effect::Evict { .. } => None,
        });
        Input::Timer(timers.last().expect("a timer"))
    }

    fn wills(&self) -> usize {
        self.0
            .effects
            .iter()
            .filter(|effect| matches!(effect, Effect::PublishWill { .. }))
            .count()
    }

    fn event(&self, name: &str) -> Value {
        let level = format!("/{name}/");
        let found = self.0.effects.iter().find_map(|effect| {
            let Effect::Publish(message) = effect else {
                return None;
            };
            message.topic.contains(&level).then_some(&message.payload)
        });
        serde_json::from_slice(found.unwrap_or_else(|| panic!("{:?}", self.words()))).unwrap()
    }

    fn is_nothing(&self) -> bool {
        let silent = self
            .0
            .effects
            .iter()
            .all(|effect| matches!(effect, Effect::Reply(Reply::Done)));
        silent && matches!(self.0.record, RecordChange::Keep)
    }
}

fn word(effect: &Effect) -> String {
    let text = match effect {
        Effect::Persist(writes) => {
            let writes: Vec<_> = writes
                .iter()
                .map(|write| match write {
                    RecordWrite::Record(_) => "record",
                    RecordWrite::RemoveRecord => "remove",
                    RecordWrite::Shadow { .. } => "shadow",
                    RecordWrite::RemoveShadow { .. } => "remove shadow",
                    RecordWrite::DropSessionRows => "drop rows",
                })
                .collect();
            return format!("persist {}", writes.join("+"));
        },
        Effect::Publish(message) => message.topic.rsplit('/').nth(1).unwrap_or("?"),
        Effect::Reply(_) => "reply",
        Effect::PublishWill { .. } => "will",
        Effect::EndSession { .. } => "end session",
        Effect::Evict { .. } => "evict",
        Effect::Schedule { after, what } => {
            let what = match what {
                Timer::GraceOver { .. } => "grace",
                Timer::SessionExpiry { .. } => "expiry",
                Timer::WillDue { .. } => "will",
                Timer::Forget { .. } => "forget",
            };
            return format!("{what} in {}", after.as_secs());
        },
    };
    text.to_owned()
}

fn plain() -> Connect {
    Connect {
        kind: Kind::Device,
        protocol: 5,
        clean_start: false,
        expiry: 0,
        keep_alive: 60,
        will: None,
        principal: "cert-1".to_owned(),
        ip: "10.0.0.7".to_owned(),
        listener: "mqtts".to_owned(),
        gateway: NodeId(1),
        gateway_boot: 1,
    }
}

fn persistent(expiry: u32) -> Connect {
    Connect { expiry, ..plain() }
}

fn will(delay: u32) -> Will {
    let payload = Bytes::from_static(b"gone");
    let message = Message::from_cluster(
        "last/words".to_owned(),
        payload,
        Qos::AtLeastOnce,
        Timestamp::default(),
    );
    Will {
        message,
        delay,
        expiry: Some(30),
    }
}

fn with_will(connect: Connect, delay: u32) -> Connect {
    Connect {
        will: Some(will(delay)),
        ..connect
    }
}

// connecting

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

// the end of a connection

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

// wills

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

// presence

#[test]
fn a_lost_gateway_makes_stale_and_then_offline_with_one_will() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(persistent(100), 0)).opened().epoch;
    let step = bench.give(Input::GatewayLost { epoch });
    assert_eq!(step.words(), ["grace in 30"], "stale is not made durable");
    assert_eq!(bench.presence(), (Presence::Stale, "GATEWAY_LOST"));
    assert!(bench.give(Input::GatewayLost { epoch }).is_nothing());
    let grace = step.timer();
    bench.wait(30);
    let step = bench.give(grace.clone());
    // The session's time runs since the gateway was lost.
    assert_eq!(
        step.words(),
        ["persist record", "disconnected", "will", "expiry in 70"]
    );
    assert_eq!(
        step.event("disconnected")["disconnectReason"],
        "CONNECTION_LOST"
    );
    assert_eq!(bench.presence(), (Presence::Offline, "GATEWAY_LOST"));
    assert!(bench.give(grace).is_nothing());
}

#[test]
fn coming_back_within_the_grace_is_no_flap_and_sends_no_will() {
    for clean_start in [false, true] {
        let mut bench = Bench::new("d");
        let epoch = bench.connect(with_will(persistent(100), 0)).opened().epoch;
        let grace = bench.give(Input::GatewayLost { epoch }).timer();
        bench.wait(20);
        let step = bench.connect(Connect {
            clean_start,
            ..with_will(persistent(100), 0)
        });
        assert_eq!(step.wills(), 0);
        assert_eq!(step.opened().taken_over, None);
        assert_eq!(step.opened().session_present, !clean_start);
        assert!(!step.words().contains(&"disconnected".to_owned()));
        assert_eq!(bench.record().flaps, Flaps::default());
        assert_eq!(bench.presence(), (Presence::Online, "CONNECTED"));
        assert!(bench.give(grace).is_nothing());
    }
}

#[test]
fn a_gateway_that_was_not_lost_brings_its_clients_back() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(plain()).opened().epoch;
    let grace = bench.give(Input::GatewayLost { epoch }).timer();
    bench.give(Input::Heard { epoch });
    assert_eq!(bench.presence(), (Presence::Online, "HEARD_AGAIN"));
    bench.wait(60);
    assert!(bench.give(grace).is_nothing());
}

#[test]
fn a_connection_that_was_taken_for_lost_gets_its_whole_grace_anew_while_its_gateway_is_asked() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(plain(), 0)).opened().epoch;
    let old = bench.give(Input::GatewayLost { epoch }).timer();
    bench.wait(3600);
    // The next owner finds it lost, because some other change was stored meanwhile.
    let step = bench.give(Input::Recover {
        gateway: Gateway::Asked,
    });
    assert!(step.words().is_empty(), "no grace runs: {:?}", step.words());
    assert_eq!(bench.presence(), (Presence::Stale, "GATEWAY_LOST"));
    assert!(bench.record().is_connected());
    assert!(bench.give(old).is_nothing());
    let step = bench.give(Input::GatewayLost { epoch });
    assert_eq!(step.words(), ["grace in 30"]);
    bench.give(Input::Heard { epoch });
    assert_eq!(bench.presence(), (Presence::Online, "HEARD_AGAIN"));
    assert!(bench.give(step.timer()).is_nothing());
}

#[test]
fn who_is_thrown_out_is_sought_at_the_gateway_that_holds_it() {
    let mut bench = Bench::new("d");
    let first = bench.connect(plain()).opened().epoch;
    let elsewhere = Connect {
        gateway: NodeId(2),
        gateway_boot: 7,
        ..plain()
    };
    let step = bench.connect(elsewhere);
    let evicted = step.0.effects.iter().find_map(|effect| {
        let Effect::Evict { epoch, gateway, .. } = effect else {
            return None;
        };
        Some((*epoch, *gateway))
    });
    assert_eq!(evicted, Some((first, NodeId(1))));
    let session = bench.record().session.as_ref().expect("open");
    assert_eq!((session.gateway, session.gateway_boot), (NodeId(2), 7));
}

#[test]
fn late_heartbeats_make_stale_then_offline_and_leave_the_session_alone() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(plain(), 0)).opened().epoch;
    let late = bench.give(Input::HeartbeatLate { epoch });
    assert_eq!(late.words(), ["grace in 30"]);
    assert_eq!(bench.presence(), (Presence::Stale, "HEARTBEAT_LATE"));
    bench.wait(30);
    let step = bench.give(late.timer());
    assert_eq!(step.words(), ["persist record"]);
    assert_eq!(bench.presence(), (Presence::Offline, "HEARTBEAT_LATE"));
    assert!(bench.record().is_connected());
    assert!(bench.give(late.timer()).is_nothing());
    assert_eq!(
        bench.give(Input::Heard { epoch }).words(),
        ["persist record"]
    );
    assert_eq!(bench.presence(), (Presence::Online, "HEARD_AGAIN"));
    // A silent client that then really goes has its will and its event.
    bench.give(Input::HeartbeatLate { epoch });
    assert_eq!(bench.end(DisconnectReason::KeepAliveTimeout).wills(), 1);
}

#[test]
fn a_silent_client_does_not_look_better_because_its_gateway_is_lost() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(plain()).opened().epoch;
    let late = bench.give(Input::HeartbeatLate { epoch }).timer();
    bench.give(late);
    let grace = bench
        .give(Input::Recover {
            gateway: Gateway::Gone,
        })
        .timer();
    assert_eq!(bench.presence(), (Presence::Offline, "HEARTBEAT_LATE"));
    bench.give(grace);
    assert_eq!(bench.presence(), (Presence::Offline, "GATEWAY_LOST"));
    assert_eq!(bench.record().session, None);
}

#[test]
fn since_changes_with_the_presence_only() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(9));
    let online_since = bench.record().since;
    bench.wait(5);
    bench.connect(persistent(9));
    assert_eq!(
        bench.record().since,
        online_since,
        "a take-over stays online"
    );
    bench.end(DisconnectReason::ConnectionLost);
    assert_eq!(bench.record().since, bench.now);
}

#[test]
fn connections_that_keep_breaking_are_flapping_until_they_hold() {
    let mut bench = Bench::new("d");
    let is_flapping = |bench: &Bench| bench.record().is_flapping(bench.now, &bench.rules.flapping);
    for _ in 0..5 {
        bench.connect(plain());
        assert!(!is_flapping(&bench));
        bench.wait(1);
        bench.end(DisconnectReason::ConnectionLost);
    }
    assert!(is_flapping(&bench));
    bench.connect(plain());
    bench.wait(10 * 60);
    assert!(!is_flapping(&bench));
    for _ in 0..10 {
        bench.end(DisconnectReason::ClientInitiated);
        bench.connect(plain());
    }
    assert!(!is_flapping(&bench), "going to sleep is not breaking");
}

#[test]
fn a_new_owner_doubts_connections_and_schedules_what_is_due() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(100));
    assert!(
        bench
            .give(Input::Recover {
                gateway: Gateway::Here
            })
            .is_nothing()
    );
    assert_eq!(
        bench
            .give(Input::Recover {
                gateway: Gateway::Gone
            })
            .words(),
        ["grace in 30"]
    );
    assert_eq!(bench.presence(), (Presence::Stale, "GATEWAY_LOST"));
    assert_eq!(bench.record().evidence, Evidence::OwnerRestarted);
    bench.wait(10);
    assert_eq!(
        bench
            .give(Input::Recover {
                gateway: Gateway::Gone
            })
            .words(),
        ["grace in 20"]
    );
    bench.connect(with_will(persistent(100), 50));
    bench.end(DisconnectReason::ConnectionLost);
    bench.wait(20);
    let step = bench.give(Input::Recover {
        gateway: Gateway::Gone,
    });
    assert_eq!(step.words(), ["will in 30", "expiry in 80"]);
}

#[test]
fn a_will_of_which_nobody_knows_whether_it_went_out_is_sent_again_by_a_new_owner() {
    let mut bench = Bench::new("d");
    let epoch = bench.connect(with_will(plain(), 0)).opened().epoch;
    assert_eq!(bench.end(DisconnectReason::ConnectionLost).wills(), 1);
    let step = bench.give(Input::Recover {
        gateway: Gateway::Gone,
    });
    assert_eq!(step.wills(), 1);
    bench.give(Input::WillPublished { epoch });
    assert_eq!(
        bench
            .give(Input::Recover {
                gateway: Gateway::Gone
            })
            .wills(),
        0
    );
}

// AWS's connection counter

#[test]
fn the_version_number_rises_and_starts_anew_after_an_hour_away() {
    let mut bench = Bench::new("d");
    for expected in 0..3 {
        assert_eq!(
            bench.connect(plain()).event("connected")["versionNumber"],
            expected
        );
        let event = bench
            .end(DisconnectReason::ClientInitiated)
            .event("disconnected");
        assert_eq!(event["versionNumber"], expected);
        bench.wait(3599);
    }
    bench.wait(1);
    assert_eq!(
        bench.connect(plain()).event("connected")["versionNumber"],
        0
    );
}

#[test]
fn a_long_session_keeps_its_version_number() {
    let mut bench = Bench::new("d");
    bench.connect(persistent(7200));
    bench.end(DisconnectReason::ClientInitiated);
    bench.wait(7199);
    assert_eq!(
        bench.connect(persistent(7200)).event("connected")["versionNumber"],
        1
    );
}

// other events

#[test]
fn refusals_and_subscriptions_have_events() {
    let client = ClientId::parse("camera-1").unwrap();
    let subject = events::Subject {
        client: &client,
        kind: Kind::Device,
        epoch: SessionEpoch(7),
        principal: "cert-1",
    };
    let now = Timestamp::from_millis(START);
    let body = |message: Option<Message>| -> (String, Value) {
        let message = message.expect("an event");
        (
            message.topic,
            serde_json::from_slice(&message.payload).unwrap(),
        )
    };
    let session = events::session_identifier(&client, SessionEpoch(7));
    assert_eq!(session.len(), 36);
    let (topic, failed) = body(events::connect_failed(subject, "10.0.0.7", now));
    assert_eq!(topic, "$aws/events/presence/connect_failed/camera-1");
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "connect_failed",
        "connectFailureReason": "AUTHORIZATION_FAILED", "principalIdentifier": "cert-1",
        "sessionIdentifier": session, "ipAddress": "10.0.0.7", "thingName": "camera-1",
    });
    assert_eq!(failed, expected);
    let (topic, subscribed) = body(events::subscribed(subject, &["a/+", "b\"#"], now));
    assert_eq!(topic, "$aws/events/subscriptions/subscribed/camera-1");
    let expected = json!({
        "clientId": "camera-1", "timestamp": START, "eventType": "subscribed",
        "sessionIdentifier": session, "principalIdentifier": "cert-1", "topics": ["a/+", "b\"#"],
        "thingName": "camera-1",
    });
    assert_eq!(subscribed, expected);
    let (topic, event) = body(events::unsubscribed(subject, &[], now));
    assert_eq!(topic, "$aws/events/subscriptions/unsubscribed/camera-1");
    assert_eq!(
        (&event["eventType"], &event["topics"]),
        (&json!("unsubscribed"), &json!([]))
    );
}

// records

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

// shadows

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
