//! F34, G13: what cannot be used replaces nothing.

use std::{fs, path::Path, process::Command};

use umbel_tests::{Authority, Outcome, Running, Served, eventually, outcome};

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

[aws]
bind = "127.0.0.1:0"
"#;

const RELOADS: &str = "umbel_tls_reloads_total";

fn number(node: &Served, name: &str) -> f64 {
    let page = node.http("GET", "/metrics", &[], b"").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

fn reloads(node: &Served, outcome: &str) -> f64 {
    number(node, &format!("{RELOADS}{{outcome=\"{outcome}\"}}"))
}

/// Asks for a reload and waits for its outcome.
fn reload(node: &Served, outcome: &str) {
    let before = reloads(node, outcome);
    node.ask_to_reload();
    eventually(format!("a reload is {outcome}"), || {
        (reloads(node, outcome) > before).then_some(())
    });
}

/// A client with a certificate of one authority, which trusts the same one.
fn knock(program: &str, node: &Served, authority: &Path, name: &str, topic: &str) -> Command {
    let file = |name: String| authority.join(name).display().to_string();
    let mut command = Command::new(program);
    command
        .args(["-h", "localhost", "-p", &node.at("own").port().to_string()])
        .args(["--cafile", &file("ca.pem".to_owned())])
        .args(["--cert", &file(format!("{name}.pem"))])
        .args(["--key", &file(format!("{name}.key"))])
        .args(["-i", name, "-q", "1"])
        .args(["-t", &format!("$aws/things/{name}/shadow/{topic}")]);
    command
}

/// A device of one authority says something.
fn says(node: &Served, authority: &Path) -> Outcome {
    let mut command = knock("mosquitto_pub", node, authority, "lamp", "get");
    outcome(command.args(["-m", "{}"]), "")
}

/// What the AWS data plane answers a device of an authority, if TLS succeeds.
fn asks_aws(node: &Served, authority: &Path) -> Outcome {
    let file = |name: &str| authority.join(name).display().to_string();
    let url = format!(
        "https://localhost:{}/things/lamp/shadow",
        node.at("aws").port()
    );
    let mut command = Command::new("curl");
    command
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "20",
        ])
        .args(["--cacert", &file("ca.pem"), "--cert", &file("lamp.pem")])
        .args(["--key", &file("lamp.key"), &url]);
    outcome(&mut command, "")
}

/// F34: certificates that are renewed are offered without a restart, to all doors; whoever is connected stays.
#[test]
fn f34_new_certificates_are_offered_after_sighup_and_sessions_stay() {
    let node = Served::start(DOORS, |folder| {
        let authority = Authority::create(folder);
        authority.issue("lamp");
        authority.issue("viewer");
    });
    let old = node.folder().join("ca");
    assert_eq!(says(&node, &old).code, Some(0));
    assert_eq!(asks_aws(&node, &old).out, "404");

    // Another authority, as after a change of hands: nothing of the old one is good any more.
    let other = tempfile::tempdir().unwrap();
    Authority::create(other.path()).issue("lamp");
    let new = other.path().join("ca");
    let kept = node.folder().join("kept");
    copy(&old, &kept);
    copy(&new, &old);
    assert_eq!(says(&node, &kept).code, Some(0), "nobody asked for it yet");
    let mut staying = knock("mosquitto_sub", &node, &kept, "viewer", "update/delta");
    let staying = Running::start(staying.args(["-C", "1", "-W", "30"]));
    eventually("the viewer is connected", || {
        let device = node.http("GET", "/api/v1/devices/viewer", &[], b"");
        (device.status == 200 && device.json()["state"] == "online").then_some(())
    });
    reload(&node, "done");
    let said = says(&node, &new);
    assert_eq!(said.code, Some(0), "{}", said.error);
    assert_eq!(asks_aws(&node, &new).out, "404");
    // It could not come back with what it has.
    let merge = [("content-type", "application/merge-patch+json")];
    let path = "/api/v1/devices/viewer/shadows/$classic";
    let wish = br#"{"desired":{"colour":"red"}}"#;
    assert_eq!(node.http("PATCH", path, &merge, wish).status, 200);
    let delta = staying.finish();
    assert!(delta.contains("red"), "{delta}");
    assert_ne!(
        says(&node, &kept).code,
        Some(0),
        "the old authority is trusted"
    );
    assert_ne!(
        asks_aws(&node, &kept).out,
        "404",
        "the old authority is trusted"
    );
}

/// F34: a file that is half written, empty, gone or of another key, and a configuration that is nonsense.
#[test]
fn f34_files_that_cannot_be_used_change_nothing_and_are_named() {
    let node = Served::start(DOORS, |folder| Authority::create(folder).issue("lamp"));
    let authority = node.folder().join("ca");
    let path = |name: &str| authority.join(name);
    let config = node.folder().join("umbel.toml");
    let other = tempfile::tempdir().unwrap();
    Authority::create(other.path());
    let half = |text: Vec<u8>| text[..text.len() / 2].to_vec();
    let foreign = fs::read(other.path().join("ca/server.key")).unwrap();
    let broken = [
        (
            path("server.pem"),
            Some(half(fs::read(path("server.pem")).unwrap())),
        ),
        (path("server.key"), Some(Vec::new())),
        (path("server.key"), Some(foreign)),
        (path("ca.pem"), None),
        (config.clone(), Some(half(fs::read(&config).unwrap()))),
        (config, Some(b"[tls]\nca = 7\n".to_vec())),
    ];
    for (file, content) in broken {
        let good = fs::read(&file).unwrap();
        match content {
            Some(content) => fs::write(&file, content).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        reload(&node, "failed");
        assert!(number(&node, "umbel_tls_reload_failed") > 0.0);
        fs::write(&file, good).unwrap();
        let said = says(&node, &authority);
        assert_eq!(
            said.code,
            Some(0),
            "after {}: {}",
            file.display(),
            said.error
        );
        assert_eq!(asks_aws(&node, &authority).out, "404");
    }
    let log = node.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("not reloaded"))
        .collect();
    assert_eq!(lines.len(), 6, "{lines:?}");
    for name in ["server.pem", "server.key", "ca.pem", "umbel.toml"] {
        assert!(
            lines.iter().any(|line| line.contains(name)),
            "{name}: {lines:?}"
        );
    }
    reload(&node, "done");
    assert!(number(&node, "umbel_tls_reload_failed") < 1.0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
