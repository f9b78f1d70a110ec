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
