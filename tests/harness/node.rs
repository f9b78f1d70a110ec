//! A node as a process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Answer, eventually, program, request};

/// Where a node listens and where its certificates are, as it wrote them.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoints {
    /// MQTT on plain TCP, anonymous.
    pub mqtt: SocketAddr,
    /// MQTT on TLS with client certificates.
    pub mqtts: SocketAddr,
    /// MQTT on WebSocket.
    pub ws: SocketAddr,
    /// Our API.
    pub http: SocketAddr,
    /// The AWS data plane with client certificates.
    pub aws: SocketAddr,
    /// Certificate of the local authority.
    pub ca: PathBuf,
}

/// A running `umbel dev`, killed when dropped.
pub struct Node {
    folder: TempDir,
    child: Option<Child>,
    settings: Vec<(String, String)>,
    /// Where it listens now.
    pub at: Endpoints,
}

impl Node {
    /// Starts a node on an empty folder and waits until it answers.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a node with settings from the environment (`UMBEL__SECTION__KEY`).
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let (child, at) = launch(folder.path(), &settings);
        Self {
            folder,
            child: Some(child),
            settings,
            at,
        }
    }

    /// Kills the process at once, as the kernel's OOM killer would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same data. Its ports are new.
    pub fn restart(&mut self) {
        self.kill();
        let (child, at) = launch(self.folder.path(), &self.settings);
        self.child = Some(child);
        self.at = at;
    }

    /// Asks it to end (SIGTERM) and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        child.wait().unwrap().code()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Its folder: data, certificates, log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("node.log")).unwrap_or_default()
    }

    /// GET from our API, which must answer 200.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.http("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Any request to our API.
    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.at.http, method, path, headers, body).unwrap()
    }

    /// Issues a certificate and key for a device.
    pub fn issue(&self, device: &str) -> (PathBuf, PathBuf) {
        let folder = self.folder.path();
        let output = Command::new(program("umbel"))
            .args(["ca", "--dir"])
            .arg(folder.join("data/ca"))
            .args(["issue", device, "--out"])
            .arg(folder.join("issued"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let path = |suffix: &str| folder.join("issued").join(format!("{device}.{suffix}"));
        (path("pem"), path("key"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln_tail(&self.log());
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what the node said"
)]
pub(crate) fn eprintln_tail(log: &str) {
    let tail = log.len().saturating_sub(4000);
    let end = log.get(tail..).unwrap_or(log);
    eprintln!("--- the node's log ends with ---\n{end}");
}

fn launch(folder: &Path, settings: &[(String, String)]) -> (Child, Endpoints) {
    let mut command = Command::new(program("umbel"));
    command
        .arg("dev")
        .arg("--data")
        .arg(folder.join("data"))
        .arg("--any-port")
        .envs(settings.iter().map(|(key, value)| (key, value)));
    launched(folder, command)
}

/// Starts a command that writes a ports file, and waits for it.
pub(crate) fn launched<T: DeserializeOwned>(folder: &Path, command: Command) -> (Child, T) {
    match started(folder, command) {
        Ok(started) => started,
        Err(status) => {
            let log = fs::read_to_string(folder.join("node.log")).unwrap_or_default();
            panic!("the node ended with {status}:\n{log}");
        },
    }
}

/// The same for one that may end instead, with this status.
pub(crate) fn started<T: DeserializeOwned>(
    folder: &Path,
    mut command: Command,
) -> Result<(Child, T), ExitStatus> {
    let ports = folder.join("ports.json");
    if ports.exists() {
        fs::remove_file(&ports).unwrap();
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("node.log"))
        .unwrap();
    let mut child = command
        .arg("--ports-file")
        .arg(&ports)
        .env("UMBEL__LOG__FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let at = eventually("the node says where it listens", || {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(Err(status));
        }
        serde_json::from_slice(&fs::read(&ports).ok()?).ok().map(Ok)
    });
    at.map(|at| (child, at))
}
