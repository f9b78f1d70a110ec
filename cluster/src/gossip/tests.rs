//! Five members in one process, with a clock and a network of ours: seeded, so that a failure repeats.

mod net;
mod process;

use std::{collections::BTreeSet, time::Duration};

use net::{Net, address};

use super::{notice::Noticed, seal::Rubbish};

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: std::ops::Range<u64> = 0..8;

#[test]
fn from_one_seed_everybody_finds_everybody() {
    for seed in SEEDS {
        let mut net = Net::new(5, seed);
        net.until(SECOND * 10, "all see all", Net::all_see_all);
        for node in 0..5 {
            let seen = net.members(node);
            assert!(seen.iter().all(|m| m.zone == format!("zone-{}", m.node.0)));
            assert!(seen.iter().all(|m| m.link.port() == 1));
        }
        assert_eq!(net.refused, 0);
    }
}

/// Reliability 0.4: with these settings p50 2.8 s and p99 3.4 s.
#[test]
fn a_crashed_node_is_noticed_by_all() {
    let mut took = Vec::new();
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.crash(3);
        let began = net.now;
        net.until(SECOND * 15, "all see the crash", |net| {
            [0, 1, 2, 4].iter().all(|n| !net.sees(*n, 3))
        });
        took.push(net.now.checked_sub(began).unwrap());
    }
    took.sort();
    assert!(took[took.len() / 2] < SECOND * 6, "{took:?}");
}

#[test]
fn a_node_that_was_started_again_is_back_with_its_new_life() {
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.crash(2);
        net.run(SECOND * 5);
        net.boot(2, 9);
        net.until(SECOND * 10, "all see the new life", |net| {
            [0, 1, 3, 4].iter().all(|n| {
                let members = net.members(*n);
                members
                    .iter()
                    .any(|m| m.node.0 == 3 && m.boot.0 == 9 && m.alive)
            })
        });
        net.until(SECOND * 10, "and it sees all", Net::all_see_all);
    }
}

/// F9, G12, reliability 0.6: one node cut off for 20 s; then all are back within a bound, and nobody is taken for dead
/// because the one that was cut off says so.
#[test]
fn a_partition_heals_within_a_bound_and_without_false_news() {
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        let alone = BTreeSet::from([4]);
        net.partition(&alone);
        net.run(SECOND * 20);
        assert!((0..4).all(|n| !net.sees(n, 4)), "the partition is noticed");
        net.notices.clear();
        net.heal();
        net.until(SECOND * 10, "healed", Net::all_see_all);
        net.run(SECOND * 30);
        assert!(net.all_see_all());
        let false_news = net
            .notices
            .iter()
            .filter(|(by, what, whom)| *by < 4 && *what == Noticed::Down && whom.0 != 5);
        assert_eq!(false_news.count(), 0, "seed {seed}: {:?}", net.notices);
    }
}

#[test]
fn halves_of_a_cluster_find_each_other_again() {
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.partition(&BTreeSet::from([0, 1]));
        net.run(SECOND * 60);
        net.heal();
        net.until(SECOND * 15, "healed", Net::all_see_all);
    }
}

/// G12: foca alone leaves a node that lost everybody alone for ever.
#[test]
fn after_total_silence_everybody_finds_everybody_again() {
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.loss = 1.0;
        net.run(SECOND * 60);
        net.loss = 0.0;
        net.until(SECOND * 15, "healed", Net::all_see_all);
    }
}

/// Reliability 0.5: loss is no death, and where it was taken for one, everybody is back in the end.
#[test]
fn one_packet_in_twenty_lost_kills_nobody_for_long() {
    let mut news = 0;
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.notices.clear();
        net.loss = 0.05;
        net.run(SECOND * 120);
        news += net
            .notices
            .iter()
            .filter(|(_, what, _)| *what == Noticed::Down)
            .count();
        net.loss = 0.0;
        net.until(SECOND * 15, "all are back", Net::all_see_all);
    }
    // Sixteen minutes of five nodes.
    assert!(news <= 40, "{news} false notices");
}

/// F8: a paused process finds its timers overdue when it wakes, and must not take the others for dead because of it.
#[test]
fn a_node_that_slept_accuses_nobody() {
    for seed in SEEDS {
        let mut net = Net::formed(5, seed);
        net.pause(1);
        net.run(SECOND * 8);
        net.notices.clear();
        net.resume(1);
        net.run(SECOND * 10);
        let accused = net
            .notices
            .iter()
            .filter(|(_, what, whom)| *what == Noticed::Down && whom.0 != 2);
        assert_eq!(accused.count(), 0, "seed {seed}: {:?}", net.notices);
        net.until(SECOND * 10, "it is back", Net::all_see_all);
    }
}

/// F29, T32: forged, replayed, cut, foreign packets change nothing.
#[test]
fn what_is_forged_replayed_cut_or_foreign_changes_nothing() {
    let mut net = Net::formed(5, 1);
    net.record = true;
    net.run(SECOND * 5);
    net.record = false;
    let recorded = std::mem::take(&mut net.recorded);
    let before: Vec<_> = (0..5).map(|n| net.members(n)).collect();
    net.notices.clear();
    let mut refused = [0_u32; 4];
    for (to, packet) in &recorded {
        for (kind, count) in refused.iter_mut().enumerate() {
            let mut packet = packet.clone();
            match kind {
                0 => {},
                1 => packet.truncate(packet.len() / 2),
                2 => packet[20] ^= 0xff,
                _ => packet[6] ^= 0xff,
            }
            *count += u32::from(net.inject(*to, &packet).is_err());
        }
    }
    assert!(recorded.len() > 50);
    assert_eq!(refused, [u32::try_from(recorded.len()).unwrap(); 4]);
    net.run(SECOND * 10);
    let after: Vec<_> = (0..5).map(|n| net.members(n)).collect();
    assert_eq!(before, after);
    assert_eq!(net.notices, []);
}

/// T32: what was said to an earlier life, or was said by one, does not count after a restart of either.
#[test]
fn packets_of_earlier_lives_change_nothing() {
    let mut net = Net::formed(5, 2);
    net.record = true;
    net.run(SECOND * 5);
    net.record = false;
    let recorded = std::mem::take(&mut net.recorded);
    for node in 0..5 {
        net.crash(node);
    }
    net.run(SECOND);
    for node in 0..5 {
        net.boot(node, 2);
    }
    // At once, before anybody was heard: only what names the receiver's present life is taken.
    for (to, packet) in &recorded {
        let outcome = net.inject(*to, packet);
        assert!(outcome.is_err(), "an old packet was taken by {to}");
    }
    assert!((0..5).all(|node| net.members(node).is_empty()));
    net.until(SECOND * 10, "all see the new lives", |net| {
        net.all_see_all() && (0..5).all(|n| net.members(n).iter().all(|m| m.boot.0 == 2))
    });
}

#[test]
fn a_hundred_thousand_packets_of_rubbish_do_no_harm() {
    let mut net = Net::formed(3, 3);
    let before = net.members(0);
    for n in 0..100_000_u64 {
        let packet = net.rubbish(n);
        assert!(net.inject(0, &packet).is_err());
    }
    let mut refused = 0;
    // The worst sort: well sealed by a member, and nonsense within.
    for n in 0..20_000_u64 {
        let packet = net.sealed_rubbish(n);
        refused += u32::from(net.inject(0, &packet).is_err());
    }
    assert!(refused > 10_000, "nonsense is not refused");
    net.run(SECOND * 20);
    assert_eq!(before.len(), net.members(0).len());
    net.until(SECOND * 10, "all see all", Net::all_see_all);
}

#[test]
fn a_farewell_is_noticed_at_once() {
    let mut net = Net::formed(5, 4);
    net.leave(2);
    net.run(SECOND);
    assert!([0, 1, 3, 4].iter().all(|n| !net.sees(*n, 2)));
}

#[test]
fn a_foreign_packet_is_told_apart() {
    let mut net = Net::formed(2, 5);
    let mut foreign = Net::stranger();
    let packet = foreign.seal(b"x").unwrap();
    assert_eq!(net.inject(0, &packet), Err(Rubbish::Cluster));
    let address = address(0);
    assert_eq!(address.port(), 7000);
}
