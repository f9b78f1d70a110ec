//! One node of a cluster, as a process.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    Answer, Outcome, Running, SlowDisk, eventually, mosquitto,
    netns::Namespace,
    node::{eprintln_tail, launched, started},
    outcome, program, request,
    session::Session,
};

/// A node of a [`crate::Cluster`], running or not.
pub struct Member {
    folder: PathBuf,
    pub(crate) namespace: Option<Namespace>,
    child: Option<Child>,
    at: BTreeMap<String, Value>,
    link: String,
    files: Option<u64>,
}

impl Member {
    pub(crate) fn new(folder: PathBuf, namespace: Option<Namespace>, link: String) -> Self {
        Self {
            folder,
            namespace,
            child: None,
            at: BTreeMap::new(),
            link,
            files: None,
        }
    }

    /// Does something where this node's loopback is.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.namespace {
            Some(namespace) => namespace.inside(work),
            None => work(),
        }
    }

    /// Runs `umbel` with arguments to its end, where this node is.
    pub fn umbel(&self, arguments: &[&str]) -> Outcome {
        self.inside(|| outcome(Command::new(program("umbel")).args(arguments), ""))
    }

    /// Its configuration file.
    pub fn config(&self) -> String {
        self.folder.join("umbel.toml").display().to_string()
    }

    /// Where other nodes reach it.
    pub fn link(&self) -> &str {
        &self.link
    }

    /// Starts it, on whatever data it has.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = match self.files {
            // It becomes the node: the process is the same.
            Some(most) => {
                let mut command = Command::new("prlimit");
                let limit = format!("--nofile={most}:{most}");
                command.arg(limit).arg(program("umbel"));
                command
            },
            None => Command::new(program("umbel")),
        };
        command.arg("node").arg("--config").arg(self.config());
        let folder = self.folder.clone();
        let (child, at) = self.inside(|| launched(&folder, command));
        self.child = Some(child);
        self.at = at;
    }

    /// Starts it; it may end by itself before it says where it listens.
    pub fn try_start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(program("umbel"));
        command.arg("node").arg("--config").arg(self.config());
        let folder = self.folder.clone();
        if let Ok((child, at)) = self.inside(|| started(&folder, command)) {
            self.child = Some(child);
            self.at = at;
        }
    }

    /// How many files it may have open from its next start on.
    pub fn limit_files(&mut self, most: u64) {
        self.files = Some(most);
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Kills the process at once (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Asks it to end (SIGTERM) and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.ask_to_end();
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        eventually("it ends by itself", || self.has_ended().then_some(()));
        self.child.take().unwrap().wait().unwrap().code()
    }

    /// Stops it where it stands (SIGSTOP), and waits until it does.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        eventually("it has stopped", || self.state()?.eq("T").then_some(()));
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it at once, for who only shares the cluster; [`Self::kill`] takes note of it later.
    pub fn shoot(&self) {
        self.signal(Signal::KILL);
    }

    /// Every sync of its log takes so much longer, until the answer is dropped. Needs root and strace.
    pub fn slow_disk(&self, by: Duration) -> SlowDisk {
        SlowDisk::of(self.process(), by)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Asks it to end (SIGTERM).
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&self) -> bool {
        // A process that nobody waited for yet is a zombie.
        self.state().is_none_or(|state| state == "Z")
    }

    /// What the kernel says of its process: `R`, `S`, `T`, `Z` and others.
    fn state(&self) -> Option<String> {
        let id = self.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, rest) = status.rsplit_once(") ")?;
        Some(rest.get(..1)?.to_owned())
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Throws away everything it believed in.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.folder.join("data")).unwrap();
    }

    /// Its folder: configuration, data, log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("node.log")).unwrap_or_default()
    }

    /// Where the listener of this name is.
    pub fn at(&self, listener: &str) -> SocketAddr {
        let address = self.at.get(listener).and_then(Value::as_str);
        address.unwrap().parse().unwrap()
    }

    /// The API, as `umbel ctl --server` wants it.
    pub fn server(&self) -> String {
        format!("http://{}", self.at("http"))
    }

    /// Any request to its API.
    pub fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.inside(|| request(self.at("http"), method, path, headers, body))
    }

    /// The JSON of a GET that is answered with 200; none otherwise.
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = self.http("GET", path, &[], b"").ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Merges into a device's classic shadow; status and body.
    pub fn update(&self, device: &str, desired: &Value) -> io::Result<(u16, Value)> {
        let path = format!("/api/v1/devices/{device}/shadows/$classic");
        let body = serde_json::json!({ "desired": desired }).to_string();
        let kind = [("content-type", "application/merge-patch+json")];
        let answer = self.http("PATCH", &path, &kind, body.as_bytes())?;
        Ok((answer.status, answer.json()))
    }

    /// Updates until it is accepted, as a client with retries does; the version told.
    pub fn updated(&self, device: &str, desired: &Value) -> u64 {
        eventually(format!("an update of {device} is accepted"), || {
            let (status, body) = self.update(device, desired).ok()?;
            assert!(status == 200 || status >= 429, "{status} {body}");
            (status == 200).then(|| body["version"].as_u64().unwrap())
        })
    }

    /// A device's classic shadow, asked until it is answered.
    pub fn shadow(&self, device: &str) -> Value {
        let path = format!("/api/v1/devices/{device}/shadows/$classic");
        eventually(format!("the shadow of {device} is read"), || {
            self.get(&path)
        })
    }

    /// What the API says of a device once it is in this state.
    pub fn presence(&self, device: &str, state: &str) -> Value {
        eventually(format!("{device} is {state}"), || {
            let view = self.get(&format!("/api/v1/devices/{device}"))?;
            (view["state"] == state).then_some(view)
        })
    }

    /// Connects an MQTT client to its plain listener.
    pub fn connect(&self, mut session: Session) -> Session {
        self.inside(|| session.open(self.at("mqtt")));
        session
    }

    /// Runs `mosquitto_pub` to its end.
    pub fn mosquitto_pub(&self, arguments: &[&str]) -> Outcome {
        let mut command = mosquitto("mosquitto_pub", self.at("mqtt"), arguments);
        self.inside(|| outcome(&mut command, ""))
    }

    /// Runs `mosquitto_pub` with lines on its standard input.
    pub fn mosquitto_lines(&self, arguments: &[&str], lines: &str) -> Outcome {
        let mut command = mosquitto("mosquitto_pub", self.at("mqtt"), arguments);
        self.inside(|| outcome(&mut command, lines))
    }

    /// Starts `mosquitto_sub`.
    pub fn mosquitto_sub(&self, arguments: &[&str]) -> Running {
        let mut command = mosquitto("mosquitto_sub", self.at("mqtt"), arguments);
        self.inside(|| Running::start(&mut command))
    }

    /// A number of its metrics page, summed over its series whose text contains `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let page = self.http("GET", "/metrics", &[], b"").unwrap().text();
        let series = page.lines().filter(|line| {
            let is_named = line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with([' ', '{']));
            is_named && line.contains(labels)
        });
        series
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln_tail(&self.log());
        }
    }
}
