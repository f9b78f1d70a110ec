//! How a node becomes part of the cluster.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{process::Command, time::sleep};

use super::{
    nodes::Nodes,
    plan::{LINK_PORT, host},
};
use crate::site::Site;

/// How long a token may take.
const TOKEN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Nodes {
    /// `umbel cluster init` on the first, `join` on each other.
    pub(super) async fn enter(&self, n: usize) -> Result<()> {
        let launcher = self.launchers.get(n).context("no such node")?;
        let config = launcher.config();
        let mut command = launcher.command();
        command.arg("cluster");
        if n == 0 {
            command.arg("init").arg("--config").arg(config);
        } else {
            let token = self.token().await?;
            let seed = format!("{}:{LINK_PORT}", host(0, self.network.is_some()));
            command.arg("join").arg("--config").arg(config);
            command.args(["--seed", &seed, "--token", &token]);
        }
        run(&mut command).await.map(drop)
    }

    async fn token(&self) -> Result<String> {
        let first = self.launchers.first().context("no node")?;
        let up = self.sites.iter().next().and_then(Site::here);
        let server = format!(
            "http://{}",
            up.context("the first node is down")?.endpoints.http
        );
        let mut command = first.command();
        command.args(["ctl", "--server", &server, "-o", "json", "token", "create"]);
        let began = Instant::now();
        loop {
            let made = run(&mut command).await;
            if let Ok(text) = &made
                && let Some(token) = serde_json::from_str::<Value>(text)?
                    .get("token")
                    .and_then(Value::as_str)
            {
                return Ok(token.to_owned());
            }
            if began.elapsed() > TOKEN_WITHIN {
                bail!("no token is made: {made:?}");
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Runs a command to its good end; what it printed.
async fn run(command: &mut Command) -> Result<String> {
    let done = command.output().await?;
    if !done.status.success() {
        let error = String::from_utf8_lossy(&done.stderr);
        bail!("{command:?}: {}: {}", done.status, error.trim());
    }
    Ok(String::from_utf8(done.stdout)?)
}
