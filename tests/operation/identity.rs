//! Who may come in by which door, and what may they do there. mosquitto's clients knock.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use umbel_tests::{Authority, Outcome, Served, outcome, program};

const DOORS: &str = r#"
[tls]
ca = "@/ca/ca.pem"
certificate = "@/ca/server.pem"
key = "@/ca/server.key"

[[listener]]
name = "own"
kind = "tls"
bind = "127.0.0.1:0"
identity = "certificate"

[[listener]]
name = "fleet"
kind = "tls"
bind = "127.0.0.1:0"
identity = "shared-certificate"
certificates = ["cameras"]

[[listener]]
name = "apps"
kind = "tcp"
bind = "127.0.0.1:0"
identity = "password"

[[listener]]
name = "trusted"
kind = "tcp"
bind = "127.0.0.1:0"
identity = "client-id"

[[user]]
name = "console"
password_hash = "HASH"

[[user]]
name = "reader"
password_hash = "HASH"
policy = "@/reader.json"

[[user]]
name = "mute"
password_hash = "HASH"
policy = "@/mute.json"
"#;

const PASSWORD: &str = "correct-horse-canary";

const READER: &str = r#"{"Version":"2012-10-17","Statement":[
    {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
    {"Effect":"Allow","Action":"iot:Publish","Resource":"topic/rooms/*"},
    {"Effect":"Deny","Action":"iot:Publish","Resource":"topic/rooms/secret"}]}"#;

fn hash() -> String {
    let done = outcome(
        Command::new(program("umbel")).args(["user", "hash"]),
        PASSWORD,
    );
    assert_eq!(done.code, Some(0), "{}", done.error);
    assert!(done.out.starts_with("$argon2id$"), "{}", done.out);
    done.out.trim().to_owned()
}

fn doors() -> (Served, String) {
    let hash = hash();
    let node = Served::start(&DOORS.replace("HASH", &hash), |folder| {
        let authority = Authority::create(folder);
        for name in ["lamp", "cameras"] {
            authority.issue(name);
        }
        fs::write(folder.join("reader.json"), READER).unwrap();
        fs::write(
            folder.join("mute.json"),
            r#"{"Version":"2012-10-17","Statement":[]}"#,
        )
        .unwrap();
    });
    (node, hash)
}

/// Publishes with QoS 1 and MQTT 5, where a refusal is told. Well if the exit code is 0 and nothing was warned of.
fn publish(door: SocketAddr, client: &str, topic: &str, more: &[&str]) -> Outcome {
    let port = door.port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command
        .args([
            "-V",
            "5",
            "-q",
            "1",
            "-m",
            "{}",
            "-h",
            "localhost",
            "-p",
            &port,
        ])
        .args(["-i", client, "-t", topic])
        .args(more);
    outcome(&mut command, "")
}

fn certificate(folder: &Path, name: &str) -> Vec<String> {
    let path = |name: &str| folder.join("ca").join(name).display().to_string();
    vec![
        "--cafile".to_owned(),
        path("ca.pem"),
        "--cert".to_owned(),
        path(&format!("{name}.pem")),
        "--key".to_owned(),
        path(&format!("{name}.key")),
    ]
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn allowed(done: &Outcome, what: &str) {
    let silent = !done.error.contains("arning") && !done.error.contains(" authori");
    assert!(
        done.code == Some(0) && silent,
        "{what} should be allowed: {done:?}"
    );
}

fn denied(done: &Outcome, what: &str) {
    let told = done.error.contains(" authori")
        || done.error.contains("denied")
        || done.error.contains("ad user");
    assert!(
        done.code != Some(0) || told,
        "{what} should be refused: {done:?}"
    );
}

fn shadow(thing: &str) -> String {
    format!("$aws/things/{thing}/shadow/get")
}

#[test]
fn every_door_lets_in_whom_it_should_and_nobody_else() {
    let (node, hash) = doors();
    own_certificates(&node);
    shared_certificates(&node);
    passwords(&node);
    let trusted = node.at("trusted");
    allowed(
        &publish(trusted, "kettle", &shadow("kettle"), &[]),
        "a claimed name",
    );
    denied(
        &publish(trusted, "kettle", &shadow("lamp"), &[]),
        "another's shadow",
    );

    let log = node.log();
    assert!(
        !log.contains(PASSWORD) && !log.contains(&hash),
        "a secret is in the log"
    );
    assert!(!log.contains("$argon2"), "a hash is in the log");
}

fn own_certificates(node: &Served) {
    let own = node.at("own");
    let lamp = certificate(node.folder(), "lamp");
    let lamp = strs(&lamp);
    allowed(
        &publish(own, "lamp", &shadow("lamp"), &lamp),
        "its own shadow",
    );
    denied(
        &publish(own, "kettle", &shadow("kettle"), &lamp),
        "another's name",
    );
    denied(
        &publish(own, "lamp", &shadow("kettle"), &lamp),
        "another's shadow",
    );
    let answer = "$aws/things/lamp/shadow/get/accepted";
    denied(
        &publish(own, "lamp", answer, &lamp),
        "the service's answers",
    );
    denied(
        &publish(own, "lamp", &shadow("lamp"), &lamp[..2]),
        "no certificate",
    );
}

fn shared_certificates(node: &Served) {
    let fleet = node.at("fleet");
    let cameras = certificate(node.folder(), "cameras");
    let cameras = strs(&cameras);
    for camera in ["camera-1", "camera-2"] {
        allowed(
            &publish(fleet, camera, &shadow(camera), &cameras),
            "one of the fleet",
        );
    }
    denied(
        &publish(fleet, "camera-1", &shadow("camera-2"), &cameras),
        "a sister's shadow",
    );
    let lamp = certificate(node.folder(), "lamp");
    denied(
        &publish(fleet, "camera-1", &shadow("camera-1"), &strs(&lamp)),
        "a lone device's certificate",
    );
}

fn passwords(node: &Served) {
    let apps = node.at("apps");
    let update = "$aws/things/lamp/shadow/update";
    for (user, password, topic, may) in [
        ("console", PASSWORD, update, true),
        ("console", "wrong", update, false),
        ("console", "", update, false),
        ("nobody", PASSWORD, update, false),
        ("reader", PASSWORD, "rooms/1", true),
        ("reader", PASSWORD, "rooms/secret", false),
        ("reader", PASSWORD, "cellar", false),
        ("mute", PASSWORD, "rooms/1", false),
    ] {
        let done = publish(apps, "app-1", topic, &["-u", user, "-P", password]);
        let judge = if may { allowed } else { denied };
        judge(&done, &format!("{user} with {password} on {topic}"));
    }
    denied(&publish(apps, "app-1", update, &[]), "nobody with nothing");
}
