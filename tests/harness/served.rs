//! `umbel node` with a configuration file of the test's own, and the authority that issues its certificates.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Answer,
    node::{eprintln_tail, launched},
    program, request, umbel,
};

/// A running `umbel node`, killed when dropped.
pub struct Served {
    folder: TempDir,
    child: Option<Child>,
    at: BTreeMap<String, Value>,
}

impl Served {
    /// Starts a node from this TOML, in which `@` stands for the test's folder; `[node]` and `[http]` are written here.
    /// `prepare` makes what the file names.
    pub fn start(toml: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let home = folder.path().display().to_string();
        let head = if toml.contains("[node]") {
            String::new()
        } else {
            "[node]\ndata_dir = \"@/data\"\n".to_owned()
        };
        let text = format!("{head}[http]\nbind = \"127.0.0.1:0\"\n{toml}").replace('@', &home);
        let file = folder.path().join("umbel.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(program("umbel"));
        command.arg("node").arg("--config").arg(file);
        let (child, at) = launched(folder.path(), command);
        Self {
            folder,
            child: Some(child),
            at,
        }
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

    /// Any request to our API.
    pub fn http(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.at("http"), method, path, headers, body).unwrap()
    }

    /// Folder of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("node.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Asks it to read its certificates again (SIGHUP).
    pub fn ask_to_reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end (SIGTERM).
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.take().unwrap().wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln_tail(&self.log());
        }
    }
}

/// A certificate authority in a folder, made with `umbel ca`.
pub struct Authority(PathBuf);

impl Authority {
    /// Makes one, and the server's certificate for `localhost`.
    pub fn create(folder: &Path) -> Self {
        let this = Self(folder.join("ca"));
        this.run(&["init"]);
        this.run(&["server", "localhost", "127.0.0.1"]);
        this
    }

    /// Issues a certificate and key to `name.pem` and `name.key` beside the authority's.
    pub fn issue(&self, name: &str) {
        let out = self.0.display().to_string();
        self.run(&["issue", name, "--out", &out]);
    }

    fn run(&self, arguments: &[&str]) {
        let folder = self.0.display().to_string();
        let done = umbel(&[&["ca", "--dir", &folder], arguments].concat());
        assert_eq!(done.code, Some(0), "{}", done.error);
    }
}
