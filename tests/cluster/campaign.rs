//! Short campaigns with fixed seeds; the long ones are `umbel-chaos cluster`, by hand.

use std::process::Command;

use umbel_tests::program;

fn campaign(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program("umbel-chaos"))
        .arg("cluster")
        // A gate runs beside others; how fast it heals is measured by the long campaigns.
        .args(["--heals-within", "120"])
        .arg("--umbel")
        .arg(program("umbel"))
        .arg("--folder")
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{error}");
}

/// F1, G1 to G4, G6: the history of every client is that of one copy.
#[test]
fn nothing_acknowledged_is_lost_when_owners_are_killed_again_and_again() {
    campaign(&["--cycles", "6", "--seed", "7", "--faults", "kill-owner"]);
}

/// F2, F5, F8, F27.
#[test]
fn nothing_acknowledged_is_lost_when_nodes_are_killed_paused_and_restarted() {
    let faults = "kill-follower,kill-majority,pause-owner,restart";
    campaign(&["--cycles", "8", "--seed", "11", "--faults", faults]);
}

/// F9, F10. Needs root.
#[test]
fn nothing_acknowledged_is_lost_when_networks_break() {
    campaign(&[
        "--cycles",
        "6",
        "--seed",
        "13",
        "--faults",
        "isolate,one-way",
    ]);
}

/// F6, G1: all nodes lose their power at once; what the disks were not told to keep is gone. Needs root and loop devices.
#[test]
fn f6_nothing_acknowledged_is_lost_when_all_nodes_lose_their_power_at_once() {
    campaign(&[
        "--cycles",
        "4",
        "--seed",
        "17",
        "--faults",
        "power-cut",
        "--longest-ms",
        "600",
    ]);
}

/// F7, G1 to G4: a node dies before, between and after what it makes durable, does and tells: at points to which load
/// leads. `umbel-chaos cluster --faults crash-point` tries all.
#[test]
fn f7_nothing_acknowledged_is_lost_when_nodes_die_at_points_of_their_code() {
    let points = [
        "log.flush.before",
        "append.saved",
        "state.row.before",
        "snapshot.synced",
        "checkpoint.saved",
        "actor.persist.after",
        "epoch.granted",
    ];
    campaign(&[
        "--cycles",
        "7",
        "--seed",
        "19",
        "--faults",
        "crash-point",
        "--points",
        &points.join(","),
    ]);
}

/// F11: up to 5 % of the packets lost and 100 ms late: no shard fails over and no device is offline. Needs root.
#[test]
fn f11_a_poor_network_makes_nobody_fail_over() {
    campaign(&["--cycles", "3", "--seed", "23", "--faults", "mild-network"]);
}

/// F11, G1: up to 30 % lost, half a second late, out of order, twice, 1 Mbit/s: slow, never wrong. Needs root.
#[test]
fn f11_a_bad_network_makes_it_slow_and_never_wrong() {
    campaign(&["--cycles", "4", "--seed", "29", "--faults", "bad-network"]);
}

/// F20, G7: an owner with a tenth of one processor: no device that sends is offline, no answer is wrong. Needs root.
#[test]
fn f20_a_starved_owner_takes_no_device_that_sends_for_gone() {
    campaign(&["--cycles", "3", "--seed", "31", "--faults", "starve"]);
}

/// F21: wall clocks jump by an hour or by ten years, of one node or of all, or to and fro: no election, no lease, no
/// keep-alive and no version depends on them.
#[test]
fn f21_wall_clocks_that_jump_move_no_shard_and_no_device() {
    campaign(&["--cycles", "5", "--seed", "37", "--faults", "clock"]);
}
