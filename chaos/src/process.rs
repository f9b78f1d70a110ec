//! A node as a process: started, killed, paused; its ports found in the file it writes.

use std::{
    fs::{self, OpenOptions},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// How long a node may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_mins(1);

/// Where a node listens.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Endpoints {
    /// MQTT.
    pub(crate) mqtt: SocketAddr,
    /// Our API.
    pub(crate) http: SocketAddr,
}

/// How to start a node: the same data folder every time.
pub(crate) struct Launcher {
    program: PathBuf,
    folder: PathBuf,
    /// The network namespace it lives in.
    namespace: Option<String>,
    /// More of its environment.
    environment: Vec<(String, String)>,
}

/// A running node.
pub(crate) struct Node {
    child: Child,
    /// Where it listens.
    pub(crate) endpoints: Endpoints,
}

impl Launcher {
    /// Writes the configuration. `folder` keeps files of the run, `data` is what the node believes in.
    pub(crate) fn new(program: &Path, folder: &Path, data: &Path) -> Result<Self> {
        Self::with(program, folder, data, "", None)
    }

    /// The same with more tables, in a network namespace if one is named.
    pub(crate) fn with(
        program: &Path,
        folder: &Path,
        data: &Path,
        more: &str,
        namespace: Option<String>,
    ) -> Result<Self> {
        let program = fs::canonicalize(program).with_context(|| program.display().to_string())?;
        fs::write(
            folder.join("umbel.toml"),
            format!(
                "[node]\ndata_dir = \"{}\"\n[http]\nbind = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
                 [[listener]]\nname = \"mqtt\"\nkind = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
                 identity = \"anonymous\"\n{more}",
                data.display()
            ),
        )?;
        Ok(Self {
            program,
            folder: folder.to_owned(),
            namespace,
            environment: Vec::new(),
        })
    }

    /// With more variables in its environment.
    pub(crate) fn environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment = variables;
        self
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("umbel.toml")
    }

    /// The program, where the node lives.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.namespace {
            None => Command::new(&self.program),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", namespace])
                    .arg(&self.program);
                command
            },
        };
        let variables = self.environment.iter().map(|(name, value)| (name, value));
        command.envs(variables);
        command
    }

    /// Starts the node and waits until it says where it listens.
    pub(crate) async fn start(&self) -> Result<Node> {
        let ports = self.folder.join("ports.json");
        if ports.exists() {
            fs::remove_file(&ports)?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("node.log"))?;
        let mut child = self
            .command()
            .arg("node")
            .arg("--config")
            .arg(self.config())
            .arg("--ports-file")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let began = Instant::now();
        while began.elapsed() < START_PATIENCE {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "the node ended with {status}; see {}/node.log",
                    self.folder.display()
                );
            }
            if let Ok(text) = fs::read(&ports)
                && let Ok(endpoints) = serde_json::from_slice(&text)
            {
                return Ok(Node { child, endpoints });
            }
            sleep(Duration::from_millis(5)).await;
        }
        bail!("the node did not start within {START_PATIENCE:?}");
    }
}

impl Node {
    /// Kills it at once and waits until the process is gone.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Freezes it (SIGSTOP).
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = timeout(START_PATIENCE, self.child.wait())
            .await
            .context("a node that was asked to end does not")??;
        if !status.success() {
            bail!("a node that was asked to end ended with {status}");
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.id()?)?).context("process id")?;
        kill_process(pid, signal)?;
        Ok(())
    }

    /// Its process id.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().context("the node has ended")
    }

    /// Why it is not running any more, if it is not.
    pub(crate) fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }
}
