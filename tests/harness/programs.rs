//! The programs people use: ours, mosquitto's, and Python with the AWS SDKs.

use std::{
    ffi::OsStr,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::Node;

/// What a program printed, once it ended well.
pub type Output = String;

/// A program of this workspace, where `cargo build --workspace` put it.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo build --workspace`",
        path.display()
    );
    path
}

/// Runs a Python script of `tests/python` against a node; it must end well.
pub fn python(script: &str, arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let venv = option_env!("UMBEL_VENV").map_or_else(|| root.join("target/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "{} is missing; run `bash .ci/setup`",
        python.display()
    );
    finish(
        Command::new(python)
            .arg(root.join("tests/python").join(script))
            .args(arguments)
            .env("PYTHONUNBUFFERED", "1"),
    )
}

/// Publishes with `mosquitto_pub`.
pub fn mosquitto_pub(node: &Node, arguments: &[&str]) -> Output {
    finish(&mut mosquitto("mosquitto_pub", node.at.mqtt, arguments))
}

/// Starts `mosquitto_sub`; [`Running::finish`] gives what it received.
pub fn mosquitto_sub(node: &Node, arguments: &[&str]) -> Running {
    Running::start(&mut mosquitto("mosquitto_sub", node.at.mqtt, arguments))
}

/// `mosquitto_pub` or `mosquitto_sub` for a plain listener, not yet started.
pub fn mosquitto(name: &str, at: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    command.args(["-h", &host, "-p", &port]).args(arguments);
    command
}

fn finish(mut command: impl std::borrow::BorrowMut<Command>) -> Output {
    let command = command.borrow_mut();
    let output = command.output().unwrap_or_else(|e| {
        panic!(
            "{}: {e}; run `bash .ci/setup`",
            Path::new(command.get_program()).display()
        )
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let arguments: Vec<&OsStr> = command.get_args().collect();
    assert!(
        output.status.success(),
        "{} {arguments:?}: {}\n{}\n{}",
        command.get_program().display(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub error: String,
}

/// Runs a command to its end, with `input` on its standard input.
pub fn outcome(command: &mut Command, input: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run `bash .ci/setup`"));
    // A program that does not read may have ended already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome {
        code: output.status.code(),
        out: text(&output.stdout),
        error: text(&output.stderr),
    }
}

/// Runs `umbel` with arguments to its end.
pub fn umbel(arguments: &[&str]) -> Outcome {
    outcome(Command::new(program("umbel")).args(arguments), "")
}

/// A program that runs beside the test; killed when dropped.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    /// Waits for the end, which must be a good one, and returns what was printed.
    pub fn finish(mut self) -> Output {
        let output = self.child.take().unwrap().wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Running {
    /// Lets a command run beside the test.
    pub fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}; run `bash .ci/setup`"));
        Self { child: Some(child) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
