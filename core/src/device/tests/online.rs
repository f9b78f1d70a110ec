//! Who is online, stale, offline and flapping, and who owns that knowledge after a failure.

use super::*;

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
