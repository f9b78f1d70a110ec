//! A configuration is judged whole before anything starts, and the judgement names file, line and key.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use umbel_tests::{Outcome, Served, outcome, program};

/// `EX_USAGE`.
const UNUSABLE: Option<i32> = Some(64);

struct File {
    _folder: TempDir,
    path: PathBuf,
}

impl File {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("umbel.toml");
        fs::write(&path, text).unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn config(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let mut command = Command::new(program("umbel"));
        command
            .arg("config")
            .args(arguments)
            .arg("--config")
            .arg(&self.path)
            .envs(environment.iter().copied());
        outcome(&mut command, "")
    }
}

fn refused(text: &str, because: &[&str]) {
    let file = File::with(text);
    let judged = file.config(&["check"], &[]);
    assert_eq!(judged.code, UNUSABLE, "{text}: {judged:?}");
    let name = file.path.display().to_string();
    for part in because.iter().copied().chain([name.as_str()]) {
        assert!(
            judged.error.contains(part),
            "{text}: `{part}` is not in {}",
            judged.error
        );
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_file_line_and_key() {
    refused(
        "[node]\nid = 1\ndatadir = \"x\"\n",
        &["umbel.toml:3", "datadir", "did you mean `data_dir`?"],
    );
    refused("[node]\nid = \"one\"\n", &["umbel.toml:2", "invalid type"]);
    refused("[node\n", &["umbel.toml:1"]);
    refused(
        "[mqtt]\nreceive_maximum = 0\n",
        &["mqtt.receive_maximum", "must not be 0"],
    );
    refused("[mqtt]\nkeep_alive_max = \"soon\"\n", &["soon", "30s"]);
    refused(
        "[log]\nlevel = \"loud\"\n",
        &["log.level", "`loud` is no level"],
    );
    refused("[http]\nbind = \"0.0.0.0:0\"\n", &["http.bind", "loopback"]);
    refused(
        "[policy]\ndevice = \"/nowhere/policy.json\"\n",
        &["/nowhere/policy.json"],
    );
    refused(
        "[[user]]\nname = \"app\"\npassword_hash = \"secret\"\n",
        &["user `app`", "umbel user hash"],
    );
    let listener = |kind: &str, bind: &str, identity: &str| {
        format!(
            "[[listener]]\nname = \"door\"\nkind = \"{kind}\"\nbind = \"{bind}\"\nidentity = \"{identity}\"\n"
        )
    };
    refused(
        &listener("tcp", "0.0.0.0:0", "client-id"),
        &["listener `door`", "loopback"],
    );
    refused(
        &listener("tcp", "127.0.0.1:0", "certificate"),
        &["listener `door`", "tls"],
    );
    refused(
        &listener("tls", "127.0.0.1:0", "certificate"),
        &["tls.ca", "umbel ca init"],
    );
    refused(
        &listener("pigeon", "127.0.0.1:0", "client-id"),
        &["umbel.toml:3", "pigeon"],
    );
}

#[test]
fn certificates_that_do_not_read_are_found_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let rubbish = folder.path().join("rubbish.pem");
    fs::write(&rubbish, "no certificate").unwrap();
    let path = rubbish.display();
    refused(
        &format!(
            "[tls]\nca = \"{path}\"\ncertificate = \"{path}\"\nkey = \"{path}\"\n[aws]\nbind = \"127.0.0.1:0\"\n"
        ),
        &["tls.ca", "rubbish.pem"],
    );
}

#[test]
fn the_environment_overrides_and_every_value_says_where_it_is_from() {
    let file = File::with("[node]\nid = 7\n");
    let shown = file.config(&["show", "--origin"], &[("UMBEL__NODE__DRAIN", "5s")]);
    assert_eq!(shown.code, Some(0), "{}", shown.error);
    let line = |start: &str| {
        let found = shown.out.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start} in {}", shown.out))
            .to_owned()
    };
    assert!(line("id = 7").ends_with("umbel.toml"));
    assert!(line("drain = \"5s\"").ends_with("environment UMBEL__NODE__DRAIN"));
    assert!(line("shards = 64").ends_with("default"));

    for (name, value, part) in [
        ("UMBEL__NODE__DRIAN", "5s", "did you mean `drain`?"),
        ("UMBEL__NODE__DRAIN", "soon", "no span of time"),
        (
            "UMBEL__CLUSTER__SHARDS",
            "0",
            "cluster.shards: must not be 0",
        ),
    ] {
        let judged = file.config(&["check"], &[(name, value)]);
        assert_eq!(judged.code, UNUSABLE, "{name}={value}");
        assert!(
            judged.error.contains(part) && judged.error.contains(name),
            "{}",
            judged.error
        );
    }
}

#[test]
fn the_file_we_ship_is_one_that_can_be_used() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/deploy/umbel.toml");
    let text = fs::read_to_string(shipped).unwrap();
    let folder = tempfile::tempdir().unwrap();
    umbel_tests::Authority::create(folder.path());
    let certificates = folder.path().join("ca").display().to_string();
    let file = File::with(&text.replace("/etc/umbel", &certificates));
    let judged = file.config(&["check"], &[]);
    assert_eq!(judged.code, Some(0), "{}", judged.error);
}

const DOOR: &str = "[[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\nidentity = \"client-id\"\n";

/// Runs a node that is expected to give up.
fn fails(toml: &str) -> Outcome {
    let file = File::with(toml);
    let mut command = Command::new(program("umbel"));
    command.arg("node").arg("--config").arg(&file.path);
    outcome(&mut command, "")
}

#[test]
fn a_start_that_cannot_be_says_why_and_harms_nothing() {
    let mut node = Served::start(DOOR, |_| ());
    let data = node.folder().join("data");
    let data = data.display();
    let head = format!("[node]\ndata_dir = \"{data}\"\n[http]\nbind = \"127.0.0.1:0\"\n");
    let in_use = fails(&format!("{head}{DOOR}"));
    assert_eq!(in_use.code, Some(1));
    assert!(
        in_use.error.contains("in use by another process"),
        "{}",
        in_use.error
    );

    let taken = node.at("mqtt");
    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path().display();
    let port =
        format!("[node]\ndata_dir = \"{elsewhere}\"\n[http]\nbind = \"127.0.0.1:0\"\n{DOOR}")
            .replace("127.0.0.1:0\"\nidentity", &format!("{taken}\"\nidentity"));
    let refused = fails(&port);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.error.contains(&taken.to_string()),
        "{}",
        refused.error
    );
    assert!(refused.error.contains("in use"), "{}", refused.error);

    assert_eq!(node.http("GET", "/livez", &[], b"").status, 200);
    node.ask_to_end();
    assert_eq!(node.ended(), Some(0));
    let mut refused_text = String::new();
    // The same data, read as another cluster's: every key would be looked for in the wrong place.
    for (toml, part) in [
        (format!("{head}{DOOR}[cluster]\nshards = 8\n"), "64 shards"),
        (
            format!("{head}{DOOR}").replace("[node]", "[node]\nid = 2"),
            "node 1",
        ),
    ] {
        let refused = fails(&toml);
        assert_eq!(refused.code, Some(1), "{}", refused.error);
        assert!(refused.error.contains(part), "{}", refused.error);
        if refused_text.is_empty() {
            refused_text = refused.error;
        }
    }
    // It was asked to end, so there was nothing to mend.
    assert!(!refused_text.contains("was not closed"), "{refused_text}");
    let nobody = fails(&head);
    assert_eq!(nobody.code, UNUSABLE);
    assert!(nobody.error.contains("[[listener]]"), "{}", nobody.error);
}
