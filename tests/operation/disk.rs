//! A full disk: writes are refused by name, reads go on, and all is well when there is room again.
#![expect(clippy::print_stderr, reason = "a test that cannot run says so")]

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};
use umbel_tests::{Served, Wire, eventually, framed};

const DOOR: &str = "[node]\ndata_dir = \"@/disk/data\"\n[storage]\nreserve = \"24MiB\"\ncache = \"8MiB\"\n[cluster]\n\
                    shards = 4\n[[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
                    identity = \"client-id\"\n";

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, for the node may not be gone yet.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn mount(path: &std::path::Path) -> bool {
    fs::create_dir_all(path).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=96m", "umbel-test"])
        .arg(path)
        .output();
    mounted.is_ok_and(|done| done.status.success())
}

fn patch(node: &Served, value: u32) -> (u16, Value) {
    let merge = [("content-type", "application/merge-patch+json")];
    let body = json!({"reported": {"n": value}}).to_string();
    let answer = node.http(
        "PATCH",
        "/api/v1/devices/lamp/shadows/$classic",
        &merge,
        body.as_bytes(),
    );
    (answer.status, answer.json())
}

fn publish(topic: &str, payload: &str) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend(payload.as_bytes());
    framed(0x30, &body)
}

/// The answer to an update over MQTT: which topic, and the payload. Answers to others' updates are passed over.
fn updated(wire: &mut Wire, value: u32) -> (String, Value) {
    let update = json!({"state": {"reported": {"n": value}}, "clientToken": value.to_string()});
    wire.send(&publish(
        "$aws/things/lamp/shadow/update",
        &update.to_string(),
    ));
    loop {
        let packet = wire.packet().expect("an answer");
        let text = String::from_utf8_lossy(&packet).into_owned();
        let answer = text
            .find('{')
            .and_then(|at| serde_json::from_str(&text[at..]).ok());
        let Some(answer @ Value::Object(_)) = answer else {
            continue;
        };
        if answer["clientToken"] == update["clientToken"] {
            let is_refused = text.contains("/rejected");
            let verdict = if is_refused { "rejected" } else { "accepted" };
            return (verdict.to_owned(), answer);
        }
    }
}

#[test]
fn a_full_disk_refuses_writes_by_name_and_recovers_without_a_restart() {
    let mut disk = None;
    let probe = tempfile::tempdir().unwrap();
    if !mount(probe.path()) {
        eprintln!("skipped: only root may mount a small disk");
        return;
    }
    drop(Disk(probe.path().to_owned()));
    let node = Served::start(DOOR, |folder| {
        let path = folder.join("disk");
        assert!(mount(&path));
        disk = Some(Disk(path));
    });
    let disk = disk.unwrap();
    let mut lamp = Wire::connected(node.at("mqtt"), "lamp", 600);
    let mut subscribe = vec![0, 1];
    for answer in ["accepted", "rejected"] {
        let filter = format!("$aws/things/lamp/shadow/update/{answer}");
        subscribe.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
        subscribe.extend(filter.as_bytes());
        subscribe.push(0);
    }
    lamp.send(&framed(0x82, &subscribe));
    assert_eq!(lamp.packet().unwrap()[0], 0x90);
    assert_eq!(updated(&mut lamp, 1).0, "accepted");

    let ballast = disk.0.join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M", "count=96"])
        .arg(format!("of={}", ballast.display()))
        .output();
    assert!(!filled.unwrap().status.success(), "the disk is not full");
    let refused = eventually("a write is refused", || {
        let (status, body) = patch(&node, 2);
        (status == 503).then_some(body)
    });
    assert!(refused.to_string().contains("storage"), "{refused}");
    let (verdict, body) = updated(&mut lamp, 3);
    assert_eq!(verdict, "rejected", "{body}");
    assert!(
        body["code"].as_u64().is_some_and(|code| code >= 500),
        "{body}"
    );
    // Reads go on, those who are connected stay, and whoever asks learns why.
    let shadow = node.http("GET", "/api/v1/devices/lamp/shadows/$classic", &[], b"");
    let before = shadow.json()["reported"]["n"].clone();
    assert_eq!(shadow.status, 200);
    let ready = node.http("GET", "/readyz?verbose", &[], b"");
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().contains("refused"), "{}", ready.text());
    assert_eq!(node.http("GET", "/livez", &[], b"").status, 200);

    fs::remove_file(ballast).unwrap();
    eventually("writes are taken again", || {
        (patch(&node, 4).0 == 200).then_some(())
    });
    assert_eq!(updated(&mut lamp, 5).0, "accepted");
    assert_eq!(node.http("GET", "/readyz", &[], b"").status, 200);
    assert!(
        before == 1 || before == 2,
        "a refused write was done: {before}"
    );
    let full = node.log().matches("disk is full").count();
    assert!(
        (1..=3).contains(&full),
        "{full} lines say that the disk is full"
    );
}
